# SPDX-License-Identifier: MIT
"""Files of torch's two ONNX exporters, run where neither torch nor onnxruntime can be imported,
against torch itself: a pairwise sample here, the whole product in the long form."""

import io
import itertools
import math
import re
import subprocess
import sys

import export_cases as cases
import pytest
import torch
from export_route import HERE, Blocked, through_onnx
from export_torch import quiet
from torch import nn

import clstm

SAMPLE = [*cases.sample(cases.OLD, cases.RECURRENT), *cases.sample(cases.NEW, cases.RECURRENT)]


def check(case: cases.Case, blocked: Blocked) -> None:
    outcome = through_onnx(case, blocked)
    assert outcome.refused is None
    assert outcome.wrong(case) == {}


@pytest.mark.parametrize("case", SAMPLE + cases.CELLS, ids=lambda case: case.name)
def test_agrees_with_torch(case, blocked):
    check(case, blocked)


@pytest.mark.parametrize(("case", "words"), cases.REFUSED, ids=lambda v: getattr(v, "name", ""))
def test_never_a_wrong_answer(case, words, blocked):
    """Refused for the cause, or right."""
    outcome = through_onnx(case, blocked)
    if outcome.refused is None:
        assert outcome.wrong(case) == {}
        return
    kind, message = outcome.refused
    assert kind in ("UnsupportedError", "ModelFormatError")
    assert re.search(words, message), message


class Folds(nn.Module):
    """Makes one step of every two, which the newer exporter fuses with the reshape that it writes
    behind an LSTM itself."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4)

    def forward(self, x):
        return self.rnn(x)[0].reshape(4, -1, 4)


@pytest.mark.parametrize("new", [False, True])
def test_a_reshape_that_mixes_rows_is_refused(new):
    x, auto = torch.zeros(8, 2, 3), torch.export.Dim.AUTO
    axes = {"dynamic_axes": {"x": {0: "T", 1: "B"}}, "input_names": ["x"]}
    axes = {"dynamic_shapes": ({0: auto, 1: auto},)} if new else axes
    file = io.BytesIO()
    with quiet():
        program = torch.onnx.export(
            Folds().eval(), (x,), None if new else file, dynamo=new, opset_version=18, **axes
        )
    data = program.model_proto.SerializeToString() if new else file.getvalue()
    with pytest.raises(clstm.UnsupportedError, match="cannot reshape"):
        clstm.load(data)


# ---- the long form: one test for 64 cases, because each takes less than a report of it ------


PART = 64
LONG = [
    (factors, start)
    for factors in (cases.OLD, cases.NEW)
    for start in range(0, math.prod(map(len, [*factors.values(), *cases.RECURRENT.values()])), PART)
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("factors", "start"), LONG, ids=[f"{factors['exporter'][0]} {start}" for factors, start in LONG]
)
def test_product(factors, start, blocked):
    part = list(itertools.islice(cases.product(factors, cases.RECURRENT), start, start + PART))
    assert part
    for case in part:
        outcome = through_onnx(case, blocked)
        assert (case, outcome.refused, outcome.wrong(case)) == (case, None, {})


# ---- the sample and the process themselves ---------------------------------------------------


def test_every_pair_of_values_meets():
    for factors in (cases.OLD, cases.NEW):
        merged = factors | cases.RECURRENT | cases.BESIDE
        fixed = {"exporter": factors["exporter"][0]}
        met = {
            ((a, getattr(case, a)), (b, getattr(case, b)))
            for case in SAMPLE
            if case.exporter == fixed["exporter"]
            for a, b in itertools.permutations(merged, 2)
        }
        pairs = {
            ((a, u), (b, v))
            for a, b in itertools.permutations(merged, 2)
            for u, v in itertools.product(merged[a], merged[b])
            if cases.sensible(fixed | {a: u, b: v})
        }
        assert pairs <= met
        assert len(met) > 500


def test_torch_is_blocked():
    """The hook that the process installs does block: without it both are found."""
    code = "import sys; sys.path.insert(0, {!r}); import export_blocked as e; {}import torch"
    for hook, word in (("e.block(); ", "is blocked here"), ("", "")):
        command = [sys.executable, "-c", code.format(str(HERE), hook)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode != 0) == bool(word)
        assert word in done.stderr
