# SPDX-License-Identifier: MIT
"""What the long forms share: parts that are done once, on several cores, with progress, and a file
that lets a run go on where the last one was stopped.

The file has a JSON line for what the run is of, then one for each part that is done. A line that
was cut off by the end of a run is no line: that part is done again.
"""

import argparse
import datetime
import json
import sys
import time
from concurrent.futures import Executor, as_completed
from pathlib import Path


def arguments(description, **defaults):
    """A parser with what every long form takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--resume", type=Path, metavar="FILE", help="note what is done, and go on")
    parser.add_argument("--threads", type=int, default=1, help="parts at once")
    parser.set_defaults(**defaults)
    return parser


def _lines(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def results(parts, work, *, of, resume, executor: Executor):
    """[work(part) for part in parts], results that JSON can write; `of` says by what they come:
    a file of anything else is refused. Parts are numbers or strings."""
    done = {}
    if resume is not None and resume.exists():
        head, *rest = [*_lines(resume)] or [None]
        if head != {"of": of}:
            raise SystemExit(f"{resume} is of another run: {head}, not {of}. Remove it to begin.")
        done = {line["part"]: line["result"] for line in rest}
        # without what was cut off, or the next line would be joined to it
        text = "".join(json.dumps(line) + "\n" for line in (head, *rest))
        resume.write_text(text, encoding="utf-8")
    elif resume is not None:
        resume.parent.mkdir(parents=True, exist_ok=True)
        resume.write_text(json.dumps({"of": of}) + "\n", encoding="utf-8")
    left = [part for part in parts if part not in done]
    futures, start = {executor.submit(work, part): part for part in left}, time.monotonic()
    try:
        for n, future in enumerate(as_completed(futures), 1):
            done[futures[future]] = future.result()
            if resume is not None:
                line = json.dumps({"part": futures[future], "result": future.result()})
                with resume.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            rest = (time.monotonic() - start) / n * (len(left) - n)
            ready = len(parts) - len(left) + n
            print(f"\r{ready} of {len(parts)}, {rest:.0f} s left ", end="", file=sys.stderr)
    finally:
        executor.shutdown(cancel_futures=True)
        if left:
            print(file=sys.stderr)
    return [done[part] for part in parts]


def today():
    return datetime.date.today().isoformat()
