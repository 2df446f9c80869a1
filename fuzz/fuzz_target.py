# SPDX-License-Identifier: MIT
"""One process of a fuzzer: python fuzz_target.py READER KNOWN [libFuzzer's options and folders]

KNOWN is a file of the findings so far, one signature a line: they are passed over, so that the
next one is found. fuzz.py starts this again after each.
"""

import importlib
import random
import sys
import time
import traceback
import warnings
from pathlib import Path

import atheris

warnings.simplefilter("ignore")  # NumPy warns of files; with the count, that would be a leak
MODULES = {"torch": ["torch"], "onnx": ["onnx"]}  # which the readers import at first use
for module in MODULES.get(sys.argv[1], []):
    importlib.import_module(module)
with atheris.instrument_imports(include=["clstm"]):
    from fuzz_readers import READERS, outcomes

SLACK = 8.0  # of the time promised: for instrumentation, the oracles, a machine that is busy


def main() -> None:
    reader, known_file = READERS[sys.argv[1]], Path(sys.argv[2])
    known = set(known_file.read_text().splitlines()) if known_file.exists() else set()

    def one(data: bytes) -> None:
        begin = time.process_time()
        try:
            outcomes(reader, data)
            took = time.process_time() - begin
            assert took < SLACK * (1 + len(data) / 2**26), "slower than a second per 64 MiB"
        except Exception as error:
            signature = _signature(error)
            if signature in known:
                return
            with known_file.open("a") as file:
                file.write(signature + "\n")
            raise

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = reader.mutate(bytes(data), random.Random(seed))
        return changed if len(changed) <= max_size else bytes(data)

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one, custom_mutator=mutate)
    atheris.Fuzz()


def _signature(error: Exception) -> str:
    """The kind of error and where it was raised, without what depends on the file."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, {Path(frame.filename).name}: {frame.line}"


if __name__ == "__main__":
    main()
