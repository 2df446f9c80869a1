# SPDX-License-Identifier: MIT
"""Fuzz one reader for a time: python fuzz/fuzz.py READER [--seconds 60]

READER: torch, npz, safetensors, clstm, onnx (atheris on the Python readers), or c (libFuzzer on the
C reader of .clstm, under the address and undefined-behaviour sanitizers). It goes on from what the
last run kept in --work; findings lie in its folder "findings". The last line of the output
says what was done; the exit status is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = ("torch", "npz", "safetensors", "clstm", "onnx")
MAX_LEN = 1 << 16
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", choices=(*PYTHON, "c"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--work", type=Path, default=HERE / "runs")
    parser.add_argument("--source", type=Path, default=ROOT, help="of clstm/ and csrc/")
    parser.add_argument("--first", action="store_true", help="end with the first finding")
    args = parser.parse_args()
    return Fuzzer(args.reader, args.work / args.reader, args.source).run(args.seconds, args.first)


class Fuzzer:
    def __init__(self, reader: str, work: Path, source: Path) -> None:
        self.reader, self.work, self.source = reader, work, source
        self.kept, self.findings = work / "corpus", work / "findings"
        for folder in (self.kept, self.findings):
            folder.mkdir(parents=True, exist_ok=True)
        self.executions = self.edges = self.features = 0

    def run(self, seconds: float, first: bool) -> int:
        command = self.build_c() if self.reader == "c" else self._python()
        begin = time.monotonic()
        while (left := seconds - (time.monotonic() - begin)) >= 1:
            before = self._found()
            done = self._once(command, left)
            found = self._found() - before
            again = "Test unit written to" in done.stdout  # what was found before
            if found == 0 and done.returncode and not again:
                print(done.stdout[-4000:], file=sys.stderr)
                return 2
            if found:
                print(_story(done.stdout), file=sys.stderr, flush=True)
            if found and (first or self.reader == "c"):
                break  # nothing tells two findings of C apart: mend the first one first
        return self._report(time.monotonic() - begin)

    def _found(self) -> int:
        return sum(not path.name.startswith("slow-unit") for path in self.findings.iterdir())

    def _once(self, command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        options = [
            f"-max_total_time={int(seconds) or 1}", f"-artifact_prefix={self.findings}/",
            f"-max_len={MAX_LEN}", "-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1",
            "-use_value_profile=1", str(self.kept),
        ]  # fmt: skip
        seeds = HERE / "corpus" / ("clstm" if self.reader == "c" else self.reader)
        paths = [str(self.source), str(ROOT / "tests"), str(ROOT / "tests/unit")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        env["ASAN_OPTIONS"] = "allocator_may_return_null=1:malloc_context_size=5"
        done = subprocess.run(
            [*command, *options, str(seeds)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=env, text=True, errors="replace", check=False,
        )  # fmt: skip
        for n in re.findall(r"stat::number_of_executed_units:\s*(\d+)", done.stdout):
            self.executions += int(n)
        for edges, features in re.findall(r"cov: (\d+) ft: (\d+)", done.stdout):
            self.edges = max(self.edges, int(edges))
            self.features = max(self.features, int(features))
        return done

    def _python(self) -> list[str]:
        known = str(self.work / "known")
        return [sys.executable, str(HERE / "fuzz_target.py"), self.reader, known]

    def build_c(self, replay: bool = False) -> list[str]:
        """The fuzzer's program, or one that reads files and prints what each is; its objects are
        compiled anew where they are older than a source."""
        csrc, objects = self.source / "csrc", self.work / f"objects{'-replay' * replay}"
        objects.mkdir(exist_ok=True)
        clang = next(
            (c for c in (os.environ.get("CLANG"), "clang", "clang-19") if c and which(c)), None
        )
        if clang is None:
            sys.exit("no clang: apt-get install clang-19 libclang-rt-19-dev")
        tools = ["-DREPLAY"] if replay else SANITIZERS
        flags = ["-g", "-O0", *tools, f"-I{csrc}/include", f"-I{ROOT}/tests/c"]
        sources = [*(csrc / "src").glob("*.c"), *(csrc / "src/kernels").glob("*.c")]
        headers = max(f.stat().st_mtime for f in (csrc / "src").rglob("*.h"))
        made = []
        for source in (*sources, ROOT / "tests/c/hostile.c", HERE / "fuzz_clstm.c"):
            out = objects / f"{source.parent.name}-{source.stem}.o"
            newest = max(headers, source.stat().st_mtime)
            if not out.exists() or out.stat().st_mtime < newest:
                subprocess.run([clang, *flags, "-c", source, "-o", out], check=True)
            made.append(out)
        program = self.work / ("replay" if replay else "fuzz_clstm")
        subprocess.run([clang, *flags, *made, "-lm", "-o", program], check=True)
        return [str(program)]

    def _report(self, seconds: float) -> int:
        file = self.work / "totals.json"
        total = json.loads(file.read_text()) if file.exists() else {"seconds": 0, "executions": 0}
        total["seconds"] += round(seconds)
        total["executions"] += self.executions
        file.write_text(json.dumps(total))
        findings = self._found()
        print(
            f"fuzz {self.reader}: {seconds:.0f} s, {self.executions} executions, "
            f"{self.edges} edges, {self.features} features, "
            f"{len(list(self.kept.iterdir()))} inputs kept, {findings} findings; "
            f"in all {total['seconds']} s, {total['executions']} executions"
        )
        return 1 if findings else 0


def _story(output: str) -> str:
    """What a fuzzer says of a finding, without its progress."""
    lines = output.splitlines()
    for i, line in enumerate(lines):
        if "Uncaught Python exception" in line or "ERROR: " in line or "runtime error" in line:
            return "\n".join(lines[i : i + 40])
    return "\n".join(lines[-20:])


if __name__ == "__main__":
    sys.exit(main())
