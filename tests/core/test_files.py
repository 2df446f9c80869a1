# SPDX-License-Identifier: MIT
"""`m.save`: files of ours, certificates, and that a save is whole or nothing."""

import errno
import json
import os
import stat
import subprocess
import sys
import zlib

import numpy as np
import pytest
from safetensors import safe_open

import clstm
import samples
from clstm import DTypeError, ModelFormatError, ShapeError, nn
from clstm.formats.budget import Budget
from clstm.formats.container import Image, Record, read_image, write_image
from samples import ZOO, fed, floats, lstm_tensors, made, rng_of, same_bits

KINDS = ["clstm", "safetensors"]

BIDIRECTIONAL = clstm.from_state_dict(
    lstm_tensors(rng_of(0), 6, 5, layers=2, bidirectional=True, proj=2),
    layers=[nn.LSTM(batch_first=True)],
)
EVERY_LAYER = clstm.from_state_dict(
    ZOO["lstm"][1]
    | samples.linear_tensors(rng_of(1), 8, 5, "fc")
    | {"ln.weight": floats(rng_of(2), 5), "ln.bias": floats(rng_of(3), 5)}
    | {"bn.running_mean": floats(rng_of(4), 5), "bn.running_var": np.ones(5, np.float32)}
    | {"act.weight": floats(rng_of(5), 5)},
    layers=[
        *(nn.LSTM("lstm"), nn.Dropout(0.3), nn.Linear("fc"), nn.BatchNorm1d("bn", eps=1e-3)),
        *(nn.LayerNorm("ln", eps=1e-4), nn.LayerNorm(), nn.PReLU("act"), nn.Affine(scale=2.0)),
        *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.Tanh(), nn.Hardtanh(-2, 3)),
        *(nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Softplus(2.0, 5.0)),
        *(nn.Identity(), nn.Softmax(), nn.LogSoftmax()),
    ],
)
MODELS = {name: made(name) for name in ZOO}
MODELS |= {"bidirectional": BIDIRECTIONAL, "every layer": EVERY_LAYER}


def x_of(model, seed=5):
    bare_cell = len(model.layers) == 1 and isinstance(model.layers[0], nn.LSTMCell)
    return fed(model, seed, 4) if bare_cell else fed(model, seed, 4, 3)


def y_of(model, x):
    return model(x)[0]


def save_with(model, path, y):
    """A file whose certificate says y, whatever the model gives; x is x_of's."""
    x = x_of(model)
    model.save(path, check=(x, y_of(model, x)))
    model = clstm.load(path)
    kept, right = model._parsed.check
    if model.batch_first:
        y = y.swapaxes(0, 1)
    model._parsed.check = kept, np.ascontiguousarray(y.reshape(right.shape))
    model.save(path)


# ---- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_the_same_model(name, kind, tmp_path):
    model, path = MODELS[name], tmp_path / f"m.{kind}"
    model.save(path)
    for kernel in clstm.available_kernels():
        loaded = clstm.load(path, kernel=kernel)
        assert loaded.fingerprint == model.fingerprint
        assert loaded.layers == model.layers and loaded.batch_first == model.batch_first
        assert same_bits(loaded(x_of(model)), model(x_of(model)))
        assert repr(loaded).split("|")[:3] == repr(model).split("|")[:3]


@pytest.mark.parametrize("name", MODELS)
def test_files_go_round_byte_for_byte(name, tmp_path):
    model = MODELS[name]
    paths = [tmp_path / p for p in ("a.clstm", "b.safetensors", "c.clstm", "d.safetensors")]
    for path in paths:
        model.save(path)
        model = clstm.load(path)
    assert paths[0].read_bytes() == paths[2].read_bytes()
    assert paths[1].read_bytes() == paths[3].read_bytes()


def test_a_model_of_a_foreign_file_saves_alike(tmp_path):
    layers, tensors = ZOO["cell and head"]
    np.savez(tmp_path / "w.npz", **{f"module.{k}": v for k, v in tensors.items()})
    clstm.load(tmp_path / "w.npz", layers=layers).save(tmp_path / "a.clstm")
    MODELS["cell and head"].save(tmp_path / "b.clstm")
    assert (tmp_path / "a.clstm").read_bytes() == (tmp_path / "b.clstm").read_bytes()


def test_gemm_does_not_change_the_fingerprint(tmp_path):
    made("lstm").save(tmp_path / "m.clstm")
    try:
        blas = clstm.load(tmp_path / "m.clstm", gemm="blas")
    except clstm.UnsupportedError:
        pytest.skip("not run: no BLAS here")
    assert blas.gemm == "blas" and blas.fingerprint == made("lstm").fingerprint


def test_safetensors_of_ours_reads_elsewhere_with_its_own_names(tmp_path):
    MODELS["cell and head"].save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert set(file.keys()) == set(ZOO["cell and head"][1])
        layers = json.loads(file.metadata()["clstm.layers"])
    assert [layer["type"] for layer in layers] == ["LSTMCell", "Linear", "Tanh"]
    raw = clstm.read_weights(tmp_path / "m.safetensors")
    assert all(same_bits(raw[k], v) for k, v in ZOO["cell and head"][1].items())


@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_a_file_of_ours_are_a_value_error(kind, tmp_path):
    made("lstm").save(tmp_path / f"m.{kind}")
    with pytest.raises(ValueError, match=f"m.{kind} holds its layers") as caught:
        clstm.load(tmp_path / f"m.{kind}", layers=[nn.LSTM("lstm")])
    assert not isinstance(caught.value, clstm.ClstmError)


@pytest.mark.parametrize("name", ["m", "m.pt", "m.onnx", "m.CLSTM.bak", "clstm"])
def test_a_name_of_another_kind_is_a_value_error(name, tmp_path):
    with pytest.raises(ValueError, match=r"\.clstm or \.safetensors"):
        made("lstm").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_save_takes_a_path_or_its_text(tmp_path):
    made("lstm").save(str(tmp_path / "a.clstm"))
    made("lstm").save(tmp_path / "b.clstm")
    assert (tmp_path / "a.clstm").read_bytes() == (tmp_path / "b.clstm").read_bytes()


# ---- certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_right_certificate_is_recomputed_by_every_kernel(name, kind, tmp_path):
    model, path = MODELS[name], tmp_path / f"m.{kind}"
    x = x_of(model)
    model.save(path, check=(x, y_of(model, x)))
    for kernel in clstm.available_kernels():
        loaded = clstm.load(path, kernel=kernel)
        assert loaded.fingerprint == model.fingerprint  # which a certificate is no part of
        assert same_bits(loaded(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_certificate_is_refused_at_load(name, kind, tmp_path):
    model, path = MODELS[name], tmp_path / f"m.{kind}"
    x = x_of(model)
    y = y_of(model, x)
    one = y.copy()
    one.reshape(-1)[5] -= 0.01
    for wrong in (y + np.float32(0.01), one):
        with pytest.raises(ValueError, match=r"check: y is not what this model gives: at \["):
            model.save(path, check=(x, wrong))
        assert not path.exists()
    for wrong in (y + np.float32(0.01), one):
        save_with(model, path, wrong)
        with pytest.raises(ModelFormatError, match=f"m.{kind}.*certificate"):
            clstm.load(path)


def test_a_certificate_of_other_weights_is_refused(tmp_path):
    """What it is for: two gates swapped in the file."""
    layers, tensors = ZOO["lstm"]
    x = fed(MODELS["lstm"], 3, 5, 2)
    swapped = {k: v[np.r_[8:16, 0:8, 16:32]] for k, v in tensors.items()}
    model = clstm.from_state_dict(swapped, layers=layers)
    with pytest.raises(ValueError, match="check: y is not"):
        model.save(tmp_path / "m.clstm", check=(x, y_of(MODELS["lstm"], x)))
    assert not list(tmp_path.iterdir())


def test_a_certificate_may_come_from_torch(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(6, 8, 2, batch_first=True)
    x = torch.randn(3, 40, 6)
    with torch.no_grad():
        y, _ = module(x)
    clstm.from_torch(module).save(tmp_path / "m.clstm", check=(x, y))
    assert clstm.load(tmp_path / "m.clstm").batch_first


@pytest.mark.parametrize("name", ["lstm", "tokens", "no state", "cell and head"])
@pytest.mark.parametrize("shape", [(2000,), (300, 4), (1, 256), (256, 1)])
def test_a_long_certificate_is_cut_to_256_rows(name, shape, tmp_path):
    model, path = MODELS[name], tmp_path / "m.clstm"
    x = fed(model, 5, *shape)
    y = y_of(model, x)
    kept = 256 if len(shape) == 1 else 256 // shape[1]
    y.reshape(shape[0], -1)[kept:] += 1  # never looked at
    model.save(path, check=(x, y))
    clstm.load(path)
    bare = tmp_path / "bare.clstm"
    model.save(bare)
    assert path.stat().st_size - bare.stat().st_size < 256 * 4 * (8 + 8) + 512
    y.reshape(shape[0], -1)[kept - 1] += 1  # the last that is
    with pytest.raises(ValueError, match="check: y is not"):
        model.save(path, check=(x, y))


def test_a_certificate_that_cannot_be_cut_is_refused_at_save(tmp_path):
    x = np.zeros((1, 257, 6), np.float32)  # the reverse direction begins at its end
    with pytest.raises(ValueError, match="256 rows"):
        BIDIRECTIONAL.save(tmp_path / "m.clstm", check=(x, y_of(BIDIRECTIONAL, x)))
    wide = fed(MODELS["lstm"], 1, 2, 257)
    with pytest.raises(ValueError, match="256 rows"):
        MODELS["lstm"].save(tmp_path / "m.clstm", check=(wide, y_of(MODELS["lstm"], wide)))
    assert not list(tmp_path.iterdir())


WRONG_CHECKS = {
    "y too short": ((4, 3, 6), (3, 3, 8), ShapeError),
    "y too wide": ((4, 3, 6), (4, 3, 9), ShapeError),
    "x too wide": ((4, 3, 7), (4, 3, 8), ShapeError),
    "nothing": ((0, 3, 6), (0, 3, 8), ShapeError),
    "no batch": ((4, 0, 6), (4, 0, 8), ShapeError),
    "a frame": ((6,), (8,), ShapeError),
}


@pytest.mark.parametrize("x, y, error", WRONG_CHECKS.values(), ids=WRONG_CHECKS)
def test_a_certificate_that_does_not_fit_is_refused_at_save(x, y, error, tmp_path):
    with pytest.raises(error):
        made("lstm").save(tmp_path / "m.clstm", check=(np.zeros(x), np.zeros(y)))
    assert not list(tmp_path.iterdir())


def test_a_certificate_holds_numbers(tmp_path):
    for check in ((np.zeros((4, 6)), "y"), ("x", np.zeros((4, 8)))):
        with pytest.raises(DTypeError):
            made("lstm").save(tmp_path / "m.clstm", check=check)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_is_kept_when_a_model_is_saved_again(kind, tmp_path):
    model = made("lstm")
    x = fed(model, 3, 5)
    model.save(tmp_path / "a.clstm", check=(x, y_of(model, x)))
    clstm.load(tmp_path / "a.clstm").save(tmp_path / f"b.{kind}")
    clstm.load(tmp_path / f"b.{kind}").save(tmp_path / "c.clstm")
    assert (tmp_path / "c.clstm").read_bytes() == (tmp_path / "a.clstm").read_bytes()


def test_nan_in_a_certificate_stands_for_nan(tmp_path):
    model = made("lstm")
    x = fed(model, 3, 5)
    x[2] = np.nan
    y = y_of(model, x)
    model.save(tmp_path / "m.clstm", check=(x, y))
    clstm.load(tmp_path / "m.clstm")
    y[3, 0] = 0.5
    with pytest.raises(ValueError, match=r"gives nan, expected 0\.5"):
        model.save(tmp_path / "m.clstm", check=(x, y))


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "m.clstm"
    model = made("cell and head")
    x = fed(model, 3, 2)
    model.save(path, check=(x, y_of(model, x)))
    return path.read_bytes()


def test_a_file_cut_short_at_any_length_is_refused(image):
    for n in range(0, len(image)):
        with pytest.raises(ModelFormatError):
            clstm.load(image[:n])
    with pytest.raises(ModelFormatError):
        clstm.load(image + b"\0")


def test_a_file_with_any_byte_changed_is_refused(image):
    rng = rng_of(0)
    for i in range(len(image)):
        bad = bytearray(image)
        bad[i] ^= 1 << rng.integers(8)
        with pytest.raises((ModelFormatError, clstm.UnsupportedError)):
            clstm.load(bytes(bad))


# ---- whole or not at all -------------------------------------------------------------------------


class Failing:
    """Replaces a function of `os`; fails at its n-th call."""

    def __init__(self, original, after=0, error=None):
        self.original, self.left = original, after
        self.error = error or OSError(errno.ENOSPC, "no space left")

    def __call__(self, *args, **options):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return self.original(*args, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_a_failing_save_leaves_the_old_file_and_no_other(kind, call, error, tmp_path, monkeypatch):
    path = tmp_path / f"m.{kind}"
    made("lstm").save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, call, Failing(getattr(os, call), 0, error))
    with pytest.raises(KeyboardInterrupt if error else OSError):
        made("projected").save(path)
    with pytest.raises(KeyboardInterrupt if error else OSError):
        made("projected").save(tmp_path / f"new.{kind}")
    monkeypatch.undo()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The real thing: a file size limit in a process of its own."""
    path = tmp_path / "m.clstm"
    made("lstm").save(path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, clstm, numpy as np\n"
        "m = clstm.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: m.save(sys.argv[1])\n"
        "except OSError as e: print(type(e).__name__)\n"
    )
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "OSError\n", done.stderr
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        made("lstm").save(tmp_path / "nowhere" / "m.clstm")
    with pytest.raises(FileNotFoundError):
        clstm.load(tmp_path / "nowhere.clstm")


@pytest.mark.skipif(os.name != "posix", reason="not run: permissions are POSIX's")
def test_a_file_has_the_permissions_that_open_would_give(tmp_path):
    before = os.umask(0o027)
    try:
        made("lstm").save(tmp_path / "m.clstm")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.clstm").stat().st_mode) == 0o640


def resealed(image, change):
    data = bytearray(image)
    change(data)
    data[60:64] = bytes(4)
    data[60:64] = zlib.crc32(data).to_bytes(4, "little")
    return bytes(data)


def test_python_looks_at_every_byte_that_c_looks_at(image):
    """The padding behind the names and the reserved word of a layer, with a right checksum."""
    n_ops, n_tensors, n_text = (int.from_bytes(image[i : i + 4], "little") for i in (24, 28, 32))
    end = 64 + 128 * n_ops + 64 * n_tensors + n_text
    assert end % 64 and image[end] == 0
    for at in (end, 64 + 28):
        bad = resealed(image, lambda data, at=at: data.__setitem__(at, 1))
        with pytest.raises(ModelFormatError):
            read_image(bad, "m", Budget(2**30))
        with pytest.raises(ModelFormatError):
            clstm.load(bad)


def test_two_tensors_of_one_name_in_a_layer_are_refused():
    """A dict of them would hold one, and shift those behind it."""
    record = Record(
        16, "fc", 8, (0,), (3, 2), (), {"fc.w": np.ones((2, 3), "f4"), "fc.b": np.ones(2, "f4")}
    )
    data = write_image(Image([record], 3)).replace(b"fc.b", b"fc.w")
    with pytest.raises(ModelFormatError, match="two tensors of one name"):
        clstm.load(resealed(data, lambda _: None))


def test_tensors_are_counted_against_max_bytes():
    record = Record(
        16, "fc", 8, (0,), (3, 2), (), {"w": np.ones((2, 3), "f4"), "b": np.ones(2, "f4")}
    )
    data = write_image(Image([record], 3))
    assert clstm.load(data, max_bytes=32)
    with pytest.raises(ModelFormatError, match="max_bytes"):
        clstm.load(data, max_bytes=31)
