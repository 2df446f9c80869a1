# SPDX-License-Identifier: MIT
"""Pieces of torch archives that are wrong, and how to see what is made of them."""

import gc
import io
import pickletools
import tracemalloc

import pytest
from filemaker import (
    FLOATS,
    Raw,
    called,
    named,
    pickled,
    storage,
    tensor,
    torch_file,
    whole,
)

from clstm.errors import ClstmError, ModelFormatError, UnsupportedError
from clstm.formats import read_file

PROTO = b"\x80\x02"
PROTO5 = b"\x80\x05"
W = tensor("0", 6, (2, 3), (3, 1))
HOOKS = called("collections", "OrderedDict", ())


def refused(data, message=None, error=ModelFormatError):
    with pytest.raises(error, match=message) as caught:
        read_file(data)
    text = str(caught.value)
    assert text.startswith("<bytes>: ") and "\n" not in text and len(text) < 700
    return text


def of_pickle(pickle, **storages):
    return torch_file(pickle, storages or {"0": FLOATS})


def peak_of(function):
    """The result or error of a call, and its peak of memory."""
    gc.collect()
    tracemalloc.start()
    try:
        result = function()
    except ClstmError as error:
        result = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return result, peak


OPCODES = {op.name: op for op in pickletools.opcodes}
ACCEPTED = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1",
    "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "APPEND", "APPENDS", "ADDITEMS",
    "FROZENSET", "SETITEM", "SETITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
    "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID",
}  # fmt: skip
OPERANDS = {
    "PROTO": b"\x02", "FRAME": bytes(8), "BININT": bytes(4), "BININT1": b"\1", "BININT2": b"\1\0",
    "LONG1": b"\1\5", "BINFLOAT": bytes(8), "BINUNICODE": b"\1\0\0\0x",
    "SHORT_BINUNICODE": b"\1x", "BINUNICODE8": b"\1" + bytes(7) + b"x", "SHORT_BINBYTES": b"\1x",
    "BINBYTES": b"\1\0\0\0x", "BINBYTES8": b"\1" + bytes(7) + b"x",
    "BYTEARRAY8": b"\1" + bytes(7) + b"x", "BINGET": b"\7", "LONG_BINGET": b"\7\0\0\0",
    "BINPUT": b"\0", "LONG_BINPUT": b"\0\0\0\0", "GLOBAL": b"os\nsystem\n", "INT": b"1\n",
    "LONG": b"1L\n", "LONG4": b"\1\0\0\0\1", "STRING": b"'x'\n", "BINSTRING": b"\1\0\0\0x",
    "SHORT_BINSTRING": b"\1x", "UNICODE": b"x\n", "FLOAT": b"1.5\n", "GET": b"0\n",
    "PUT": b"0\n", "PERSID": b"x\n", "INST": b"os\nsystem\n", "EXT1": b"\1", "EXT2": b"\1\0",
    "EXT4": b"\1\0\0\0",
}  # fmt: skip
PUSH_ONLY = {
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "GLOBAL", "MARK",
    "PROTO", "FRAME",
}  # fmt: skip
WRONG = {
    "none": b"NNNN", "mark": b"(NNNN", "texts": pickled("a") * 4, "ints": pickled(1) * 4,
    "lists": b"]]]]", "dicts": b"}}}}", "names": named("os", "system") * 4, "tuples": b"))))",
    "storages": storage("0", 6) * 4, "tensors": W * 4,
}  # fmt: skip


def opcode_of(name):
    return OPCODES[name].code.encode("latin-1") + OPERANDS.get(name, b"")


def valid_pickles():
    out = [whole({"w": W, "b": tensor("0", 6, (2,), (1,), 4)})]
    parameter = called("torch._utils", "_rebuild_parameter", (W, True, HOOKS))
    ordered = Raw(HOOKS + b"(" + pickled("w") + W + b"u" + pickled({"_metadata": {}}) + b"b")
    out.append(whole({"model": ordered, "args": [1, (2.5, None)], "p": {"x": parameter}}))
    out.append(
        b"\x80\x04}q\0(" + pickled("w") + b"r\1\0\0\0" + W + b"\x94h\1j\1\0\0\0\x86\x8c\1ah\0u."
    )
    return out


def boundaries(pickle):
    return [at for _, _, at in pickletools.genops(pickle)]


def agrees_with_torch(data):
    """Whether `data` is read. Where torch reads it too, it must read the same."""
    try:
        ours = read_file(data).tensors
    except (ModelFormatError, UnsupportedError):
        return False
    torch = pytest.importorskip("torch")
    try:
        root = torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # torch refuses some files that hold unknown classes, in many ways
        return True
    state = root
    if not any(isinstance(value, torch.Tensor) for value in root.values()):
        state = root["model"]
    theirs = {k: v.detach().contiguous() for k, v in state.items() if hasattr(v, "detach")}
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        if value.dtype is torch.bfloat16:
            value = value.float()
        assert ours[name].tobytes() == value.numpy().tobytes()
    return True


def real_file():
    torch = pytest.importorskip("torch")
    out = io.BytesIO()
    torch.save(torch.nn.LSTMCell(1, 1).state_dict(), out)
    return out.getvalue()
