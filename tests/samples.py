# SPDX-License-Identifier: MIT
"""Random models and data of the tests in core/ and parity/: everything follows from a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

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
