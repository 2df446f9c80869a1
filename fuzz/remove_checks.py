# SPDX-License-Identifier: MIT
"""Takes every check out of the readers, one at a time, and sees whether a test notices.

    python fuzz/remove_checks.py [--work WORK] [READER ...]

READER is torch, npz, safetensors, clstm, onnx or c; without one all are taken. A check is a `raise`
in clstm/formats, or an error return in csrc/src/{file,weights,certificate}.c. First the kept corpus
is read without it: its files must come to something else than `corpus/READER.json` says. Where they
do not, the tests of that reader are run. What survives both is printed, and must be argued in
ARGUED. A run goes on where the last one stopped (WORK/checks.json); after a change of the tests
give it another folder.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / p) for p in ("tests", "tests/unit", "tests/native")]
UNIT, CORE = ROOT / "tests/unit", ROOT / "tests/core"
TESTS = {
    "torch": [UNIT / f"test_torch_{w}.py" for w in ("archive", "reader", "hostile")],
    "npz": [UNIT / "test_npz_reader.py", UNIT / "test_source.py", UNIT / "test_torch_archive.py"],
    "safetensors": [UNIT / "test_safetensors_reader.py", UNIT / "test_source.py"],
    "clstm": [CORE / "test_files.py"],
    "onnx": [
        *sorted(CORE.glob("test_onnx_*.py")),
        *(ROOT / f"tests/parity/test_onnx_{w}.py" for w in ("accepted", "graphs")),
    ],
}
C_FILES = ("file.c", "weights.c", "certificate.c")

# Survivors, by the text of the check, and why no test can or need notice.
ARGUED: dict[str, str] = {
    'raise ModelFormatError(f"{name}: names that are not UTF-8") from None': (
        "of protobuf without its C part, which is chosen when it is imported: "
        "test_onnx_hostile.py tries it in another process, which has the check"
    ),
}


class Check(NamedTuple):
    reader: str
    file: Path
    line: int
    text: str  # the statement, white space folded
    function: str  # of Python: the outermost one that it stands in; of C: ""
    source: str  # the whole file without it

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:12]
        return f"{self.reader} {self.file.name}:{self.line} {digest}"


# -- Python


def python_checks(reader: str, sources: tuple[str, ...]) -> Iterator[Check]:
    for source in sources:
        file = ROOT / "clstm/formats" / source
        text = file.read_text()
        tree = ast.parse(text)
        for function, node in _functions(tree):
            for at in ast.walk(node):
                if isinstance(at, ast.Raise):
                    statement = ast.get_source_segment(text, at) or ""
                    lines = text.splitlines()
                    lines[at.lineno - 1] = lines[at.lineno - 1][: at.col_offset] + "pass"
                    lines[at.lineno : at.end_lineno] = [""] * ((at.end_lineno or 0) - at.lineno)
                    folded = " ".join(statement.split())
                    yield Check(reader, file, at.lineno, folded, function, "\n".join(lines))


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The functions of a module and the methods of its classes; nested ones go with them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.FunctionDef):
                yield f"{node.name}.{inner.name}", inner


def _put_in_place(check: Check) -> None:
    """The function gets the code without its check; whoever holds it runs that."""
    name = ".".join(check.file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    owner: object = importlib.import_module(name)  # of ONNX some are imported at first use
    code = compile(check.source, str(check.file), "exec", dont_inherit=True)
    for part in check.function.split("."):
        code = next(
            c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == part
        )
        owner = owner.__dict__[part]  # not getattr: a property is wanted as it stands
    for function in (owner, getattr(owner, "fget", None), getattr(owner, "__func__", None)):
        if isinstance(function, types.FunctionType):
            function.__code__ = code


def _in_a_child(work: Callable[[], bool], seconds: int) -> bool:
    """Whether `work`, in a process of its own, noticed something, fell over or took too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        status = 1
        with contextlib.suppress(BaseException), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            status = 1 if work() else 0
        os._exit(status)
    return os.waitpid(child, 0)[1] != 0


def _corpus_notices(check: Check) -> bool:
    from fuzz_corpus import files
    from fuzz_readers import READERS, outcomes

    _put_in_place(check)
    expected = json.loads((HERE / "corpus" / f"{check.reader}.json").read_text())
    return any(
        outcomes(READERS[check.reader], path.read_bytes()) != expected[path.name]
        for path in files(check.reader)
    )


def _tests_notice(check: Check) -> bool:
    import pytest

    _put_in_place(check)
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.main([*words, *map(str, TESTS[check.reader])]) != 0


# -- C

_FAILS = re.compile(
    r"return clstm_fail\((?:[^;\"]|\"(?:\\.|[^\"\\])*\")*;"
    r"|\bbad\(c, \"[^\"]*\"\);|c->status =\s+clstm_fail\((?:[^;\"]|\"(?:\\.|[^\"\\])*\")*;"
    r"|return status;"
)


def c_checks() -> Iterator[Check]:
    for name in C_FILES:
        file = ROOT / "csrc/src" / name
        text = file.read_text()
        for match in _FAILS.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            last = text[match.end() :].lstrip()[:1] == "}"  # a function must end with a value
            instead = "return CLSTM_OK;" if last and "return" in match[0] else "{}"
            source = text[: match.start()] + instead + text[match.end() :]
            yield Check("c", file, line, " ".join(match[0].split()), "", source)


class CBench:
    """Builds the replay of the corpus and the native checks with one file changed."""

    def __init__(self, folder: Path) -> None:
        import hostile_images
        import models
        from test_hostile import FAILING_MALLOC, small

        import build

        self.build, self.folder = build, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.builder = build.Builder(folder / "objects")
        self.paths = [str(p) for p in sorted((HERE / "corpus/clstm").iterdir())]
        images = list(small())
        damage = models.write_pack(folder / "damage", images)
        refused = models.write_pack(folder / "refused", hostile_images.refused())
        (folder / "one").write_bytes(images[0])
        replay = (str(HERE / "fuzz_clstm.c"), "hostile.c", "check.c")
        flags = ("-O0", "-w", "-DREPLAY", f"-I{build.TESTS_C}")
        self.ways = [
            (replay, flags, self.paths),
            (("check_refused.c", "check.c"), ("-O0",), [refused]),
            (("check_memory.c", "check.c"), FAILING_MALLOC, [damage, folder / "one"]),
            (("check_file.c", "hostile.c", "check.c"), ("-O0",), [damage, 2000]),
        ]
        self.sound = build.succeed([self.builder(replay, "cc", flags), *self.paths])

    def notices(self, check: Check) -> str:
        """The program that does, or ""."""
        copy = self.folder / check.file.name
        copy.write_text(check.source)
        for programs, flags, arguments in self.ways:
            objects = [o.result() for o in self.builder.start(programs, "cc", flags)]
            mine = self.folder / "changed.o"
            include = [f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc/src"]
            self.build.succeed(["cc", *flags, "-w", *include, "-c", copy, "-o", mine])
            rest = [o for o in objects if o.name != f"src-{check.file.stem}.o"]
            program = self.folder / "program"
            self.build.succeed(["cc", *flags, *rest, mine, *self.build.LIBRARIES, "-o", program])
            done = self.build.run([program, *arguments], timeout=120)
            same = done.stdout == self.sound or "-DREPLAY" not in flags
            if done.returncode or not same:
                return Path(programs[0]).stem
        return ""


# -- all


def main() -> int:
    warnings.simplefilter("ignore")
    from fuzz_readers import READERS

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("readers", nargs="*", choices=[*READERS, "c"])
    parser.add_argument("--work", type=Path, default=HERE / "runs")
    args = parser.parse_args()
    names = args.readers or [*READERS, "c"]
    file = args.work / "checks.json"
    args.work.mkdir(exist_ok=True)
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    checks, seen = [], set[tuple[Path, int]]()
    for name in names:
        mine = list(c_checks() if name == "c" else python_checks(name, READERS[name].sources))
        checks += [c for c in mine if (c.file, c.line) not in seen or c.reader == "c"]
        seen |= {(c.file, c.line) for c in mine}
    if "torch" in names:
        import torch  # noqa: F401  # once, before the children
    if "onnx" in names:
        import onnx.reference  # noqa: F401
    for check in {c.reader: c for c in checks if c.reader != "c"}.values():
        whole = check._replace(source=check.file.read_text())
        if _in_a_child(lambda whole=whole: _corpus_notices(whole), 120):
            sys.exit(f"{check.reader}: the corpus differs with every check in place; see replay")
    bench = CBench(args.work / "checks") if "c" in names else None
    for i, check in enumerate(checks):
        if check.key not in known:
            known[check.key] = _outcome(check, bench)
            file.write_text(json.dumps(known, indent=0))
        print(f"{i + 1}/{len(checks)} {check.key}: {known[check.key] or 'SURVIVES'}", flush=True)
    left = [c for c in checks if not known[c.key]]
    for check in left:
        why = ARGUED.get(check.text, "")
        print(f"{check.file.name}:{check.line}: {check.text[:90]}: {why or 'NOT ARGUED'}")
    argued = sum(c.text in ARGUED for c in left)
    print(
        f"checks removed: {len(checks)}, noticed: {len(checks) - len(left)}, "
        f"survive with a reason: {argued}, survive: {len(left) - argued}"
    )
    return 1 if len(left) > argued else 0


def _outcome(check: Check, bench: CBench | None) -> str:
    if check.reader == "c":
        assert bench is not None
        return bench.notices(check)
    if _in_a_child(lambda: _corpus_notices(check), 60):
        return "corpus"
    return "tests" if _in_a_child(lambda: _tests_notice(check), 600) else ""


if __name__ == "__main__":
    sys.exit(main())
