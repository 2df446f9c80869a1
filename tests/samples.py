# SPDX-License-Identifier: MIT
"""Random models and data of the tests in core/ and parity/: everything follows from a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import clstm
from clstm import nn

seeds = st.integers(0, 2**32 - 1)


def examples(count: int) -> Callable[..., Any]:
    """Hypothesis settings of every property test: the same examples in each run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.standard_normal(shape) + 0.0).astype(np.float32)  # no -0


def lstm_tensors(
    rng: np.random.Generator,
    n_in: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    proj: int = 0,
    bias: bool = True,
    prefix: str = "",
    scale: float | None = None,
    cell: bool = False,
) -> dict[str, np.ndarray]:
    """A state dict under torch's names; uniform within 1/sqrt(H), as torch begins, or `scale`."""
    bound = hidden**-0.5 if scale is None else scale
    dot, out = f"{prefix}." if prefix else "", proj or hidden
    tensors = {}
    for k in range(layers):
        for end in ("", "_reverse") if bidirectional else ("",):
            width = n_in if k == 0 else out * (1 + bidirectional)
            shapes = {"weight_ih": (4 * hidden, width), "weight_hh": (4 * hidden, out)}
            if bias:
                shapes |= {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
            if proj:
                shapes["weight_hr"] = (proj, hidden)
            for word, shape in shapes.items():
                name = f"{dot}{word}" if cell else f"{dot}{word}_l{k}{end}"
                tensors[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return tensors


def linear_tensors(
    rng: np.random.Generator, n_in: int, n_out: int, prefix: str
) -> dict[str, np.ndarray]:
    return {f"{prefix}.weight": floats(rng, n_out, n_in), f"{prefix}.bias": floats(rng, n_out)}


def same_bits(a: Any, b: Any) -> bool:
    """Equal arrays, or nested tuples and lists of them; NaNs alike, -0 and +0 apart."""
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same_bits(i, j) for i, j in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    zeros = np.signbit(a) == np.signbit(b)
    return bool((((a == b) & zeros) | (np.isnan(a) & np.isnan(b))).all())


@contextlib.contextmanager
def unchanged(stream: Any) -> Iterator[None]:
    """What happens inside leaves the stream as it was, to the bit and the count."""
    before = stream.snapshot()
    yield
    assert stream.snapshot() == before


@contextlib.contextmanager
def refused(stream: Any, error: type[Exception], match: str | None = None) -> Iterator[None]:
    """What happens inside raises, and changes nothing."""
    with unchanged(stream), pytest.raises(error, match=match):
        yield


# ---- one small model of each kind that streams ---------------------------------------------------

N_IN, N_OUT, N_TOKENS = 6, 3, 11


def _zoo() -> dict[str, tuple[list[Any], dict[str, np.ndarray]]]:
    rng = rng_of(1)
    lstm = lstm_tensors(rng, N_IN, 8, layers=2, prefix="lstm")
    proj = lstm_tensors(rng, N_IN, 8, proj=3, prefix="lstm")
    cell = lstm_tensors(rng, N_IN, 7, prefix="cell", cell=True)
    upper = lstm_tensors(rng, 8, 5, prefix="upper", cell=True)
    learned = {"h0": floats(rng, 2, 1, 8), "c0": floats(rng, 2, 8)}
    head = linear_tensors(rng, 8, N_OUT, "fc")
    table = {"emb.weight": floats(rng, N_TOKENS, N_IN)}
    return {
        "lstm": ([nn.LSTM("lstm")], lstm),
        "projected": ([nn.LSTM("lstm")], proj),
        "cell": ([nn.LSTMCell("cell")], cell),
        "cell and head": (
            [nn.LSTMCell("cell"), nn.Linear("fc"), nn.Tanh()],
            cell | linear_tensors(rng, 7, N_OUT, "fc"),
        ),
        "two layers of state": ([nn.LSTM("lstm"), nn.ReLU(), nn.LSTMCell("upper")], lstm | upper),
        "learned": ([nn.LSTM("lstm", h0="h0", c0="c0"), nn.Linear("fc")], lstm | learned | head),
        "tokens": ([nn.Embedding("emb"), nn.LSTM("lstm"), nn.Linear("fc")], table | lstm | head),
        "no state": ([nn.Linear("fc"), nn.Softmax()], linear_tensors(rng, N_IN, N_OUT, "fc")),
    }


ZOO = _zoo()


def made(name: str, **options: Any) -> clstm.Model:
    """The model of that name."""
    layers, tensors = ZOO[name]
    return clstm.from_state_dict(tensors, layers=layers, **options)


def fed(model: clstm.Model, seed: int, *shape: int) -> np.ndarray:
    """Random input of that shape, features or tokens."""
    if model.num_embeddings:
        return rng_of(seed).integers(0, model.num_embeddings, shape)
    return floats(rng_of(seed), *shape, model.input_size)


def warm(model: clstm.Model, steps: int = 3) -> clstm.Stream:
    """A stream of some steps, so that its state is not the initial one."""
    s = model.stream()
    s.run(fed(model, 99, steps))
    return s


# ---- recurrent layers with any options -----------------------------------------------------------


class Recurrent(NamedTuple):
    """A description of `clstm.nn` and tensors that make it."""

    layer: Any
    tensors: dict[str, np.ndarray]
    n_in: int
    hidden: int
    num_layers: int
    directions: int

    @property
    def kind(self) -> str:
        return type(self.layer).__name__.removesuffix("Cell")

    @property
    def streams(self) -> bool:
        """Does it take its steps one by one?"""
        return self.directions == 1 and not getattr(self.layer, "reverse", False)

    @property
    def output_size(self) -> int:
        """Of one direction."""
        return next(a for n, a in self.tensors.items() if "weight_hh" in n).shape[1]

    def state(self, rng: np.random.Generator, *batch: int) -> tuple[np.ndarray, ...]:
        """A random one: (h, c) or (h,), with the L*D axis."""
        rows = self.num_layers * self.directions
        sizes = [self.output_size, self.hidden][: 2 if self.kind == "LSTM" else 1]
        return tuple(floats(rng, rows, *batch, n, scale=0.7) for n in sizes)

    def model(self, **options: Any) -> clstm.Model:
        return clstm.from_state_dict(self.tensors, layers=[self.layer], **options)

    def given(self, state: tuple[np.ndarray, ...]) -> Any:
        """That state as a model of this layer takes it."""
        if type(self.layer).__name__.endswith("Cell"):
            state = tuple(s[0] for s in state)
        return state if self.kind == "LSTM" else state[0]


def recurrent_tensors(
    rng: np.random.Generator,
    layer: Any,
    n_in: int,
    hidden: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    proj: int = 0,
    bias: bool = True,
    proj_bias: bool = False,
    norm_bias: bool = False,
    scale: float | None = None,
) -> dict[str, np.ndarray]:
    """A state dict for a description with any options, under its prefix."""
    name = type(layer).__name__
    cell, kind = name.endswith("Cell"), name.removesuffix("Cell")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] - bool(getattr(layer, "coupled", None))
    bound = hidden**-0.5 if scale is None else scale
    dot, out = f"{layer.prefix}." if layer.prefix else "", proj or hidden
    norm, peephole = (getattr(layer, n, None) for n in ("layer_norm", "peephole"))
    tensors = {}
    for k in range(layers):
        for end in ("", "_reverse") if bidirectional else ("",):
            width = n_in if k == 0 else out * (1 + bidirectional)
            suffix = "" if cell else f"_l{k}{end}"

            def put(word: str, *shape: int, around: float = 0.0, suffix: str = suffix) -> None:
                stem, dot_word, field = word.partition(".")
                values = rng.uniform(-bound, bound, shape) + around
                tensors[f"{dot}{stem}{suffix}{dot_word}{field}"] = values.astype(np.float32)

            put("weight_ih", gates * hidden, width)
            put("weight_hh", gates * hidden, out)
            if bias:
                put("bias_ih", gates * hidden)
                put("bias_hh", gates * hidden)
            if proj:
                put("weight_hr", proj, hidden)
                if proj_bias:
                    put("bias_hr", proj)
            if peephole == "diagonal":
                put("weight_ch", 3 * hidden)
            elif peephole == "full":
                put("weight_ch", gates * hidden, hidden)
            if norm is not None:
                sizes = {"ln_ih": gates * hidden}
                sizes |= {"ln_hh": gates * hidden} if norm.get("separate") else {}
                sizes |= {"ln_cell": hidden} if norm.get("cell") else {}
                for word, size in sizes.items():
                    put(f"{word}.weight", size, around=1.0)
                    if norm_bias:
                        put(f"{word}.bias", size)
    return tensors


# A gate's functions with values of about 1 for arguments of about 1, so that runs stay tame; both
# hard sigmoids (ONNX's and old Keras's 0.2 x + 0.5; torch's and new Keras's relu6(x + 3) / 6).
GATE_FUNCTIONS = [
    ("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0), ("Relu", 0.0, 0.0), ("HardSigmoid", 0.2, 0.5),
    ("HardSigmoid", 1 / 6, 0.5), ("HardTanh", -0.7, 0.9), ("Softsign", 0.0, 0.0),
    ("Softplus", 0.0, 0.0), ("Elu", 0.8, 0.0), ("LeakyRelu", 0.1, 0.0),
    ("ThresholdedRelu", 0.3, 0.0), ("ScaledTanh", 0.9, 0.7), ("Affine", 0.3, 0.4),
]  # fmt: skip


BOUNDED_FUNCTIONS = [
    one for one in GATE_FUNCTIONS if one[0].removeprefix("Scaled") in
    ("Sigmoid", "Tanh", "HardSigmoid", "HardTanh", "Softsign")
]  # fmt: skip


@st.composite
def recurrent_layers(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("LSTM", "GRU", "RNN"),
    *,
    cell: bool = False,
    directions: int = 1,
    projected: bool = False,
    **fixed: Any,
) -> Any:
    """A description with random options; most options are absent from most draws."""

    def perhaps(*values: Any) -> Any:
        return draw(st.sampled_from([None, None, *values]))

    kind = draw(st.sampled_from(kinds))
    options: dict[str, Any] = {"clip": perhaps(0.3, 1.0)}
    if draw(st.integers(0, 2)) == 0:
        count = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind] * draw(st.integers(1, directions))
        # a gate that has no bound multiplies the state at every step, if nothing holds it
        held = kind == "RNN" or options["clip"] is not None
        gate = st.sampled_from(GATE_FUNCTIONS if held else BOUNDED_FUNCTIONS)
        period = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
        options["activations"] = [
            draw(st.sampled_from(GATE_FUNCTIONS) if k % period else gate) for k in range(count)
        ]
    if kind == "GRU":
        options["linear_before_reset"] = draw(st.booleans())
    elif kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    else:
        options["peephole"] = perhaps("diagonal", "full")
        options["coupled"] = perhaps("f=1-i", "i=1-f")
        options["cell_clip"] = perhaps(0.4)
        if options["cell_clip"]:
            options["cell_clip_stored"] = draw(st.booleans())
        if options["peephole"] == "full":
            options["output_peephole"] = draw(st.sampled_from(["old", "new"]))
        elif draw(st.integers(0, 2)) == 0:
            options["layer_norm"] = {
                "per_gate": draw(st.booleans()),
                "separate": draw(st.booleans()),
                "cell": draw(st.sampled_from([False, True, "stored"])),
                "eps": draw(st.sampled_from([1e-5, 1e-3])),
            }
        if options["coupled"] != "f=1-i":
            options["forget_bias"] = perhaps(1.0, 0.3) or 0.0
        if projected:
            options["proj_clip"] = perhaps(0.2)
        else:
            options["zoneout"] = perhaps((0.1, 0.05), (0.0, 0.5))
    return getattr(nn, kind + "Cell" * cell)(**(options | fixed))


@st.composite
def recurrent_models(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("LSTM", "GRU", "RNN"),
    *,
    sizes: st.SearchStrategy[int] | None = None,
    most_layers: int = 3,
    bidirectional: bool | None = None,
    cell: bool = False,
    **fixed: Any,
) -> Recurrent:
    """Any recurrent layer with random options and tensors; bidirectional=None is either, and
    sometimes one direction against time; False streams."""
    sizes = st.integers(1, 24) if sizes is None else sizes
    n_in, hidden = draw(sizes), draw(sizes)
    count = 1 if cell else draw(st.integers(1, most_layers))
    both = not cell and (draw(st.booleans()) if bidirectional is None else bidirectional)
    projected = not cell and hidden > 1 and draw(st.integers(0, 3)) == 0
    if bidirectional is None and not cell and not both and draw(st.integers(0, 3)) == 0:
        fixed = fixed | {"reverse": True}
    layer = draw(
        recurrent_layers(kinds, cell=cell, directions=1 + both, projected=projected, **fixed)
    )
    projected = projected and type(layer).__name__ == "LSTM"
    tensors = recurrent_tensors(
        rng_of(draw(seeds)),
        layer,
        n_in,
        hidden,
        layers=count,
        bidirectional=both,
        proj=draw(st.integers(1, hidden - 1)) if projected else 0,
        bias=draw(st.booleans()),
        proj_bias=projected and draw(st.booleans()),
        norm_bias=draw(st.booleans()),
        scale=max(n_in, hidden) ** -0.5,
    )
    return Recurrent(layer, tensors, n_in, hidden, count, 1 + both)
