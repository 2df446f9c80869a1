# SPDX-License-Identifier: MIT
"""The kept corpus: small files that reach the branches of each reader, and what they come to.

    python fuzz/fuzz_corpus.py replay READER           read all; print branches and differences
    python fuzz/fuzz_corpus.py add READER FOLDER...    take what reaches more from these folders
    python fuzz/fuzz_corpus.py record READER           write down what the files come to now

READER may be c, the C reader of .clstm files; what reaches more in it goes into corpus/clstm.

`corpus/READER.json` says of each file what it comes to, a line for every way of reading it. A
change of a sentence or a check shows there as a difference, to be looked at in review.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import coverage

HERE = Path(__file__).resolve().parent
CLSTM = HERE.parent / "clstm"
MOST_BYTES = 16_384  # of a file, but where only a larger one reaches a branch


def main() -> None:
    command, name, *folders = sys.argv[1:]
    if name == "c":
        return _c(command, folders)
    warnings.simplefilter("ignore")
    measure = coverage.Coverage(branch=True, data_file=None, include=f"{CLSTM}/formats/*")
    measure.start()  # before the readers are imported
    import fuzz_readers

    measure.stop()
    reader = fuzz_readers.READERS[name]
    if command == "add":
        _add(reader, measure, [Path(f) for f in folders])
    found = {}
    measure.start()
    for path in files(name):
        found[path.name] = fuzz_readers.outcomes(reader, path.read_bytes())
    measure.stop()
    different = _compare(command, name, found)
    print(json.dumps({"files": len(found), "different": different, **branches(reader, measure)}))


def _compare(command: str, name: str, found: dict[str, list[str]]) -> dict[str, object]:
    """What differs from the record, or the record made anew."""
    expected = HERE / "corpus" / f"{name}.json"
    if command in ("add", "record"):
        expected.write_text(json.dumps(found, indent=0) + "\n")
    known = json.loads(expected.read_text())
    names = sorted({*known, *found})
    return {k: [known.get(k), found.get(k)] for k in names if known.get(k) != found.get(k)}


def _c(command: str, folders: list[str]) -> None:
    """The corpus of .clstm in the C reader: what libFuzzer's merge adds, and what C says of it."""
    from fuzz import Fuzzer

    program = Fuzzer("c", HERE / "runs/c", CLSTM.parent)
    if command == "add":
        kept = str(HERE / "corpus/clstm")
        subprocess.run([*program.build_c(), "-merge=1", kept, *folders], check=True)
    paths = files("clstm")
    done = subprocess.run(
        [*program.build_c(replay=True), *paths], capture_output=True, text=True, check=True
    )
    lines = dict(zip([p.name for p in paths], done.stdout.splitlines(), strict=True))
    print(json.dumps({"files": len(lines), "different": _compare(command, "c", lines)}))


def files(name: str) -> list[Path]:
    return sorted((HERE / "corpus" / name).iterdir())


def branches(reader: object, measure: coverage.Coverage) -> dict[str, object]:
    """How many branches the sources of a reader have, and those not taken."""
    out = HERE / "runs" / f"{reader.name}-coverage.json"
    out.parent.mkdir(exist_ok=True)
    include = [f"{CLSTM}/formats/{source}" for source in reader.sources]
    measure.json_report(include=include, outfile=str(out))
    report = json.loads(out.read_text())
    missing = [
        f"{Path(name).name}:{a}->{b}"
        for name, file in report["files"].items()
        for a, b in file["missing_branches"]
    ]
    totals = report["totals"]
    return {
        "branches": totals["num_branches"],
        "taken": totals["covered_branches"],
        "missing": missing,
    }


def _add(reader: object, measure: coverage.Coverage, folders: Iterable[Path]) -> None:
    """Smallest first: a file that takes a new branch or is told a new sentence stays."""
    from fuzz_readers import outcomes

    paths = {p for folder in folders for p in folder.iterdir()}
    seen: set[object] = set()
    old = files(reader.name)
    for path in [*old, *sorted(paths, key=lambda p: p.stat().st_size)]:
        content = path.read_bytes()
        measure.erase()
        measure.start()
        try:
            lines = outcomes(reader, content)
        except Exception as error:
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        finally:
            measure.stop()
        data = measure.get_data()  # which takes what was measured over
        new: set[object] = {re.sub(r"'.*'|[0-9a-f]{8,}|\d+", "", line)[:60] for line in lines}
        new |= {
            (Path(file).name, arc)
            for file in data.measured_files()
            if "formats" in file
            for arc in data.arcs(file) or []
            if Path(file).relative_to(CLSTM / "formats").as_posix() in reader.sources
        }
        if new <= seen or (len(content) > MOST_BYTES and path not in old):
            continue
        seen |= new
        if path not in old:
            (HERE / "corpus" / reader.name / f"{len(content):05d}-{path.name[:12]}").write_bytes(
                content
            )


if __name__ == "__main__":
    main()
