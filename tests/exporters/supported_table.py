# SPDX-License-Identifier: MIT
"""docs/supported.md, made of what runs; this writes it:
`PYTHONPATH=tests python tests/exporters/supported_table.py`.

Every entry is the outcome of a case that was just run and compared with torch, or with the float64
reference where torch has no such option. An entry that is neither right nor one of the refusals
that are expected below is an error, so that the table cannot promise or excuse by itself."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from export_cases import Case, unused
from export_route import Blocked, Outcome, through_from_torch, through_onnx, through_state_dict
from option_rows import option_table

PAGE = Path(__file__).parents[2] / "docs" / "supported.md"

HEAD = """\
# What each route supports

Made by `PYTHONPATH=tests python tests/exporters/supported_table.py` and compared by \
`tests/exporters/test_supported.py`: an entry is there only because its case ran in that test, \
in batch, without a batch and, where no direction is reversed, as a stream.

- **state dict**: `clstm.load("w.pt")`, `clstm.from_state_dict(...)`, with `layers=` where the \
module is more than one recurrent layer
- **module**: `clstm.from_torch(module)`; a list of modules where one has its own `forward`
- **traced**: `clstm.from_torch(module, example)`
- **ONNX, old**: `torch.onnx.export(..., dynamo=False)` with `dynamic_axes`, opsets 14 to 20
- **ONNX, new**: `torch.onnx.export(..., dynamo=True)` with `Dim.AUTO`, opsets 18 to 20

Files are run where neither torch nor ONNX Runtime can be imported. Static axes, every opset and \
the combinations of these rows are in the same folder's other tests.
"""

ROUTES = ("state dict", "module", "traced", "ONNX, old", "ONNX, new")

# What an entry other than "yes" says, and the error that it rests on.
NOT_WRITTEN = "torch does not export it"
UNROLLED = "no: unrolled over time by torch"
MALFORMED = "no: malformed file of torch"
EXPECTED = {UNROLLED: "unroll", MALFORMED: "proj_size"}


@dataclass
class Row:
    title: str
    case: Case  # without an exporter
    new: dict[str, Any] = field(default_factory=dict)  # what the new exporter needs otherwise
    says: dict[str, str] = field(default_factory=dict)  # entries that are not "yes", by route
    skip: tuple[str, ...] = ()  # routes that have no such thing


def _case(cell: str, **words: Any) -> Case:
    return Case("", cell, **words)


CELLS = ("LSTMCell", "GRUCell", "RNNCell")
ROWS = [
    Row("`nn.LSTM`", _case("LSTM")),
    Row("`nn.LSTM`, layers and directions", _case("LSTM", layers=2, directions=2)),
    Row(
        "`nn.LSTM`, `proj_size`",
        _case("LSTM", proj=2),
        says={"ONNX, old": NOT_WRITTEN, "ONNX, new": MALFORMED},
    ),
    Row("`nn.GRU`", _case("GRU")),
    Row("`nn.GRU`, layers and directions", _case("GRU", layers=2, directions=2)),
    Row("`nn.RNN`", _case("RNN"), says={"ONNX, new": UNROLLED}),
    Row(
        "`nn.RNN`, relu, layers and directions",
        _case("RNN relu", layers=2, directions=2),
        says={"ONNX, new": UNROLLED},
    ),
    Row("`batch_first=True`, `bias=False`", _case("LSTM", layout="batch first", bias=False)),
    Row("state as input and output", _case("GRU", layers=2, state="given")),
    Row("initial state learned", _case("LSTM", state="learned"), skip=("module",)),
    Row("embedding, recurrent layer, head", _case("LSTM", embedding=True, head="deep")),
    Row(
        "a `forward` without a batch axis",
        _case("LSTM", layout="unbatched", head="linear"),
        new={"axes": "static"},
        skip=("module", "state dict"),
        says={"ONNX, new": "yes, static axes only"},
    ),
    *(
        Row(f"`nn.{cell}`", _case(cell, state="given"))
        for cell in ("LSTMCell", "GRUCell", "RNNCell")
    ),
]


def entry(row: Row, route: str, run: Callable[[], Outcome]) -> str:
    if route in row.skip:
        return ""
    says = row.says.get(route, "yes")
    if says == NOT_WRITTEN:
        try:
            run()
        except Exception as error:
            # torch's own refusal; an error of clstm or of this test is not one
            assert type(error).__module__.startswith("torch."), error
            return says
        raise AssertionError(f"{row.title}: torch exports it now")
    outcome = run()
    if says in EXPECTED:
        assert outcome.refused is not None, f"{row.title}, {route}: it loads now: {outcome}"
        kind, message = outcome.refused
        assert kind in ("UnsupportedError", "ModelFormatError")
        assert re.search(EXPECTED[says], message), message
        return f"{says} (`{kind}`)"
    assert outcome.refused is None, f"{row.title}, {route}: {outcome.refused}"
    wrong = outcome.wrong(unused(row.case))
    if "static" in says:
        wrong = outcome.wrong(replace(row.case, axes="static"))
    assert not wrong, f"{row.title}, {route}: {wrong}"
    return says


def entries(row: Row, blocked: Blocked) -> list[str]:
    old = replace(row.case, exporter="old", opset=17)
    new = replace(row.case, exporter="new", opset=18, **row.new)
    runs: dict[str, Callable[[], Outcome]] = {
        "state dict": lambda: through_state_dict(row.case),
        "module": lambda: through_from_torch(row.case, traced=False),
        "traced": lambda: through_from_torch(row.case, traced=True),
        "ONNX, old": lambda: through_onnx(old, blocked),
        "ONNX, new": lambda: through_onnx(new, blocked),
    }
    return [entry(row, route, runs[route]) for route in ROUTES]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def text(blocked: Blocked) -> str:
    first = table(["", *ROUTES], [[row.title, *entries(row, blocked)] for row in ROWS])
    return f"{HEAD}\n{first}\n{option_table(blocked, table)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Blocked(Path(folder)) as server:
        PAGE.write_text(text(server))
