# SPDX-License-Identifier: MIT
"""One step of every recurrent cell and option, in float64, from the papers and operator texts.

A cell's options are the attributes of its layer (`clstm.nn.LSTM` and its neighbours, or anything
with attributes of those names); one that is missing has its default. Weights are a `Direction`.
"""

from typing import NamedTuple

import numpy as np

from .functions import ACTIVATIONS, f64, layer_norm, option

GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}  # rows, in torch's order


class Direction(NamedTuple):
    """The weights of one layer and direction, as stored; what is absent is None.

    G is the number of gates with rows: 4 in an LSTM, 3 in a coupled one (the derived gate has
    none) and in a GRU, 1 in an RNN.
    """

    w_ih: np.ndarray  # (G*H, I), rows in the order of GATES
    w_hh: np.ndarray  # (G*H, P), P = H without a projection
    b_ih: np.ndarray | None  # (G*H,)
    b_hh: np.ndarray | None  # (G*H,)
    w_hr: np.ndarray | None  # (P, H)
    b_hr: np.ndarray | None = None  # (P,)
    w_ch: np.ndarray | None = None  # diagonal (3H,), rows i, f, o (or (2H,)); full (G*H, H)
    ln_ih: np.ndarray | None = None  # (G*H,), as are the next three
    ln_ih_bias: np.ndarray | None = None
    ln_hh: np.ndarray | None = None
    ln_hh_bias: np.ndarray | None = None
    ln_cell: np.ndarray | None = None  # (H,)
    ln_cell_bias: np.ndarray | None = None

    @property
    def hidden_size(self):
        return (self.w_hh if self.w_hr is None else self.w_hr).shape[1]

    @property
    def output_size(self):
        return self.w_hh.shape[1]


# The name of each field in a state dict, around the `_l{k}{_reverse}`.
_NAMES = {
    "w_ih": ("weight_ih", ""), "w_hh": ("weight_hh", ""), "b_ih": ("bias_ih", ""),
    "b_hh": ("bias_hh", ""), "w_hr": ("weight_hr", ""), "b_hr": ("bias_hr", ""),
    "w_ch": ("weight_ch", ""),
    "ln_ih": ("ln_ih", ".weight"), "ln_ih_bias": ("ln_ih", ".bias"),
    "ln_hh": ("ln_hh", ".weight"), "ln_hh_bias": ("ln_hh", ".bias"),
    "ln_cell": ("ln_cell", ".weight"), "ln_cell_bias": ("ln_cell", ".bias"),
}  # fmt: skip


def directions(tensors, prefix=""):
    """The weights by layer and direction, `[[forward, reverse], ...]`, dtypes as stored.

    Names are torch.nn.LSTM's (`weight_ih_l{k}{_reverse}`, ...) or, without `_l{k}`,
    torch.nn.LSTMCell's; layers, directions, biases and projection follow from which are there.
    """
    dot = f"{prefix}." if prefix else ""

    def one(suffix):
        get = {
            field: tensors.get(f"{dot}{word}{suffix}{end}") for field, (word, end) in _NAMES.items()
        }
        if get["w_ih"] is None:
            return None
        return Direction(**{k: None if a is None else np.asarray(a) for k, a in get.items()})

    cell = one("")
    if cell is not None:
        return [[cell]]
    layers = []
    while (forward_weights := one(f"_l{len(layers)}")) is not None:
        reverse_weights = one(f"_l{len(layers)}_reverse")
        layers.append([w for w in (forward_weights, reverse_weights) if w is not None])
    if not layers:
        raise KeyError(f"{dot}weight_ih_l0")
    return layers


def bias_sum(w):
    """b_ih + b_hh, (G*H,); zeros where the layer has none."""
    total = np.zeros(w.w_ih.shape[0])
    for bias in (w.b_ih, w.b_hh):
        if bias is not None:
            total = total + f64(bias)
    return total


def kind_of(layer):
    """ "LSTM", "GRU" or "RNN"; None, a layer without options, is an LSTM."""
    return "LSTM" if layer is None else type(layer).__name__.removesuffix("Cell")


def gate_rows(layer):
    """The gates that have rows in the tensors, in their order: "ifgo" without the derived one."""
    kind = kind_of(layer)
    derived = {"f=1-i": "f", "i=1-f": "i", None: ""}[option(layer, "coupled", None)]
    return [gate for gate in GATES[kind] if gate != derived]


def activations(layer, direction=0):
    """(name, alpha, beta) of the cell's functions: ONNX's f, g, h of an LSTM, f, g of a GRU, f of
    an RNN; of this direction, where each has its own."""
    default = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
    names = default[kind_of(layer)]
    given = option(layer, "activations", None)
    if given is None:
        if option(layer, "nonlinearity", "tanh") == "relu":
            names = ("Relu",)
        return [(name, 0.0, 0.0) for name in names]
    count = len(names)
    return list(given)[count * direction if len(given) > count else 0 :][:count]


def _functions(layer, direction):
    def bind(name, alpha, beta):
        return lambda x: ACTIVATIONS[name](x, alpha, beta)

    return [bind(*one) for one in activations(layer, direction)]


def _clip(x, limit):
    """ONNX, attribute `clip`: "the elements of a tensor in the range of [-threshold, +threshold]
    and is applied to the input of activations. No clip if not specified." """
    return x if limit is None else np.clip(x, -limit, limit)


def diagonal_peephole(layer, w):
    """{gate: (H,)} of i, f, o, from (3H,) or, where a gate is derived, (2H,) of the other two."""
    hidden = w.hidden_size
    gates = "ifo" if len(w.w_ch) == 3 * hidden else [n for n in gate_rows(layer) if n != "g"]
    return dict(zip(gates, f64(w.w_ch).reshape(-1, hidden), strict=True))


def _norm(options, gate_count, a, weight, bias):
    """The layer norm of pre-activations (..., G*H): over all of them at once, or gate by gate."""
    if options.get("per_gate"):
        parts = a.reshape(*a.shape[:-1], gate_count, -1)
        n = layer_norm(parts, eps=options.get("eps", 1e-5)).reshape(a.shape)
    else:
        n = layer_norm(a, eps=options.get("eps", 1e-5))
    n = n * f64(weight)
    return n if bias is None else n + f64(bias)


def lstm_step(w, x, h, c, layer=None, direction=0):
    """One step of one layer and direction, x (..., I), h (..., P), c (..., H) -> (h', c').

    torch.nn.LSTM:  i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)     c' = f * c + i * g
                    f = sigmoid(W_if x + b_if + W_hf h + b_hf)     h' = o * tanh(c')
                    g =    tanh(W_ig x + b_ig + W_hg h + b_hg)
                    o = sigmoid(W_io x + b_io + W_ho h + b_ho)     proj_size: h' = W_hr h'

    The options, and where each is from:

    peephole="diagonal": Gers and Schmidhuber, Recurrent nets that time and count (2000); Graves,
        Generating sequences with recurrent neural networks (2013), equations 7 to 11: i and f have
        w_ci * c(t-1) and w_cf * c(t-1) in them, o has w_co * c(t). ONNX's P ("iof") is the same.
    peephole="full": every gate and the candidate are functions of [c(t-1), h(t-1), x(t)], through
        matrices; output_peephole="new": o of [c(t), h(t-1), x(t)].
    coupled: "f=1-i", Greff et al., LSTM: a search space odyssey (2017), CIFG: "f = 1 - i", and
        ONNX's input_forget; "i=1-f", TFLite, where the input gate's tensors are absent.
    clip: ONNX, to each pre-activation. cell_clip: only the c that goes into h's function is held,
        c is kept as it is (what comments in ONNX Runtime's source say of its `clip`; its operator
        does not do it, see test_oracle_onnx.py). cell_clip_stored: c itself is ("cell_clip" of
        TFLite; TensorFlow's LSTMCell, "prior to the cell output activation").
    projection with bias and proj_clip: Sak, Senior and Beaufays (2014), r = W_rm m; TFLite's
        projection_bias and proj_clip, the latter on the sum of both.
    forget_bias: TensorFlow's BasicLSTMCell, sigmoid(f + forget_bias).
    zoneout: Krueger et al. (2017), in inference the expectation:
        c = p_c c(t-1) + (1 - p_c) (f c(t-1) + i g),
        h = p_h h(t-1) + (1 - p_h) o tanh(f c(t-1) + i g).
    layer_norm: Ba, Kiros and Hinton (2016), equations 20 to 22: the four pre-activations are
        LN(W_h h; alpha1) + LN(W_x x; alpha2) + b, and h = sigmoid(o) tanh(LN(c; alpha3, beta3)),
        c itself being stored without: separate=True, cell=True. Of the sum, over all gates
        (joint) or gate by gate as in TFLite, whose diagonal peephole is a part of what is
        normalised; b is added after it. cell="stored": c itself is normalised.
    """
    x, h, c = f64(x), f64(h), f64(c)
    rows, hidden = gate_rows(layer), w.hidden_size
    f_of, g_of, h_of = _functions(layer, direction)
    norm = option(layer, "layer_norm", None)
    peephole = option(layer, "peephole", None)
    per_gate = norm is not None and norm.get("per_gate", False)
    separate = norm is not None and norm.get("separate", False)
    diagonal = diagonal_peephole(layer, w) if peephole == "diagonal" else {}

    a, r = x @ f64(w.w_ih).T, h @ f64(w.w_hh).T

    def normalised(a, r):
        if separate:
            return _norm(norm, len(rows), a, w.ln_ih, w.ln_ih_bias) + _norm(
                norm, len(rows), r, w.ln_hh, w.ln_hh_bias
            )
        return _norm(norm, len(rows), a + r, w.ln_ih, w.ln_ih_bias)

    def pre_activation(gate, cell):
        """Of one gate, whose peephole looks at `cell`."""
        mine = slice(rows.index(gate) * hidden, (rows.index(gate) + 1) * hidden)
        seen = diagonal[gate] * cell if gate in diagonal else 0.0
        if norm is None:
            z = (a + r)[..., mine] + seen
            if peephole == "full":
                z = z + cell @ f64(w.w_ch)[mine].T
        elif per_gate and not separate:
            sums = np.zeros_like(a + r)  # the other gates' do not matter to this one's norm
            sums[..., mine] = (a + r)[..., mine] + seen
            z = normalised(sums, 0.0)[..., mine]
        else:
            z = normalised(a, r)[..., mine] + seen
        z = z + bias_sum(w)[mine]
        if gate == "f":
            z = z + option(layer, "forget_bias", 0.0)
        return _clip(z, option(layer, "clip", None))

    if "i" in rows:
        i = f_of(pre_activation("i", c))
    if "f" in rows:
        f = f_of(pre_activation("f", c))
    else:
        f = 1.0 - i
    if "i" not in rows:
        i = 1.0 - f
    g = g_of(pre_activation("g", c))
    new = f * c + i * g

    cell_clip, clip_stored = (option(layer, f"cell_clip{s}", None) for s in ("", "_stored"))
    if clip_stored:
        new = _clip(new, cell_clip)
    cell_norm = norm.get("cell", False) if norm is not None else False
    eps = norm.get("eps", 1e-5) if norm is not None else None
    if cell_norm == "stored":
        new = layer_norm(new, w.ln_cell, w.ln_cell_bias, eps)

    sees_new = peephole == "diagonal" or option(layer, "output_peephole", "old") == "new"
    o = f_of(pre_activation("o", new if sees_new else c))
    shown = layer_norm(new, w.ln_cell, w.ln_cell_bias, eps) if cell_norm is True else new
    if not clip_stored:
        shown = _clip(shown, cell_clip)
    out = o * h_of(shown)

    if w.w_hr is not None:
        out = out @ f64(w.w_hr).T
        if w.b_hr is not None:
            out = out + f64(w.b_hr)
        out = _clip(out, option(layer, "proj_clip", None))
    zoneout = option(layer, "zoneout", None)
    if zoneout is not None:
        p_h, p_c = zoneout
        out, new = p_h * h + (1.0 - p_h) * out, p_c * c + (1.0 - p_c) * new
    return out, new


def gru_step(w, x, h, layer=None, direction=0):
    """One step of a GRU, x (..., I), h (..., H) -> h'.

    torch.nn.GRU:  r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)      h' = (1 - z) * n + z * h
                   z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
                   n = tanh(W_in x + b_in + r * (W_hn h + b_hn))

    linear_before_reset=False: ONNX's default (https://onnx.ai/onnx/operators/onnx__GRU.html),
    ht = g(Xt*(Wh^T) + (rt (.) Ht-1)*(Rh^T) + Rbh + Wbh), which is Cho et al. (2014), equation 8:
    phi(W x + U (r (.) h)).
    """
    x, h = f64(x), f64(h)
    f_of, g_of = _functions(layer, direction)
    clip = option(layer, "clip", None)
    zero = np.zeros(len(w.w_ih))
    w_r, w_z, w_n = np.split(f64(w.w_ih), 3)
    u_r, u_z, u_n = np.split(f64(w.w_hh), 3)
    b_r, b_z, b_n = np.split(zero if w.b_ih is None else f64(w.b_ih), 3)
    d_r, d_z, d_n = np.split(zero if w.b_hh is None else f64(w.b_hh), 3)

    r = f_of(_clip(x @ w_r.T + b_r + h @ u_r.T + d_r, clip))
    z = f_of(_clip(x @ w_z.T + b_z + h @ u_z.T + d_z, clip))
    if option(layer, "linear_before_reset", True):
        candidate = x @ w_n.T + b_n + r * (h @ u_n.T + d_n)
    else:
        candidate = x @ w_n.T + b_n + (r * h) @ u_n.T + d_n
    n = g_of(_clip(candidate, clip))
    return (1.0 - z) * n + z * h


def rnn_step(w, x, h, layer=None, direction=0):
    """One step of torch.nn.RNN (Elman, Finding structure in time, 1990), x (..., I), h (..., H):
    h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    (f_of,) = _functions(layer, direction)
    z = f64(x) @ f64(w.w_ih).T + f64(h) @ f64(w.w_hh).T + bias_sum(w)
    return f_of(_clip(z, option(layer, "clip", None)))


def cell_step(layer, w, x, state, direction=0):
    """One step of any cell; states are tuples here: (h, c) of an LSTM, (h,) of the others."""
    kind = kind_of(layer)
    if kind == "LSTM":
        return lstm_step(w, x, *state, layer, direction)
    return ({"GRU": gru_step, "RNN": rnn_step}[kind](w, x, *state, layer, direction),)
