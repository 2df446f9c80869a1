# SPDX-License-Identifier: MIT
"""sigmoid and tanh of all 2^32 floats (tests/c/sweep_activations.c), in parts:

    PYTHONPATH=tests python tests/native/sweep.py --kernel avx512 --threads 2 --resume sweep.json

The default is every kernel set of this CPU. The NEON set under emulation, some of the floats:

    PYTHONPATH=tests python tests/native/sweep.py --kernel neon --stride 61 \\
        --cc "aarch64-linux-gnu-gcc -static" --runner qemu-aarch64-static

Exit status 1 if a bound or a property fails. The last line of each set can be quoted.
"""

import hashlib
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build
import clstm
import long_form

FLOATS = 2**32
LINE = re.compile(r"^(\w+) (tanh|sigmoid): (\d+) floats, ([\d.]+|inf|-?nan) ulp at (\S+)$", re.M)


def ranges(stride, parts):
    """[(first, count)]: together every stride-th float, each once."""
    step = -(-FLOATS // (parts * stride)) * stride
    return [(first, min(step, FLOATS - first)) for first in range(0, FLOATS, step)]


def sweep(command, kernel, stride=1, parts=64, threads=1, resume=None):
    """{function: (floats, worst error in ulp, where)}, the seconds of CPU, and what failed."""
    program = Path(command[-1])

    def work(first):
        done = build.run([*command, kernel, stride, first, dict(pieces)[first]], timeout=3000)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{kernel}: {done.stdout}{done.stderr}")
        return {"status": done.returncode, "printed": done.stdout}

    pieces = ranges(stride, parts)
    found = long_form.results(
        [first for first, _ in pieces],
        work,
        of=[kernel, stride, parts, hashlib.sha256(program.read_bytes()).hexdigest()],
        resume=resume,
        executor=ThreadPoolExecutor(threads),
    )
    printed = "".join(one["printed"] for one in found)
    functions = {}
    for name in ("tanh", "sigmoid"):
        mine = [m for m in LINE.findall(printed) if m[1] == name]
        assert len(mine) == len(pieces), printed
        ulp, at = max((float(m[3]), m[4]) for m in mine)
        functions[name] = sum(int(m[2]) for m in mine), ulp, at
    failed = [line for line in printed.splitlines() if line.startswith("FAIL")]
    assert bool(failed) == any(one["status"] for one in found), printed
    seconds = sum(float(s) for s in re.findall(r"^([\d.]+) s of CPU$", printed, re.M))
    return functions, seconds, failed


def main():
    parser = long_form.arguments(__doc__.splitlines()[0])
    parser.add_argument("--kernel", nargs="+", default=clstm.available_kernels())
    parser.add_argument("--stride", type=int, default=1, help="every such float alone")
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--cc", default="cc", help="a compiler, and flags")
    parser.add_argument("--runner", help="what runs the program, an emulator")
    o = parser.parse_args()
    cc, *flags = o.cc.split()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        builder = build.Builder(folder)
        program = builder(("sweep_activations.c",), cc, (*build.O2, *flags))
        builder.close()
        command = [*filter(None, [o.runner]), program]
        for kernel in o.kernel:
            resume = o.resume and o.resume.with_name(f"{o.resume.name}-{kernel}")
            functions, seconds, failed = sweep(
                command, kernel, o.stride, o.parts, o.threads, resume
            )
            print(*failed[:20], sep="\n", end="\n" if failed else "")
            failures += len(failed)
            worst = "; ".join(
                f"{name} at most {ulp:.4f} ulp, at {at}"
                for name, (_, ulp, at) in functions.items()
            )  # fmt: skip
            count = functions["tanh"][0]
            print(
                f"{kernel}: {count:,} floats, each function; {worst}; "
                f"{len(failed)} failures; {seconds:.0f} s of CPU; {long_form.today()}",
                flush=True,
            )
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
