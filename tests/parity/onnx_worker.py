# SPDX-License-Identifier: MIT
"""clstm in a process that can import neither torch nor onnxruntime: it gets (file, x, state,
lengths) and gives what the model of that file returns, or the error, pickled both ways."""

from __future__ import annotations

import importlib.abc
import pickle
import subprocess
import sys
from typing import Any

BLOCKED = ("torch", "onnxruntime")


class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked here")


class Worker:
    """The other end: calls that are run there."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def call(self, data: bytes, x: Any, state: Any = None, lengths: Any = None) -> Any:
        assert self.process.stdin and self.process.stdout
        pickle.dump((data, x, state, lengths), self.process.stdin)
        self.process.stdin.flush()
        found = pickle.load(self.process.stdout)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def main() -> None:
    assert not any(name in sys.modules for name in BLOCKED)
    sys.meta_path.insert(0, Block())
    import clstm

    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            data, x, state, lengths = pickle.load(stdin)
        except EOFError:
            return
        try:
            found: Any = clstm.load(data)(x, state, lengths=lengths)
        except Exception as error:
            found = error
        pickle.dump(found, stdout)
        stdout.flush()


if __name__ == "__main__":
    main()
