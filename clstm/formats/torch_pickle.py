# SPDX-License-Identifier: MIT
"""A symbolic reader of the pickle inside a `torch.save` file.

It runs the pickle machine over inert records: a name in the file becomes a `Name`, a call
becomes a `Tensor` (for the few functions by which torch rebuilds tensors) or an `Opaque`.
Nothing is imported, looked up or called, whatever the file says.

The operands are read here and not by `pickletools.genops`, which decodes an operand before its
opcode can be refused: a text of gigabytes, an integer of megabytes. Of values that no state
dict needs (lists, floats, bytes, long texts) only their presence is kept, so that memory stays
near the size of the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass

from clstm.errors import ModelFormatError

from .source import Source, shown
from .torch_rebuild import is_rebuild, rebuild
from .torch_records import (
    LIST,
    ORDERED_DICT,
    SET,
    STORAGES,
    VALUE,
    Dict,
    Inert,
    Name,
    Opaque,
    Storage,
    Tensor,
    Unreadable,
)

_MAX_TEXT = 4096  # longer ones are no names; they are skipped, not kept
_MAX_LINE = 512
_MAX_MEMO = 1_000_000
_MAX_MARKS = 1000

# The time limit: about a second per 64 MiB of file. It bounds the depth of the stack as well.
_BASE_OPS = 1 << 18

# The memory limit: what the records of a hostile file may take beside the file itself.
_BASE_BYTES = 9 << 19


_OPCODES = {ord(op.code): op for op in pickletools.opcodes}


@dataclass(frozen=True, slots=True)
class Pickle:
    """What a pickle holds: its root and every storage that it speaks of, by key."""

    root: object
    storages: dict[str, Storage]


def read_pickle(source: Source, start: int, end: int) -> Pickle:
    """Read the pickle that fills `source.data[start:end]`."""
    machine = _Machine(source, start, end)
    return Pickle(machine.run(), machine.storages)


class _Machine:
    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.data = source.data
        self.start = self.at = self.opcode_at = start
        self.end = end
        self.protocol = 0
        self.stack: list[object] = []  # since the last mark
        self.marked: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}
        self.names: dict[tuple[str, str], Name] = {}
        self.storages: dict[str, Storage] = {}
        self.ops_left = _BASE_OPS + len(self.data) // 256
        self.bytes_left = _BASE_BYTES + len(self.data)

    def run(self) -> object:
        data, handlers = self.data, _ONLY_PROTO
        while True:
            if self.at >= self.end:
                raise self.fault("the pickle ends without STOP")
            opcode = data[self.at]
            self.opcode_at = self.at
            self.at += 1
            self.ops_left -= 1
            if self.ops_left < 0 or self.bytes_left < 0:
                raise self.fault("too many objects; save the state dict alone")
            handler = handlers.get(opcode)
            if handler is None:
                raise self.fault(
                    f"this opcode is not read in protocol {self.protocol}"
                    if self.protocol
                    else "expected PROTO first"
                )
            handler(self)
            if handlers is _ONLY_PROTO:
                handlers = _HANDLERS[self.protocol]
            elif opcode == 0x2E:
                return self.stack[0]

    # -- operands and the stack

    def fault(self, message: str) -> ModelFormatError:
        opcode = self.data[self.opcode_at] if self.opcode_at < self.end else 0
        name = _OPCODES[opcode].name if opcode in _OPCODES else f"byte {opcode:#04x}"
        return self.source.fault(f"data.pkl, {name} at {self.opcode_at - self.start}: {message}")

    def take(self, n: int) -> bytes:
        at = self.at
        self.skip(n)
        return self.data[at : self.at]

    def skip(self, n: int) -> None:
        if n > self.end - self.at:
            raise self.fault("the operand is cut short")
        self.at += n

    def uint(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def line(self) -> str:
        stop = self.data.find(b"\n", self.at, min(self.end, self.at + _MAX_LINE))
        if stop < 0:
            raise self.fault("a name is cut short or too long")
        raw, self.at = self.data[self.at : stop], stop + 1
        return self.decode(raw)

    def decode(self, raw: bytes) -> str:
        try:
            # "surrogatepass" as the pickle module has it: such texts are legal there.
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self.fault("a text is not UTF-8") from None

    def charge(self, n_bytes: int) -> None:
        self.bytes_left -= n_bytes

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if not self.stack:
            raise self.fault("the stack is empty")
        return self.stack.pop()

    def top(self) -> object:
        if not self.stack:
            raise self.fault("the stack is empty")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        if not self.marked:
            raise self.fault("no mark is set")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def pop_name(self) -> Name:
        value = self.pop()
        if not isinstance(value, Name):
            raise self.fault("expected the name of a class or function")
        return value

    def pop_tuple(self) -> tuple[object, ...]:
        value = self.pop()
        if not isinstance(value, tuple):
            raise self.fault("expected a tuple")
        return value

    # -- one method per opcode, or per family of them

    def op_proto(self) -> None:
        version = self.uint(1)
        if self.protocol or not 2 <= version <= 5:
            raise self.fault("expected one PROTO of version 2 to 5")
        self.protocol = version

    def op_frame(self) -> None:
        if self.uint(8) > self.end - self.at:
            raise self.fault("the frame is cut short")

    def op_stop(self) -> None:
        if len(self.stack) != 1 or self.marked:
            raise self.fault("expected exactly one object")
        if self.at != self.end:
            raise self.fault("bytes follow the object")

    def op_mark(self) -> None:
        if len(self.marked) >= _MAX_MARKS:
            raise self.fault("nested too deeply")
        self.marked.append(self.stack)
        self.stack = []

    def op_int(self, n_bytes: int, signed: bool = False) -> None:
        self.charge(32)
        self.push(int.from_bytes(self.take(n_bytes), "little", signed=signed))

    def op_long1(self) -> None:
        n = self.uint(1)
        if n > 8:  # a seed or the like; shapes fit 64 bits
            self.skip(n)
            self.push(VALUE)
        else:
            self.op_int(n, signed=True)

    def op_text(self, n_length: int) -> None:
        n = self.uint(n_length)
        if n > _MAX_TEXT:
            self.skip(n)
            self.push(VALUE)
            return
        text = self.decode(self.take(n))
        self.charge(64 + len(text) * (1 if text.isascii() else 4))
        self.push(text)

    def op_blob(self, n_length: int) -> None:
        self.skip(self.uint(n_length))
        self.push(VALUE)

    def op_float(self) -> None:
        self.skip(8)
        self.push(VALUE)

    def op_tuple(self, n: int) -> None:
        if len(self.stack) < n:
            raise self.fault("the stack is empty")
        self.charge(48 + 8 * n)
        values = tuple(self.stack[len(self.stack) - n :])
        del self.stack[len(self.stack) - n :]
        self.push(values)

    def op_tuple_mark(self) -> None:
        values = self.pop_mark()
        self.charge(48 + 8 * len(values))
        self.push(tuple(values))

    def op_dict(self) -> None:
        self.charge(130)
        self.push(Dict())

    def op_append(self) -> None:
        self.pop()
        self.check_sequence(LIST)

    def op_appends(self) -> None:
        self.pop_mark()
        self.check_sequence(LIST)

    def op_additems(self) -> None:
        self.pop_mark()
        self.check_sequence(SET)

    def check_sequence(self, kind: Inert) -> None:
        target = self.top()
        if target is not kind and not isinstance(target, Opaque):
            raise self.fault(f"expected a {kind.what} to add to")

    def op_frozenset(self) -> None:
        self.pop_mark()
        self.push(VALUE)

    def op_setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_item(self.top(), key, value)

    def op_setitems(self) -> None:
        values = self.pop_mark()
        target = self.top()
        if len(values) % 2:
            raise self.fault("a key has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            self.set_item(target, key, value)

    def set_item(self, target: object, key: object, value: object) -> None:
        if isinstance(target, Opaque):
            return
        if not isinstance(target, Dict):
            raise self.fault("expected a dict to set an item of")
        if isinstance(key, str):
            if key in target.items:
                raise self.fault(f"two items under the key {shown(key)}")
            self.charge(100)
            target.items[key] = value
        elif isinstance(key, Dict | Storage) or key is LIST or key is SET:
            raise self.fault("a key of a dict is no plain value")
        elif isinstance(value, Tensor | Unreadable):
            target.has_other_tensors = True

    def op_get(self, n_bytes: int) -> None:
        index = self.uint(n_bytes)
        if index not in self.memo:
            raise self.fault(f"nothing was memoized under {index}")
        self.push(self.memo[index])

    def op_put(self, n_bytes: int) -> None:
        self.memoize(self.uint(n_bytes))

    def op_memoize(self) -> None:
        self.memoize(len(self.memo))

    def memoize(self, index: int) -> None:
        if index > _MAX_MEMO:
            raise self.fault(f"memo index {index} is beyond {_MAX_MEMO}")
        self.charge(100)
        self.memo[index] = self.top()

    def op_global(self) -> None:
        module = self.line()
        self.push_name(module, self.line())

    def op_stack_global(self) -> None:
        attr, module = self.pop(), self.pop()
        if not isinstance(attr, str) or not isinstance(module, str):
            raise self.fault("expected the texts of a module and a name")
        self.push_name(module, attr)

    def push_name(self, module: str, attr: str) -> None:
        name = self.names.get((module, attr))
        if name is None:
            self.charge(400 + 4 * (len(module) + len(attr)))
            name = self.names[module, attr] = Name(module, attr)
        self.push(name)

    def op_newobj(self) -> None:
        self.pop_tuple()
        self.push_opaque(self.pop_name())

    def op_newobj_ex(self) -> None:
        if not isinstance(self.pop(), Dict):
            raise self.fault("expected a dict of arguments")
        self.op_newobj()

    def op_build(self) -> None:
        self.pop()  # attributes, such as `_metadata` of a state dict
        if not isinstance(self.top(), Dict | Opaque | Unreadable):
            raise self.fault("expected an object to set attributes of")

    def op_persid(self) -> None:
        match self.pop():
            case ("storage", Name() as kind, str() as key, str(), int() as n) if n >= 0:
                pass
            case _:
                raise self.fault("expected the id of a storage")
        if kind not in STORAGES:
            raise self.fault(f"unknown storage class {shown(str(kind))}")
        if type(n) is not int:
            raise self.fault("expected the id of a storage")
        storage = Storage(key, kind, STORAGES[kind], n)
        known = self.storages.setdefault(key, storage)
        if known != storage:
            raise self.fault(f"storage {shown(key)} is declared in two ways")
        self.charge(180)
        self.push(known)

    def op_reduce(self) -> None:
        args = self.pop_tuple()
        function = self.pop_name()
        if function == ORDERED_DICT:
            if args:  # Python 3 writes the items behind it
                raise self.fault("an OrderedDict with arguments")
            self.op_dict()
        elif is_rebuild(function):
            self.charge(100)
            self.push(rebuild(function, args, self.fault))
        else:
            self.push_opaque(function)

    def push_opaque(self, made_by: Name) -> None:
        self.charge(80)
        self.push(Opaque(made_by))


def _pushing(value: object) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value)


_READ: dict[int, Callable[[_Machine], None]] = {
    ord(code): handler
    for code, handler in {
        "\x80": _Machine.op_proto,
        "\x95": _Machine.op_frame,
        ".": _Machine.op_stop,
        "(": _Machine.op_mark,
        "N": _pushing(VALUE),  # NONE
        "\x88": _pushing(True),
        "\x89": _pushing(False),
        "K": lambda m: m.op_int(1),
        "M": lambda m: m.op_int(2),
        "J": lambda m: m.op_int(4, signed=True),
        "\x8a": _Machine.op_long1,
        "G": _Machine.op_float,
        "X": lambda m: m.op_text(4),
        "\x8c": lambda m: m.op_text(1),
        "\x8d": lambda m: m.op_text(8),
        "C": lambda m: m.op_blob(1),
        "B": lambda m: m.op_blob(4),
        "\x8e": lambda m: m.op_blob(8),
        "\x96": lambda m: m.op_blob(8),
        ")": _pushing(()),
        "\x85": lambda m: m.op_tuple(1),
        "\x86": lambda m: m.op_tuple(2),
        "\x87": lambda m: m.op_tuple(3),
        "t": _Machine.op_tuple_mark,
        "}": _Machine.op_dict,
        "]": _pushing(LIST),
        "\x8f": _pushing(SET),
        "a": _Machine.op_append,
        "e": _Machine.op_appends,
        "\x90": _Machine.op_additems,
        "\x91": _Machine.op_frozenset,
        "s": _Machine.op_setitem,
        "u": _Machine.op_setitems,
        "h": lambda m: m.op_get(1),
        "j": lambda m: m.op_get(4),
        "q": lambda m: m.op_put(1),
        "r": lambda m: m.op_put(4),
        "\x94": _Machine.op_memoize,
        "c": _Machine.op_global,
        "\x93": _Machine.op_stack_global,
        "R": _Machine.op_reduce,
        "\x81": _Machine.op_newobj,
        "\x92": _Machine.op_newobj_ex,
        "b": _Machine.op_build,
        "Q": _Machine.op_persid,
    }.items()
}

# An opcode younger than the protocol that the file declares is out of place.
_HANDLERS = {
    version: {
        opcode: handler for opcode, handler in _READ.items() if _OPCODES[opcode].proto <= version
    }
    for version in range(2, 6)
}
_ONLY_PROTO = {0x80: _READ[0x80]}
