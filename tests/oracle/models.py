# SPDX-License-Identifier: MIT
"""Whole recurrent layers over time, and lists of layers, in float64."""

import numpy as np

from .cells import cell_step, directions, kind_of
from .functions import STATELESS, f64, option, required

RECURRENT = ("LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell")


def is_recurrent(layer):
    return type(layer).__name__ in RECURRENT


def is_cell(layer):
    return type(layer).__name__ in RECURRENT and type(layer).__name__.endswith("Cell")


def valid_rows(steps, batch, lengths):
    """(T, B, 1) booleans: is step t of row b within its length?"""
    if lengths is None:
        return np.ones((steps, batch, 1), bool)
    lengths = np.asarray(lengths)
    if lengths.shape != (batch,) or (batch and not 0 <= lengths.min() <= lengths.max() <= steps):
        raise ValueError(f"lengths {lengths} for T={steps}, B={batch}")
    return np.arange(steps)[:, None, None] < lengths[None, :, None]


def state_sizes(layer, w):
    return (w.output_size, w.hidden_size) if kind_of(layer) == "LSTM" else (w.output_size,)


def recurrent(layer, tensors, prefix, x, state=None, lengths=None):
    """A layer of `torch.nn`, time-major: x (T, B, I) -> y (T, B, D*P), its state, a tuple of
    h_n (L*D, B, P) and, of an LSTM, c_n (L*D, B, H).

    A row past its length keeps its state and gives 0, in either direction: so the reverse
    direction, which starts at T - 1, begins its work at the last valid step, and a row of length 0
    passes its initial state through. `reverse` of a layer with one direction: that is the reverse
    one, as in ONNX (direction="reverse").
    """
    x = f64(x)
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    x = np.where(valid, x, 0.0)  # the padding may hold anything
    stack = directions(tensors, prefix)
    flat = [w for one in stack for w in one]
    if state is None:
        rows = [tuple(np.zeros((batch, n)) for n in state_sizes(layer, w)) for w in flat]
    else:
        if any(len(part) != len(flat) for part in state):
            raise ValueError(f"a state of {len(state[0])} rows for {len(flat)} of the weights")
        rows = list(zip(*(f64(part) for part in state), strict=True))
    row = 0
    for one in stack:
        outputs = []
        for d, w in enumerate(one):
            y = np.zeros((steps, batch, w.output_size))
            back = d == 1 or option(layer, "reverse", False)
            for t in reversed(range(steps)) if back else range(steps):
                new = cell_step(layer, w, x[t], rows[row], d)
                rows[row] = tuple(
                    np.where(valid[t], n, old) for n, old in zip(new, rows[row], strict=True)
                )
                y[t] = np.where(valid[t], new[0], 0.0)
            outputs.append(y)
            row += 1
        x = np.concatenate(outputs, axis=-1)
    return x, tuple(np.stack(part) for part in zip(*rows, strict=True))


def lstm(tensors, prefix, x, state=None, lengths=None):
    """torch.nn.LSTM without options."""
    return recurrent(None, tensors, prefix, x, state, lengths)


# ---- a list of layers --------------------------------------------------------------------------


def _initial(layer, tensors, batch):
    """The learned initial state h0, c0 of a layer (a tensor or its name), or None."""
    flat = [w for one in directions(tensors, layer.prefix) for w in one]
    sizes = state_sizes(layer, flat[0])
    values = [option(layer, name, None) for name in ("h0", "c0")[: len(sizes)]]
    if all(value is None for value in values):
        return None
    state = []
    for value, size in zip(values, sizes, strict=True):
        if isinstance(value, str):
            value = required(tensors, "", value)
        value = np.zeros(size) if value is None else f64(value)
        rows = value.reshape(-1, 1, size)  # (L*D, P), (L*D, 1, P) or (P,) of one layer
        state.append(np.broadcast_to(rows, (len(flat), batch, size)))
    return tuple(state)


def as_tuple(layer, state):
    """The state of one layer as (h, c) or (h,); None stays None."""
    if state is None:
        return None
    return tuple(state) if kind_of(layer) == "LSTM" else (state,)


def _bare(state):
    """A state as torch gives it: h itself where there is no c."""
    return state if len(state) > 1 else state[0]


# Layers that look at values by number: 0 is the model's input, k the output of layer k, from 1 on.
WIRING = {
    "Add": lambda parts: sum(parts[1:], parts[0]),
    "Mul": lambda parts: np.prod(np.stack(parts), axis=0),
    "Concat": lambda parts: np.concatenate(parts, axis=-1),
}


def last_steps(value, lengths):
    """(B, O): the last valid step of each row, 0 where there is none."""
    steps, batch = value.shape[:2]
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    if steps == 0:
        return np.zeros(value.shape[1:])
    rows = value[np.maximum(lengths, 1) - 1, np.arange(batch)]
    return np.where(lengths[:, None] > 0, rows, 0.0)


def layers_core(layers, tensors, x, states, lengths=None):
    """Time-major: x (T, B, I) or tokens (T, B), one state or None per recurrent layer (a cell's
    without the L axis) -> y (T, B, O), the list of states. Rows past a length are 0 in y. With an
    Output layer of several inputs y is a tuple; where it asks for the last step only, (B, O)."""
    x = np.asarray(x)
    steps, batch = x.shape[:2]
    valid = valid_rows(steps, batch, lengths)
    states = list(states)
    finals = []
    values = [np.where(valid[..., 0] if x.ndim == 2 else valid, x, 0)]
    chosen, last = None, ()
    for layer in layers:
        kind = type(layer).__name__
        numbers = option(layer, "inputs", ()) or (len(values) - 1,)
        if kind == "Identity" and option(layer, "input", None) is not None:
            values.append(values[layer.input])
        elif kind == "Slice":
            values.append(values[-1][..., layer.start : layer.stop])
        elif kind == "First":
            values.append(np.broadcast_to(values[-1][:1], values[-1].shape))
        elif kind == "Output":
            chosen, last = numbers, option(layer, "last", ())
        elif kind in WIRING:
            values.append(WIRING[kind]([f64(values[n]) for n in numbers]))
        elif kind in STATELESS:
            values.append(STATELESS[kind](layer, tensors, values[-1]))
        elif kind in RECURRENT:
            state = as_tuple(layer, states.pop(0))
            if state is None:
                state = _initial(layer, tensors, batch)
            elif is_cell(layer):
                state = tuple(f64(s)[None] for s in state)
            y, final = recurrent(layer, tensors, layer.prefix, values[-1], state, lengths)
            values.append(y)
            finals.append(_bare(tuple(s[0] for s in final) if is_cell(layer) else final))
        else:
            raise NotImplementedError(kind)
    if chosen is None:
        return np.where(valid, values[-1], 0.0), finals
    last = tuple(last) or (False,) * len(chosen)
    results = tuple(
        last_steps(values[n], lengths) if flag else np.where(valid, values[n], 0.0)
        for n, flag in zip(chosen, last, strict=True)
    )
    return results if len(results) > 1 else results[0], finals


def forward(layers, tensors, x, state=None, lengths=None):
    """What `m(x, state, lengths=lengths)` returns, in float64.

    x is (T, B, I), (B, T, I) under batch_first, or (T, I); without I for tokens. The result is
    (y, state): the state bare for one recurrent layer, a list for several, None for none.
    A bare cell is one step: x (I,) or (B, I) -> (h, c) or h.
    """
    layers = list(layers)
    # IEEE rules apply to non-finite inputs and weights: inf - inf is a NaN, not a fault
    with np.errstate(invalid="ignore", over="ignore"):
        if len(layers) == 1 and is_cell(layers[0]):
            return _one_step(layers[0], tensors, np.asarray(x), state)
        return _sequence(layers, tensors, np.asarray(x), state, lengths)


def _one_step(layer, tensors, x, state):
    ((w,),) = directions(tensors, layer.prefix)
    given = as_tuple(layer, state)
    if given is None:
        initial = _initial(layer, tensors, 1)
        if initial is None:
            rows = [np.zeros(n) for n in state_sizes(layer, w)]
        else:
            rows = [s[0, 0] for s in initial]
        given = tuple(np.broadcast_to(s, (*x.shape[:-1], s.shape[-1])) for s in rows)
    return _bare(cell_step(layer, w, x, given))


def _each(f, value):
    """f of an array, or of every array of a tuple."""
    return tuple(f(a) for a in value) if isinstance(value, tuple) else f(value)


def _sequence(layers, tensors, x, state, lengths):
    stateful = [layer for layer in layers if is_recurrent(layer)]
    tokens = any(type(layer).__name__ == "Embedding" for layer in layers)
    unbatched = x.ndim == (1 if tokens else 2)
    batch_first = not unbatched and any(option(r, "batch_first", False) for r in stateful)
    if unbatched:
        x = x[:, None]
    elif batch_first:
        x = x.swapaxes(0, 1)
    states = [state] if len(stateful) == 1 else state
    if states is None:
        states = [None] * len(stateful)
    if unbatched:  # the batch axis is the one before the features, with or without an L axis
        states = [s if s is None else _each(lambda a: f64(a)[..., None, :], s) for s in states]
    y, finals = layers_core(layers, tensors, x, states, lengths)
    if unbatched:
        y = _each(lambda a: a[..., 0, :], y)  # (T, 1, O), and (1, O) of a last step
        finals = [_each(lambda a: a[..., 0, :], s) for s in finals]
    elif batch_first:
        y = _each(lambda a: a.swapaxes(0, 1) if a.ndim == 3 else a, y)
    if not finals:
        return y, None
    return y, finals[0] if len(finals) == 1 else finals
