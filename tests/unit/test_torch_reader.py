# SPDX-License-Identifier: MIT
"""What torch.save writes is read bit for bit, without torch."""

import argparse
import collections
import gc
import io
import json
import pathlib
import subprocess
import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from filemaker import (
    FLOATS,
    ROOT,
    Item,
    called,
    digest,
    make_zip,
    named,
    plain_torch_file,
    storage,
    tensor,
    torch_file,
    torch_items,
    whole,
)

from clstm.errors import ModelFormatError, UnsupportedError
from clstm.formats import read_file

torch = pytest.importorskip("torch")

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
]  # fmt: skip

LAYOUTS = {
    "contiguous": lambda t: t.reshape(6, 20),
    "scalar": lambda t: t[7],
    "one": lambda t: t[3:4],
    "empty": lambda t: t[:0].reshape(0, 4),
    "empty_storage": lambda t: t[:0].clone().reshape(3, 0, 2),
    "transposed": lambda t: t.reshape(6, 20).t(),
    "permuted": lambda t: t.reshape(2, 3, 4, 5).permute(3, 0, 2, 1),
    "offset": lambda t: t[17:101],
    "rows": lambda t: t.reshape(6, 20)[1::2],
    "columns": lambda t: t.reshape(6, 20)[:, 3::4],
    "block": lambda t: t.reshape(6, 20)[2:5, 4:9],
    "expanded": lambda t: t[:5].expand(7, 5),
    "expanded_scalar": lambda t: t[119].expand(3, 2, 4),
    "inner_expand": lambda t: t[:4].reshape(4, 1).expand(4, 9),
    "overlapping": lambda t: torch.as_strided(t, (10, 8), (3, 1), 5),
    "diagonal": lambda t: t[:100].reshape(10, 10).diagonal(),
    "ones_axes": lambda t: t.reshape(1, 6, 1, 20, 1),
    "rank_8": lambda t: t[:96].reshape(2, 1, 2, 2, 1, 3, 2, 2).transpose(0, 6),
}


def random_tensor(dtype, rng, n=120):
    """Random bits, so NaNs of every payload, denormals and infinities are among them."""
    if dtype is torch.bool:
        return torch.from_numpy(rng.integers(0, 2, n).astype(bool))
    n_bytes = torch.empty(0, dtype=dtype).element_size()
    raw = bytearray(rng.integers(0, 256, n * n_bytes, dtype=np.uint8).tobytes())
    return torch.frombuffer(raw, dtype=dtype)


def to_numpy(t):
    """What clstm should give for `t`; bfloat16 by its bits, not by torch's conversion."""
    t = t.detach().contiguous()
    if t.dtype is torch.bfloat16:
        bits = t.view(torch.int16).numpy().view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32)
    return t.numpy()


def saved(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def same(tensors, state):
    assert digest(tensors) == digest({k: to_numpy(v) for k, v in state.items()})


# -- what must be refused

READ_WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.modules["torch"] = None
sys.meta_path.insert(0, Block())
import json
sys.path[:0] = json.loads(sys.argv[1])
from filemaker import digest
from clstm.formats import read_file
result = {}
for path in json.load(sys.stdin):
    weights = read_file(path)
    assert weights.kind == "torch"
    for array in weights.tensors.values():
        assert array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative
    result[path] = digest(weights.tensors)
assert sys.modules["torch"] is None
assert not any(name.startswith("torch.") for name in sys.modules)
json.dump(result, sys.stdout)
"""


PATHS = [str(ROOT), str(ROOT / "tests/unit")]


def read_without_torch(paths):
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHOUT_TORCH, json.dumps(PATHS)],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_dtype_and_layout_bit_for_bit_without_torch(tmp_path):
    rng = np.random.default_rng(1)
    expected = {}
    for dtype in DTYPES:
        for name, layout in LAYOUTS.items():
            t = layout(random_tensor(dtype, rng))
            path = tmp_path / f"{name}_{str(dtype).split('.')[1]}.pt"
            torch.save({"t": t, "other": random_tensor(dtype, rng, 3)}, path)
            state = torch.load(path, weights_only=True)
            expected[str(path)] = digest({k: to_numpy(v) for k, v in state.items()})
            assert list(to_numpy(t).shape) == expected[str(path)]["t"][1]
    for i, module in enumerate(modules()):
        path = tmp_path / f"module{i}.pth"
        torch.save(module.state_dict(), path)
        expected[str(path)] = digest({k: to_numpy(v) for k, v in module.state_dict().items()})
    assert len(expected) >= 200
    assert read_without_torch(expected) == expected


def modules():
    for layers in (1, 2):
        for proj in (0, 3):
            for both in (False, True):
                yield torch.nn.LSTM(4, 8, layers, proj_size=proj, bidirectional=both)
    yield torch.nn.GRU(3, 5, bias=False).half()
    yield torch.nn.RNN(3, 5).double()
    yield torch.nn.LSTMCell(3, 5).bfloat16()
    yield torch.nn.Sequential(
        torch.nn.Embedding(9, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(protocol):
    state = torch.nn.LSTM(3, 4, 2).state_dict()
    same(read_file(saved(state, pickle_protocol=protocol)).tensors, state)


def test_shared_storages_and_parameters():
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(base[1:])
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "an attribute"
    attributed = torch.ones(3)
    attributed.note = [1, 2]
    state = {
        "a": base, "b": base.t(), "c": base[2], "d": parameter, "same": base, "e": marked,
        "f": attributed, "buffer": torch.nn.Buffer(torch.zeros(2)),
        "g": torch.ones(2, requires_grad=True),
    }  # fmt: skip
    data = saved(state)
    assert zipfile.ZipFile(io.BytesIO(data)).namelist().count("archive/data/0") == 1
    same(read_file(data).tensors, state)


def test_names_of_any_kind():
    names = ["", "a b", "ü/ñ", "名前", "x" * 1000, "data.pkl", "..", "\u2028", "quote'\""]
    state = {name: torch.full((i + 1,), float(i)) for i, name in enumerate(names)}
    same(read_file(saved(state)).tensors, state)


def test_arrays_keep_the_order_and_do_not_change_the_file():
    data = plain_torch_file()
    weights = read_file(data)
    assert list(weights.tensors) == ["w", "b"]
    assert (weights.kind, weights.metadata) == ("torch", {})
    for array in weights.tensors.values():
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1


def test_a_file_of_64_mib_is_read_in_place(tmp_path):
    path = tmp_path / "big.pt"
    state = {"a": torch.randn(1 << 22), "b": torch.randn(1 << 21).bfloat16(), "c": torch.randn(9)}
    torch.save(state, path)
    size = path.stat().st_size
    gc.collect()
    tracemalloc.start()
    try:
        weights = read_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    same(weights.tensors, state)
    made = weights.tensors["b"].nbytes  # "a" lies in the bytes of the file
    assert peak - made < size + (1 << 20)


# -- which dict

LSTM = torch.nn.LSTM(2, 3).state_dict()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "ema"])
def test_the_usual_places_of_a_state_dict(key):
    checkpoint = {"epoch": 3, key: LSTM, "loss": 0.5, "best": None, "ok": True}
    same(read_file(saved(checkpoint)).tensors, LSTM)
    same(read_file(saved(checkpoint), key=key).tensors, LSTM)


def test_several_candidates_are_listed():
    other = torch.nn.LSTM(2, 3).state_dict()
    data = saved({"state_dict": LSTM, "ema": other, "optimizer": {"lr": torch.ones(1)}})
    with pytest.raises(ModelFormatError, match="key='state_dict' or key='ema'"):
        read_file(data)
    same(read_file(data, key="ema").tensors, other)
    same(read_file(data, key="optimizer").tensors, {"lr": torch.ones(1)})


def test_root_against_nested():
    root = {"w": torch.ones(2), "model": LSTM}
    data = saved(root)
    with pytest.raises(ModelFormatError, match="key='' or key='model'"):
        read_file(data)
    same(read_file(data, key="").tensors, {"w": root["w"]})
    same(read_file(data, key="model").tensors, LSTM)


def test_nested_keys_and_hints():
    data = saved({"a": {"b": {"c": LSTM}}, "x.y": {"w": torch.ones(1)}})
    with pytest.raises(ModelFormatError, match=r"there are key='x.y', key='a.b.c'"):
        read_file(data)
    with pytest.raises(ModelFormatError, match=r"key='a.b'.*there are.*key='a.b.c'"):
        read_file(data, key="a.b")
    same(read_file(data, key="a.b.c").tensors, LSTM)
    same(read_file(data, key="x.y").tensors, {"w": torch.ones(1)})
    for wrong in ("", "nothing", "a.b.c.d", "a.b.c.weight_ih_l0", "."):
        with pytest.raises(ModelFormatError, match="no dict of tensors under key="):
            read_file(data, key=wrong)


def test_only_the_chosen_dict_counts_and_is_made():
    checkpoint = {"model": {"w": torch.ones(10)}, "optimizer": {"m": torch.ones(10_000)}}
    assert set(read_file(saved(checkpoint), max_bytes=40).tensors) == {"w"}


def test_values_that_are_no_tensors_are_ignored():
    state = dict(LSTM) | {"_extra_state": {"a": 1}, "n": 3, "text": "x", "none": None, "l": [1]}
    same(read_file(saved(state)).tensors, LSTM)


def test_objects_of_unknown_classes_beside_the_state_dict_are_inert():
    Point = collections.namedtuple("Point", "x y")
    Point.__module__ = "collections"  # so that it pickles by a name
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}
    checkpoint = {
        "state_dict": LSTM,
        "args": argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("x")),
        "optimizer": {"state": {0: moments, 1: moments}, "param_groups": [{"betas": (0.9, 0.99)}]},
        "numpy": np.arange(5000.0),
        "scalar": np.float32(3),
        "rng": np.random.default_rng(1).bit_generator.state,
        "deque": collections.deque([1]), "set": {1, 2},
        "frozen": frozenset({3}), "complex": 1 + 2j, "bytes": b"x" * 300,
        "big": 2**100, "negative": -7, "floats": [0.5] * 3000, "long": "x" * 100_000,
        "default": collections.defaultdict(list, a=[1]), "counter": collections.Counter("aab"),
        "device": torch.device("cpu"), "dtype": torch.float32, "size": torch.Size([1, 2]),
        "tuple": ((1, 2), (), (3,)), "slice": slice(1, 2), "range": range(3),
        ("a", "tuple"): 1, 3: torch.ones(2), None: {"x": torch.ones(1)},
    }  # fmt: skip
    del checkpoint[3]
    for protocol in (2, 3, 4, 5):
        same(read_file(saved(checkpoint, pickle_protocol=protocol)).tensors, LSTM)


def test_tensors_under_numbers_are_not_dropped_silently():
    with pytest.raises(ModelFormatError, match="no text"):
        read_file(saved({0: torch.ones(1), "w": torch.ones(1)}))


# -- what is no dict of dense real tensors


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.ones(2, dtype=torch.complex64), "ComplexFloat"),
        (lambda: torch.ones(2, dtype=torch.complex128), "ComplexDouble"),
        (lambda: torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.ones(2, device="meta"), "meta"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj().imag, "conjugated or negated"),
    ],
)
def test_other_tensors_are_unsupported_where_they_are_wanted(make, what):
    state = {"w": torch.ones(2), "odd": make()}
    data = saved(state)
    with pytest.raises(UnsupportedError, match=rf"tensor 'odd'.*{what}"):
        read_file(data)
    same(read_file(saved({"model": {"w": state["w"]}, "x": state})).tensors, {"w": state["w"]})


def test_quantized_tensor_is_unsupported():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = saved({"q": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)})
    with pytest.raises(UnsupportedError, match="qtensor"):
        read_file(data)


def test_pickled_module_says_how_to_export(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.LSTM(2, 3), path)
    with pytest.raises(ModelFormatError) as caught:
        read_file(path)
    message = str(caught.value)
    assert str(path) in message and "torch.nn.modules.rnn.LSTM" in message
    assert 'torch.save(model.state_dict(), "weights.pt")' in message
    with pytest.raises(ModelFormatError, match=r"under 'model'.*LSTM.*state_dict\(\)"):
        read_file(saved({"model": torch.nn.LSTM(2, 3), "epoch": 1}))


def test_torchscript_is_refused(tmp_path):
    path = str(tmp_path / "script.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ModelFormatError, match=r"script\.pt: a TorchScript.*state_dict\(\)"):
        read_file(path)


def test_older_files_say_how_to_save_again(tmp_path):
    legacy = saved(LSTM, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelFormatError, match=r"before 1\.6.*torch\.save\(torch\.load"):
        read_file(legacy)
    tar = bytearray(1024)
    tar[257:262] = b"ustar"
    with pytest.raises(ModelFormatError, match="tar file"):
        read_file(bytes(tar))
    with pytest.raises(ModelFormatError, match="bare pickle"):
        read_file(b"\x80\x04}.")


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (torch.ones(2), "a single tensor"),
        ([torch.ones(2)], "no dict"),
        ((1, 2), "no dict"),
        (3, "no dict"),
        ({}, "no dict of tensors"),
        ({"a": 1}, "no dict of tensors"),
    ],
)
def test_other_roots(root, message):
    with pytest.raises(ModelFormatError, match=message):
        read_file(saved(root))


# -- archives that torch writes on request, or that were zipped again


def test_without_checksums():
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(LSTM)
    finally:
        torch.serialization.set_crc32_options(before)
    same(read_file(data).tensors, LSTM)


def test_zipped_again():
    with zipfile.ZipFile(io.BytesIO(saved(LSTM))) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    for streamed in (False, True):
        for force in (False, True):
            out = io.BytesIO()
            target = Unseekable(out) if streamed else out
            with zipfile.ZipFile(target, "w") as new:
                new.mkdir("archive") if hasattr(new, "mkdir") else None
                for name, content in contents.items():
                    with new.open(name, "w", force_zip64=force) as file:
                        file.write(content)
            same(read_file(out.getvalue()).tensors, LSTM)


class Unseekable(io.RawIOBase):
    """Makes Python's zipfile stream: sizes go behind the contents."""

    def __init__(self, out):
        self.out = out

    def writable(self):
        return True

    def write(self, data):
        return self.out.write(data)


@pytest.mark.parametrize("dtype", DTYPES)
def test_big_endian_is_swapped(dtype):
    t = random_tensor(dtype, np.random.default_rng(5)).reshape(6, 20)[1:, ::3].t()
    with zipfile.ZipFile(io.BytesIO(saved({"t": t}))) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    contents["archive/byteorder"] = b"big"
    raw = np.frombuffer(contents["archive/data/0"], f"u{t.element_size()}")
    contents["archive/data/0"] = raw.byteswap().tobytes()
    data = make_zip([Item(name, content) for name, content in contents.items()])
    same(read_file(data).tensors, {"t": t})


def test_misaligned_storages_are_copied():
    for shift in range(8):
        items = torch_items(whole({"w": tensor("0", 6, (2, 3), (3, 1))}), {"0": FLOATS})
        items[2].extra = b"\x46\x42" + bytes([shift, 0]) + bytes(shift)
        array = read_file(make_zip(items)).tensors["w"]
        assert array.flags.aligned and array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_thousands_of_small_tensors_are_within_the_limits():
    state = {f"layers.{i}.bias": torch.full((64,), float(i)) for i in range(3000)}
    same(read_file(saved(state)).tensors, state)


def test_from_type_with_another_class_is_unsupported():
    inner = (storage("0", 6), 0, (6,), (1,), False, called("collections", "OrderedDict", ()))
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    for kind, fine in ((("torch", "Tensor"), True), (("my.code", "Tensor"), False)):
        value = called("torch._tensor", "_rebuild_from_type_v2", (rebuild, named(*kind), inner, {}))
        data = torch_file(whole({"w": value}), {"0": FLOATS})
        if fine:
            assert read_file(data).tensors["w"].tolist() == [0, 1, 2, 3, 4, 5]
        else:
            with pytest.raises(UnsupportedError, match=r"my\.code\.Tensor"):
                read_file(data)
