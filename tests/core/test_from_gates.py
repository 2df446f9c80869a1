# SPDX-License-Identifier: MIT
"""Networks written from scratch in NumPy, and their weights through from_gates."""

import numpy as np
import pytest

import clstm
from bounds.tolerances import NEAR
from clstm import ModelFormatError, nn
from clstm.formats import from_gates
from samples import rng_of

I, H, T = 3, 5, 6  # noqa: E741


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(w, x, peephole=None, new=False):
    """As a textbook has it: one matrix a gate, column vectors."""
    h, c, rows = np.zeros(H), np.zeros(H), []
    gate = dict.fromkeys("ifco")
    for step in x:
        for k in "ifc":
            gate[k] = w[f"W_x{k}"] @ step + w[f"W_h{k}"] @ h + w[f"b_{k}"]
            if peephole == "full":
                gate[k] += w[f"W_c{k}"] @ c
            elif peephole == "diagonal" and k != "c":
                gate[k] += w[f"w_c{k}"] * c
        before, c = c, sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["c"])
        o = w["W_xo"] @ step + w["W_ho"] @ h + w["b_o"]
        if peephole == "full":
            o += w["W_co"] @ (c if new else before)
        elif peephole == "diagonal":
            o += w["w_co"] * c
        h = sigmoid(o) * np.tanh(c)
        rows.append(h)
    return np.array(rows)


def gru(w, x, before):
    h, rows = np.zeros(H), []
    for step in x:
        r, z = (sigmoid(w[f"W_x{k}"] @ step + w[f"W_h{k}"] @ h + w[f"b_{k}"]) for k in "rz")
        product = w["W_hh"] @ (r * h) if before else r * (w["W_hh"] @ h)
        n = np.tanh(w["W_xh"] @ step + product + w["b_h"])
        h = (1 - z) * n + z * h
        rows.append(h)
    return np.array(rows)


def rnn(w, x):
    h, rows = np.zeros(H), []
    for step in x:
        h = np.tanh(w["W_xh"] @ step + w["W_hh"] @ h + w["b_h"])
        rows.append(h)
    return np.array(rows)


def weights(gates, *more, seed=1):
    rng = rng_of(seed)
    w = {}
    for k in gates:
        w |= {f"W_x{k}": rng.normal(size=(H, I)), f"W_h{k}": rng.normal(size=(H, H)) / 2,
              f"b_{k}": rng.normal(size=H)}  # fmt: skip
    for name in more:
        w[name] = rng.normal(size=(H, H) if name[0] == "W" else H) / 2
    return w


X = rng_of(0).normal(size=(T, I))
DIAGONAL = ["w_ci", "w_cf", "w_co"]
FULL = ["W_ci", "W_cf", "W_cc", "W_co"]
LSTM = weights("ifco")


def run(gates, layer=None, layout="split", **options):
    """Through the model; the layer of the tensors alone, if None."""
    layers = None if layer is None else [layer]
    return clstm.from_state_dict(from_gates(gates, layout, **options), layers=layers)(X)[0]


def check(got, expected):
    np.testing.assert_allclose(got, expected, atol=NEAR)


@pytest.mark.parametrize("changed", [
    lambda w: w,
    lambda w: {n: a.T for n, a in w.items()},  # x @ W
    lambda w: {n: a[:, None] if a.ndim == 1 else a for n, a in w.items()},
    lambda w: {n: a[None] if a.ndim == 1 else a for n, a in w.items()},
    lambda w: {n.replace("c", "g").replace("_", "").upper(): a for n, a in w.items()},
    lambda w: dict(reversed(w.items())),
    lambda w: {n: a.tolist() for n, a in w.items()},
    lambda w: {n.replace("W_x", "W_").replace("W_h", "U_"): a for n, a in w.items()},
    lambda w: {n.replace("W_x", "W_i").replace("b_", "b_h"): a for n, a in w.items()},
    lambda w: {n: a for n, a in w.items() if n[0] == "W"}
    | {f"b_x{k}": w[f"b_{k}"] - 0.25 for k in "ifco"}
    | {f"b_h{k}": np.full(H, 0.25) for k in "ifco"},
], ids=range(10))  # fmt: skip
def test_a_textbook_lstm_in_every_spelling(changed):
    check(run(changed(LSTM)), lstm(LSTM, X))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("peephole, new", [("diagonal", False), ("full", False), ("full", True)])
def test_peepholes(peephole, new, flip):
    w = weights("ifco", *(DIAGONAL if peephole == "diagonal" else FULL))
    layer = nn.LSTM(peephole=peephole, output_peephole="new" if new else "old")
    given = {n: a.T for n, a in w.items()} if flip else w
    check(run(given, layer), lstm(w, X, peephole, new))


def test_a_missing_peephole_is_zero():
    w = weights("ifco", *DIAGONAL) | {"w_cf": np.zeros(H)}
    short = {n: a for n, a in w.items() if n != "w_cf"}
    check(run(short, nn.LSTM(peephole="diagonal")), lstm(w, X, "diagonal"))


def test_coupled_gates():
    w = weights("ico")
    flipped = {n.replace("i", "f"): -a for n, a in w.items() if n.endswith("i")}  # 1 - sigmoid(z)
    expected = lstm(w | flipped, X)
    check(run(w, nn.LSTM(coupled="f=1-i")), expected)
    without_i = {n: a for n, a in w.items() if not n.endswith("i")} | flipped
    check(run(without_i, nn.LSTM(coupled="i=1-f")), expected)


@pytest.mark.parametrize("before", [False, True])
def test_a_textbook_gru(before):
    w = weights("rzh")
    layer = nn.GRU(linear_before_reset=not before)
    check(run(w, layer), gru(w, X, before))
    renamed = {n[:-1] + n[-1].replace("h", "n"): a for n, a in w.items()}
    assert "W_hn" in renamed and "b_n" in renamed
    check(run(renamed, layer), gru(w, X, before))


def test_the_biases_of_a_grus_two_products_stay_apart():
    w = weights("rzh")
    shift = rng_of(4).normal(size=H)
    both = {n: a for n, a in w.items() if n[0] == "W"}
    for k in "rzh":
        both |= {f"b_x{k}": w[f"b_{k}"], f"b_h{k}": shift if k == "h" else np.zeros(H)}
    state = from_gates(both)
    np.testing.assert_array_equal(state["bias_hh_l0"][2 * H :], shift.astype("f4"))
    np.testing.assert_array_equal(state["bias_ih_l0"][2 * H :], w["b_h"].astype("f4"))


def test_a_textbook_rnn():
    w = weights("h")
    check(run(w), rnn(w, X))
    side_by_side = {"W": np.hstack([w["W_hh"], w["W_xh"]]), "b": w["b_h"]}
    check(run(side_by_side, layout="hx"), rnn(w, X))


@pytest.mark.parametrize("flip", [False, True])
def test_one_matrix_a_gate(flip):
    w = weights("ifco", *FULL)
    hx = {f"W_{k}": np.hstack([w[f"W_h{k}"], w[f"W_x{k}"]]) for k in "ifco"}
    chx = {f"W_{k}": np.hstack([w[f"W_c{k}"], hx[f"W_{k}"]]) for k in "ifco"}
    biases = {f"b_{k}": w[f"b_{k}"] for k in "ifco"}
    if flip:
        hx, chx = ({n: a.T for n, a in d.items()} for d in (hx, chx))
    check(run(hx | biases, layout="hx"), lstm(w, X))
    full = nn.LSTM(peephole="full", output_peephole="new")
    check(run(chx | biases, full, "chx"), lstm(w, X, "full", new=True))
    part = chx | {"W_c": hx["W_c"]}  # the candidate does not read c
    expected = lstm(w | {"W_cc": np.zeros((H, H))}, X, "full", new=True)
    check(run(part | biases, full, "chx"), expected)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("names, order", [(("i2g", "o2g"), "icfo"), (("i2h", "h2h"), "ifoc")])
def test_all_gates_of_a_product_at_once(names, order, flip):
    w, half = weights("ifco"), rng_of(3).normal(size=4 * H)
    x, h = names
    joint = {
        f"{x}.weight": np.vstack([w[f"W_x{k}"] for k in order]),
        f"{h}.weight": np.vstack([w[f"W_h{k}"] for k in order]),
        f"{x}.bias": np.hstack([w[f"b_{k}"] for k in order]) - half,
        f"{h}.bias": half,
    }
    if flip:
        joint = {n: a.T for n, a in joint.items()}
    check(run(joint, layout="torch7"), lstm(w, X))
    check(run(joint, layout="torch7", order=order), lstm(w, X))
    one = {n: a for n, a in joint.items() if n != f"{h}.bias"} | {
        f"{x}.bias": joint[f"{x}.bias"] + half
    }
    check(run(one, layout="torch7"), lstm(w, X))


def test_torch7_gate_by_gate_with_a_peephole():
    w = weights("ifco", *DIAGONAL)
    check(run(w, nn.LSTM(peephole="diagonal"), "torch7"), lstm(w, X, "diagonal"))


def test_square_matrices_are_rows_of_outputs_unless_told():
    w = {n: a[:, :1].repeat(H, 1) if n[:3] == "W_x" else a for n, a in weights("h").items()}
    x = np.ones((T, H))
    flipped = {n: a.T for n, a in w.items()}
    for gates, options in ((w, {}), (w, {"transposed": False}), (flipped, {"transposed": True})):
        got = clstm.from_state_dict(from_gates(gates, **options))(x)[0]
        check(got, rnn(w, x))


def test_several_layers_are_a_list():
    first, second = weights("ifco"), weights("ifco", seed=2)
    second |= {f"W_x{k}": rng_of(5).normal(size=(H, H)) for k in "ifco"}
    model = clstm.from_state_dict(from_gates([first, second]), layers=[nn.LSTM(num_layers=2)])
    check(model(X)[0], lstm(second, lstm(first, X)))


def test_a_network_without_biases():
    w = {n: a for n, a in LSTM.items() if n[0] == "W"}
    assert set(from_gates(w)) == {"weight_ih_l0", "weight_hh_l0"}
    check(run(w), lstm(w | {f"b_{k}": 0 for k in "ifco"}, X))


def without(*names):
    return {n: a for n, a in LSTM.items() if n not in names}


HX = {f"W_{k}": np.zeros((H, H + I)) for k in "ifco"}
JOINT = {"i2g.weight": np.zeros((4 * H, I)), "o2g.weight": np.zeros((4 * H, H))}


@pytest.mark.parametrize("layout, gates, words", [
    ("split", {}, "is missing"), ("split", [], "there are none"),
    ("split", without("W_xf"), "W_xf is missing"), ("split", without("W_ho"), "W_ho is missing"),
    ("split", without("b_c"), "b_c is missing"),
    ("split", without("W_xo", "W_ho", "b_o"), "o is missing"),
    ("split", LSTM | {"W_hy": np.zeros((2, H))}, "W_hy: no name"),
    ("split", LSTM | {"W_xr": np.zeros((H, I))}, "gates: found"),
    ("split", LSTM | {"wxi": np.zeros((H, I))}, "wxi and W_xi are the same"),
    ("split", LSTM | {"b_xi": np.zeros(H)}, "one bias a gate"),
    ("split", LSTM | {"W_xf": np.zeros((H, I + 1))}, r"W_xf: expected shape \(5, 3\).*\(5, 4\)"),
    ("split", LSTM | {"W_xf": np.zeros((I, H))}, r"W_xf: expected shape \(5, 3\).*\(3, 5\)"),
    ("split", LSTM | {f"W_h{k}": np.zeros((H, H + 1)) for k in "ifco"}, "W_hi: expected a square"),
    ("split", LSTM | {f"W_x{k}": np.zeros((I, I + 1)) for k in "ifco"}, r"W_xi: .*\(5, I\)"),
    ("split", LSTM | {"b_f": np.zeros(H + 1)}, r"b_f: expected shape \(5,\), found \(6,\)"),
    ("split", LSTM | {"W_hf": np.zeros(H)}, "W_hf: expected a matrix"),
    ("split", LSTM | {"w_ci": np.zeros(H - 1)}, r"w_ci: expected shape \(5,\)"),
    ("split", LSTM | {"w_cc": np.zeros(H)}, "w_cc: a diagonal peephole is of i, f and o"),
    ("split", LSTM | {"W_ci": np.zeros((H, H)), "w_cf": np.zeros(H)}, "w_cf: expected shape"),
    ("split", weights("rzh") | {"w_cr": np.zeros(H)}, "w_cr: only an LSTM"),
    ("split", LSTM | {"b_f": np.array(["x"] * H)}, "b_f: expected real numbers"),
    ("split", LSTM | {"b_f": object()}, "b_f: "),
    ("hx", HX | {"W_xi": np.zeros((H, I))}, "W_xi: no name of layout 'hx'; .*W_i, b_i"),
    ("hx", HX | {"W_i": np.zeros((H, H + I + 1))}, r"W_i: expected 5 outputs of 8 .*\(5, 9\)"),
    ("hx", HX | {"W_o": np.zeros((H + 1, H + I + 1))}, "W_o: expected 5 outputs of 8 inputs"),
    ("hx", HX | {"W_i": np.zeros((H, H))}, r"W_i: expected shape \(H, H \+ I\)"),
    ("chx", HX, "W_i: expected 5 outputs"),
    ("torch7", JOINT | {"b_i": np.zeros(H)}, "b_i: not one of"),
    ("torch7", {**JOINT, "o2g.weight": np.zeros((4 * H, H + 1))}, r"expected shape \(4 \* H, H\)"),
    ("torch7", {**JOINT, "i2g.bias": np.zeros(4 * H + 1)}, r"i2g.bias: expected shape \(4 \* H,\)"),
    ("torch7", {**JOINT, "i2g.weight": np.zeros((4 * H + 4, I))}, "i2g.weight: expected 20 rows"),
    ("torch7", {"i2g.weight": np.zeros((4 * H, I)), "h2h.weight": np.zeros((4 * H, H))}, "two"),
])  # fmt: skip
def test_what_is_no_network_is_refused(layout, gates, words):
    with pytest.raises(ModelFormatError, match=words):
        from_gates(gates, layout)


@pytest.mark.parametrize("options, words", [
    ({"layout": "xh"}, "layout"), ({"order": "ifgo"}, "order"),
    ({"layout": "torch7", "order": "ifg"}, "order"),
])  # fmt: skip
def test_an_unknown_word_is_a_value_error(options, words):
    with pytest.raises(ValueError, match=words):
        from_gates(JOINT if options.get("layout") == "torch7" else LSTM, **options)
    with pytest.raises(ModelFormatError, match="transposed=True"):
        from_gates(LSTM, transposed=True)
