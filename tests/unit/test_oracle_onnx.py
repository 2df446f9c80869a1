# SPDX-License-Identifier: MIT
"""The oracle's options are those of ONNX Runtime's LSTM, GRU and RNN operators.

ONNX Runtime computes in float32, so the comparison is by a tolerance of 2e-5 of values of about 1:
five orders above float64 and far below what any other reading of an option would make (each
`..._differ` test says what the other reading is and that it lies outside).
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from bounds.tolerances import DIFFERENT, FAR
from torch_side import layer

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

# ONNX's rows in terms of torch's: i o f c from i f g o; z r h from r z n
ROWS = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}
TAKES = {  # how many of alpha, beta a function takes from the lists of attributes
    "Sigmoid": 0, "Tanh": 0, "Relu": 0, "HardSigmoid": 2, "Softsign": 0, "Softplus": 0, "Elu": 1,
    "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "Affine": 2,
}  # fmt: skip


def run(kind, tensors, x, state, options, lengths=None):
    """(y (T, B, D*H), h (D, B, H), c) of one layer by the operator; `options` as our layers have
    them. The tensors are ours, reordered."""
    (stack,) = oracle.directions(tensors)
    hidden, ours = stack[0].hidden_size, oracle.cells.GATES[kind]

    def reorder(a):
        parts = dict(zip(ours, np.split(a, len(ours)), strict=True))
        return np.concatenate([parts[gate] for gate in ROWS[kind]])

    def zeros(a):
        return np.zeros(len(ours) * hidden, np.float32) if a is None else a

    inputs = {
        "X": x,
        "W": np.stack([reorder(w.w_ih) for w in stack]),
        "R": np.stack([reorder(w.w_hh) for w in stack]),
        "B": np.stack(
            [np.concatenate([reorder(zeros(b)) for b in (w.b_ih, w.b_hh)]) for w in stack]
        ),
        "S": None if lengths is None else np.asarray(lengths, np.int32),
        "H0": state[0],
    }
    if kind == "LSTM":
        inputs["C0"] = state[1]
        if options.get("peephole"):
            peepholes = [w.w_ch.reshape(3, hidden) for w in stack]  # i f o -> i o f
            inputs["P"] = np.stack([p[[0, 2, 1]].reshape(-1) for p in peepholes])
    attributes = {"hidden_size": hidden, "direction": ["forward", "bidirectional"][len(stack) - 1]}
    if options.get("clip"):
        attributes["clip"] = float(options["clip"])
    if options.get("coupled"):
        attributes["input_forget"] = 1
    if kind == "GRU":
        attributes["linear_before_reset"] = int(options["linear_before_reset"])
    if options.get("activations"):
        given = list(options["activations"])
        if len(given) < {"LSTM": 3, "GRU": 2, "RNN": 1}[kind] * len(stack):
            given = given * 2
        attributes["activations"] = [name for name, _, _ in given]
        alphas = [alpha for name, alpha, _ in given if TAKES[name] >= 1]
        betas = [beta for name, _, beta in given if TAKES[name] == 2]
        attributes |= {"activation_alpha": alphas} if alphas else {}
        attributes |= {"activation_beta": betas} if betas else {}

    names = [name if value is not None else "" for name, value in inputs.items()]
    outputs = ["Y", "Yh", "Yc"][: 3 if kind == "LSTM" else 2]
    helper = onnx.helper
    float_type, int_type = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **attributes)],
        "g",
        [
            helper.make_tensor_value_info(n, int_type if n == "S" else float_type, v.shape)
            for n, v in inputs.items()
            if v is not None
        ],
        [helper.make_tensor_value_info(n, float_type, None) for n in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 8
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    y, *final = session.run(None, {n: v for n, v in inputs.items() if v is not None})
    steps, _, batch, _ = y.shape
    return y.transpose(0, 2, 1, 3).reshape(steps, batch, -1), *final


def tensors_of(rng, kind, n_in, hidden, directions, bias=True, peephole=False, coupled=False):
    tensors = {}
    gates = len(oracle.cells.GATES[kind])
    for end in ("", "_reverse")[:directions]:

        def draw(*shape):
            return rng.uniform(-0.7, 0.7, shape).astype(np.float32)

        tensors[f"weight_ih_l0{end}"] = draw(gates * hidden, n_in)
        tensors[f"weight_hh_l0{end}"] = draw(gates * hidden, hidden)
        if bias:
            tensors[f"bias_ih_l0{end}"] = draw(gates * hidden)
            tensors[f"bias_hh_l0{end}"] = draw(gates * hidden)
        if peephole:
            tensors[f"weight_ch_l0{end}"] = draw(3 * hidden)
    return tensors


def without(tensors, gate, hidden):
    """Those of a coupled LSTM: the rows of the derived gate are not there."""
    k = "ifgo".index(gate)
    keep = np.r_[0 : k * hidden, (k + 1) * hidden : 4 * hidden]
    return {n: a if "weight_ch" in n else a[keep] for n, a in tensors.items()}


gains = st.floats(0.125, 2.0, width=16)
functions = st.sampled_from(sorted(TAKES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        gains if name != "ThresholdedRelu" else st.sampled_from([0.25, 1.0]),
        st.floats(-0.5, 0.5, width=16),
    )
)


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    directions = draw(st.integers(1, 2))
    options = {"clip": draw(st.none() | st.sampled_from([0.25, 0.5, 1.5]))}
    if draw(st.booleans()):
        # unbounded functions of a gate make values explode, where float32 proves nothing
        count = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind] * draw(st.integers(1, directions))
        options["activations"] = [draw(functions) for _ in range(count)]
    if kind == "LSTM":
        options["peephole"] = draw(st.sampled_from([None, "diagonal"]))
        options["coupled"] = draw(st.sampled_from([None, "f=1-i"]))
    if kind == "GRU":
        options["linear_before_reset"] = draw(st.booleans())
    sizes = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    lengths = None
    if draw(st.booleans()):  # of a length 0 the operator gives h = 0, we the state as it was
        lengths = draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    return kind, directions, options, sizes, steps, batch, lengths, draw(st.integers(0, 2**31))


@settings(deadline=None, max_examples=400, derandomize=True, database=None)
@given(cases())
def test_the_operators_are_ours(case):
    kind, directions, options, (n_in, hidden), steps, batch, lengths, seed = case
    rng = np.random.default_rng(seed)
    tensors = tensors_of(
        rng, kind, n_in, hidden, directions, seed % 3 > 0, bool(options.get("peephole"))
    )
    parts = 2 if kind == "LSTM" else 1
    x = rng.standard_normal((steps, batch, n_in)).astype(np.float32)
    state = rng.uniform(-1, 1, (parts, directions, batch, hidden)).astype(np.float32)
    theirs = run(kind, tensors, x, state, options, lengths)
    ours = without(tensors, "f", hidden) if options.get("coupled") else tensors
    y, final = oracle.recurrent(layer(kind, **options), ours, "", x, tuple(state), lengths)
    scale = 1.0 + max(np.abs(a).max() for a in (y, *final))
    if scale > 1e3:
        return
    bends = [one for one in options.get("activations") or [] if one[0] == "ThresholdedRelu"]
    for mine, their in zip((y, *final), theirs, strict=True):
        wrong = np.abs(mine - their) > FAR * scale * scale
        assert not wrong.any() or (bends and wrong.mean() < 0.2), np.abs(mine - their).max()


def one_step(kind, seed=1, n=6, **options):
    """(the operator's results, x, state, tensors) of one forward step."""
    rng = np.random.default_rng(seed)
    tensors = tensors_of(rng, kind, 4, n, 1, True, "peephole" in options)
    x = rng.standard_normal((1, 2, 4)).astype(np.float32)
    state = rng.uniform(-1, 1, (2 if kind == "LSTM" else 1, 1, 2, n)).astype(np.float32)
    return run(kind, tensors, x, state, options), x, state, tensors


def distance(theirs, tensors, x, state, **options):
    kind = "GRU" if len(state) == 1 else "LSTM"
    y, final = oracle.recurrent(layer(kind, **options), tensors, "", x, tuple(state))
    pairs = zip((y, *final), theirs, strict=True)
    return max(np.abs(mine - their).max() for mine, their in pairs)


def test_readings_of_clip_differ():
    """The operator's clip is of pre-activations alone, in ONNX Runtime: neither the cell that h's
    function sees nor the one that is stored is held. Other readings are options of ours."""
    theirs, x, state, tensors = one_step("LSTM", clip=0.25)
    assert distance(theirs, tensors, x, state, clip=0.25) < FAR
    for other in (
        {},
        dict(clip=0.25, cell_clip=0.25),
        dict(clip=0.25, cell_clip=0.25, cell_clip_stored=True),
    ):
        assert distance(theirs, tensors, x, state, **other) > DIFFERENT


def test_readings_of_input_forget_differ():
    theirs, x, state, tensors = one_step("LSTM", coupled="f=1-i", peephole="diagonal")
    options = dict(coupled="f=1-i", peephole="diagonal")
    assert distance(theirs, without(tensors, "f", 6), x, state, **options) < FAR
    options["coupled"] = "i=1-f"
    assert distance(theirs, without(tensors, "i", 6), x, state, **options) > DIFFERENT


def test_readings_of_a_peephole_differ():
    """P is for a diagonal; o sees the new cell."""
    theirs, x, state, tensors = one_step("LSTM", peephole="diagonal")
    assert distance(theirs, tensors, x, state, peephole="diagonal") < FAR
    name = "weight_ch_l0"
    rows = [np.diag(p) for p in tensors[name].reshape(3, -1)]
    full = tensors | {name: np.concatenate([*rows[:2], 0 * rows[0], rows[2]])}
    for output, far in (("new", False), ("old", True)):
        found = distance(theirs, full, x, state, peephole="full", output_peephole=output)
        assert (found > DIFFERENT) if far else (found < FAR)


def test_readings_of_reset_differ():
    for before in (False, True):
        theirs, x, state, tensors = one_step("GRU", linear_before_reset=before)
        for ours in (False, True):
            found = distance(theirs, tensors, x, state, linear_before_reset=ours)
            assert (found < FAR) if ours == before else (found > DIFFERENT)


def test_a_thresholded_relu_is_zero_at_its_threshold():
    """The cells' text has "x if x >= alpha", the operator of that name x > alpha."""
    tensors = {
        "weight_ih_l0": np.ones((1, 1), np.float32),
        "weight_hh_l0": np.zeros((1, 1), np.float32),
    }
    x = np.array([0.25, 0.5, 0.75], np.float32).reshape(1, 3, 1)
    options = dict(activations=[("ThresholdedRelu", 0.5, 0.0)])
    y, _ = run("RNN", tensors, x, np.zeros((1, 1, 3, 1), np.float32), options)
    np.testing.assert_array_equal(y.ravel(), [0.0, 0.0, 0.75])
    ours, _ = oracle.recurrent(layer("RNN", **options), tensors, "", x)
    np.testing.assert_array_equal(ours, y)


def test_length_zero_differs():
    """ONNX Runtime gives h = 0 for a row of length 0; we pass its state through."""
    rng = np.random.default_rng(2)
    tensors = tensors_of(rng, "RNN", 2, 3, 1)
    x, state = rng.standard_normal((4, 2, 2)), rng.uniform(0.5, 1, (1, 1, 2, 3))
    x, state = x.astype(np.float32), state.astype(np.float32)
    _, theirs = run("RNN", tensors, x, state, {}, [0, 3])
    _, (ours,) = oracle.recurrent(layer("RNN"), tensors, "", x, tuple(state), [0, 3])
    assert (theirs[0, 0] == 0).all() and (ours[0, 0] == state[0, 0, 0]).all()
    assert np.abs(ours[0, 1] - theirs[0, 1]).max() < FAR
