# SPDX-License-Identifier: MIT
"""The modules of the exporters' tests through from_torch, as they are and traced."""

import subprocess
import sys

import export_cases as cases
import pytest
from export_route import HERE, through_from_torch

SAMPLE = cases.sample(cases.TRACED, cases.RECURRENT)
PLAIN = [
    cases.Case("", cell, layers=layers, directions=directions, layout=layout, bias=bias)
    for cell, layers, directions, layout, bias in (
        ("LSTM", 2, 2, "time first", True),
        ("LSTM", 1, 1, "batch first", False),
        ("GRU", 2, 1, "batch first", True),
        ("GRU", 1, 2, "time first", False),
        ("RNN", 2, 2, "batch first", True),
        ("RNN relu", 2, 1, "time first", True),
        ("RNN relu", 1, 2, "unbatched", False),
    )
] + [
    cases.Case("", "LSTM", layers=2, directions=2, proj=3, state="given"),
    *(
        cases.Case("", cell, state="given", bias=bias)
        for cell in ("LSTMCell", "GRUCell", "RNNCell")
        for bias in (True, False)
    ),
]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_traced(case):
    outcome = through_from_torch(case, traced=True)
    assert outcome.refused is None
    assert outcome.wrong(case) == {}


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_as_they_are(case):
    outcome = through_from_torch(case, traced=False)
    assert outcome.refused is None
    assert outcome.wrong(case) == {}


@pytest.mark.long
@pytest.mark.parametrize("cell", cases.TRACED["cell"])
def test_traced_product(cell):
    for case in cases.product(cases.TRACED | {"cell": (cell,)}, cases.RECURRENT):
        outcome = through_from_torch(case, traced=True)
        assert (case, outcome.refused, outcome.wrong(case)) == (case, None, {})


GONE = """
import gc, sys
sys.path.insert(0, {here!r})
import export_blocked, export_cases as cases, export_route as route
def models():
    chosen = [cases.Case("", cell, layers=2, state="given") for cell in ("LSTM", "GRU", "RNN")]
    chosen = [(case, False) for case in chosen] + [
        (cases.Case("", "LSTM", state="learned", embedding=True, head="norm"), True),
        (cases.Case("", "GRU", layers=2, head="deep", layout="batch first"), True),
    ]
    for case, traced in chosen:
        module = route.module_of(case)
        runs = dict(route.runs_of(case, module))
        model = route.model_of(case, module, traced)
        stream = model.stream()
        x = runs["stream"].x
        for frame in x:  # torch goes while this one stands in the middle
            stream.step(int(frame) if case.embedding else frame)
        more = model.stream(stream.state)
        expected = more.run(x)
        yield model, stream, x, expected, [(n, route.as_dict(case, r)) for n, r in runs.items()]
held = list(models())
torches = ("torch", "export_route", "export_torch")
for name in [name for name in sys.modules if name.split(".")[0] in torches]:
    del sys.modules[name]
del route
gc.collect()
export_blocked.block()
for model, stream, x, expected, runs in held:
    steps = [stream.step(int(frame) if frame.ndim == 0 else frame) for frame in x]
    assert (expected == steps).all()
    for name, run in runs:
        how = export_blocked.streamed if name == "stream" else export_blocked.called
        assert how(model, run) <= 1, name
assert "torch" not in sys.modules
print("streamed", len(held))
"""


def test_streaming_goes_on_without_torch():
    command = [sys.executable, "-c", GONE.format(here=str(HERE))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "streamed 5\n", done.stderr
