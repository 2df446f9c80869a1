# SPDX-License-Identifier: MIT
"""The kept corpus of the fuzzers, and files made from it: every promise about hostile bytes.

`fuzz/corpus/READER.json` says what each file comes to. Mutants are made by the fuzzers' own
mutators, from seeds, so that each run makes the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "fuzz/corpus"
READERS = ["torch", "npz", "safetensors", "clstm", "onnx"]
SHORT, LONG = 200, 30_000
LEAST = 0.9  # of their branches


def run(*words, **options):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "fuzz")])}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=env, **options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("reader", READERS)
def test_the_corpus_comes_to_what_it_did_and_reaches_most_branches(reader):
    found = run(ROOT / "fuzz/fuzz_corpus.py", "replay", reader)
    assert not found["different"], found["different"]
    assert found["taken"] >= LEAST * found["branches"] > 30, found["missing"]


def test_the_corpus_is_small():
    files = [p for p in CORPUS.rglob("*") if p.is_file()]
    assert len(files) > 300 and sum(p.stat().st_size for p in files) < 1_000_000


MUTANTS = """
import json, random, sys, warnings
warnings.simplefilter("ignore")
from fuzz_corpus import files
from fuzz_readers import READERS, outcomes
name, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
reader, seeds = READERS[name], [p.read_bytes() for p in files(name)]
read = models = 0
for seed in range(first, first + count):
    rng = random.Random(seed)
    data = reader.mutate(rng.choice(seeds), rng)
    try:
        lines = outcomes(reader, data)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {data!r}") from error
    read += any(line.startswith("read") for line in lines)
    models += any(line.startswith("model") for line in lines)
json.dump([read, models], sys.stdout)
"""


def mutants(reader, first, count):
    """How many of these mutants are read, and how many are models; all keep the promises."""
    return run("-c", MUTANTS, reader, first, count)


@pytest.mark.parametrize("reader", READERS)
def test_mutants_are_refused_or_read_as_others_read_them(reader):
    """torch, NumPy, safetensors, onnx, clstm's C reader: bit for bit."""
    read, _ = mutants(reader, 0, SHORT)
    assert read >= SHORT // 100  # of ONNX one in 22, as most of its corpus is refused


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_many_mutants_are_refused_or_read_as_others_read_them(reader):
    read, models = mutants(reader, SHORT, LONG)
    assert read >= LONG // 50 and models >= 1


# -- nothing else happens

UNDER_AUDIT = """
import json, random, sys, warnings
warnings.simplefilter("ignore")
from fuzz_corpus import files
from fuzz_readers import MAX_BYTES, READERS, REFUSED, Named
from clstm.formats import read_file
name, count = sys.argv[1], int(sys.argv[2])
reader, seeds = READERS[name], [p.read_bytes() for p in files(name)]
made = []
for seed in range(count):
    rng = random.Random(seed)
    made.append(reader.mutate(rng.choice(seeds), rng))
def load(data):
    for suffix, options in reader.ways:
        if "external_data" in options:
            continue  # which is there to open files
        try:
            read_file(Named(data, suffix), max_bytes=MAX_BYTES, **options)
        except REFUSED as error:
            str(error)
for data in seeds:
    load(data)  # modules that are imported at first use
armed, seen = False, []
def hook(event, args):
    if armed and event != "builtins.id":  # of id(), which reads an address
        seen.append([event, repr(args)[:200]])
sys.addaudithook(hook)
armed = True
for data in seeds + made:
    load(data)
sys.audit("clstm.test")
armed = False
json.dump(seen, sys.stdout)
"""


@pytest.mark.parametrize("reader", READERS)
def test_no_event_under_an_audit_hook(reader):
    """Nothing is imported, compiled, called through ctypes, or opened."""
    (last, _), *rest = reversed(run("-c", UNDER_AUDIT, reader, SHORT))
    assert last == "clstm.test" and not rest


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_no_event_of_many_mutants(reader):
    (last, _), *rest = reversed(run("-c", UNDER_AUDIT, reader, LONG))
    assert last == "clstm.test" and not rest


# -- memory and time

BOUNDS = """
import gc, json, random, sys, time, tracemalloc, warnings
warnings.simplefilter("ignore")
from fuzz_corpus import files
from fuzz_readers import MAX_BYTES, READERS, REFUSED, Named
from clstm.formats import read_file
from clstm.formats.budget import Budget
name, count = sys.argv[1], int(sys.argv[2])
reader, seeds = READERS[name], [p.read_bytes() for p in files(name)]
counted, take = [], Budget.take
def counting(budget, n_bytes, what):
    take(budget, n_bytes, what)
    counted.append(n_bytes)
Budget.take = counting
def load(data):
    counted.clear()
    try:
        found = read_file(Named(data, reader.ways[0][0]), max_bytes=MAX_BYTES)
        tensors = sum(a.nbytes for a in found.tensors.values())
    except REFUSED:
        tensors = 0
    return sum(counted) if name == "onnx" else tensors
for data in seeds:
    load(data)
worst = [0.0, 0.0]
for seed in range(count):
    rng = random.Random(seed)
    data = reader.mutate(rng.choice(seeds), rng)
    begin = time.process_time()
    load(data)
    took = time.process_time() - begin
    gc.collect()
    tracemalloc.start()
    tensors = load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    worst[0] = max(worst[0], took / (1 + len(data) / 2**26))
    worst[1] = max(worst[1], (peak - tensors) / (2 * len(data) + 2**23))
json.dump(worst, sys.stdout)
"""


@pytest.mark.parametrize("reader", READERS)
def test_time_and_memory_are_within_the_promise(reader):
    """A second and one more per 64 MiB; beside the tensors 8 MiB and twice the file. Of ONNX
    constants are tensors, too, which are counted, and some are made before the file is refused."""
    seconds, memory = run("-c", BOUNDS, reader, SHORT // 3)
    assert 0 < seconds < 1 and 0 < memory < 1


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_time_and_memory_of_many_mutants(reader):
    seconds, memory = run("-c", BOUNDS, reader, LONG // 10)
    assert 0 < seconds < 1 and 0 < memory < 1


# -- checks that are taken out

REMOVED = """
import json, sys
import remove_checks
checks = remove_checks.checks_of(["safetensors"])
found = {c.text: remove_checks.outcome(c, None) for c in checks[::8]}
remove_checks.TESTS["safetensors"] = [remove_checks.UNIT / "test_source.py"]
untested = remove_checks.whole(checks[0])  # as if it were not there: the readers do the same
found["untested"] = remove_checks.outcome(untested, None)
missed = remove_checks.report([untested], {untested.key: ""})
print()
json.dump([len(checks), found, missed], sys.stdout)
"""


def test_a_check_that_is_taken_out_is_noticed_and_one_that_nothing_tests_is_reported():
    """All of them: `python fuzz/remove_checks.py`."""
    n_checks, found, missed = run("-c", REMOVED)
    assert n_checks > 25 and found.pop("untested") == "" and missed == 1
    assert len(found) >= 4 and set(found.values()) == {"corpus"}, found
