# SPDX-License-Identifier: MIT
"""A model in Python: what torch's call returns, streams, saving."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import _certificate, _packed, _several, _stream, nn, program
from ._core import Model as CoreModel
from ._core import Stream
from .errors import ModelFormatError, ShapeError
from .formats.budget import Budget
from .formats.container import Image, read_image, write_image

_CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


class Model(CoreModel):
    """Packed weights and a list of layers. Immutable; shared by any number of threads and
    streams. Made by :func:`clstm.load` and its siblings. It pickles without kernel, gemm and
    threads, for the other machine may be another: there they are chosen anew, one thread."""

    def __init__(self, image: bytes, **options: Any) -> None:
        self._image = image  # logical weights, for saving and pickling; packed ones are in the core
        self._parsed = read_image(image, "model", Budget(len(image)))
        self._records = self._parsed.records
        self.layers: list[nn.Layer] = program.layers_of(self._records)
        self.recurrent = program.recurrent_of(self._records)
        # Of each array of the state: its name, cells and width, and whether it lacks their axis.
        self.parts = [(*part, r.cell) for r in self.recurrent for part in r.parts]
        self.outputs = program.outputs_of(self._records, self.n_output)
        self.precision: str = "float32"
        self.batch_first = any(getattr(layer, "batch_first", False) for layer in self.layers)
        # A bare cell has no layer axis in its state, and a call of it is one step.
        self._bare_cell = len(self.layers) == 1 and isinstance(self.layers[0], _CELLS)

    # ---- about ------------------------------------------------------------------------

    @property
    def input_size(self) -> int | None:
        """Features of the input; None for a model of tokens."""
        return self.n_input or None

    @property
    def num_embeddings(self) -> int:
        """Number of tokens; 0 for a model that takes none."""
        return self.n_tokens

    @property
    def output_size(self) -> int | tuple[int, ...]:
        """Features of the output; of several outputs a tuple."""
        widths = self.outputs.widths
        return widths if len(widths) > 1 else widths[0]

    @cached_property
    def weights_fingerprint(self) -> bytes:
        return program.fingerprint(self._records)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of layers, logical weights and precision: the same for every file format,
        kernel, gemm and thread count."""
        return hashlib.sha256(self.weights_fingerprint + self.precision.encode()).hexdigest()

    def __repr__(self) -> str:
        words = [_shown(layer, r) for layer, r in zip(self.layers, self._records, strict=True)]
        n = sum(a.size for r in self._records for a in program.weights_of(r).values())
        return (
            f"clstm.Model({' + '.join(words)} | {n:,} parameters | {self.precision} | "
            f"kernel={self.kernel} gemm={self.gemm} | {self.nbytes / 1024:,.0f} KiB)"
        )

    # ---- whole sequences ----------------------------------------------------------------

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> Any:
        """Whole sequences, with the meaning of ``torch.nn``.

        x: (T, B, I), (B, T, I) with batch_first, or (T, I); tokens (T, B), (B, T) or (T,); a
        bare cell takes one step, (I,) or (B, I). state: as returned, or None for the initial
        one. lengths (B,): rows of y past a length are 0, h_n is the state after the last
        valid step. A PackedSequence gives one again, and states in the order of the sequences
        before they were packed. Returns (y, state), of several outputs y a tuple; a bare cell
        returns its state. float32, fresh.
        """
        if _packed.is_packed(x):
            return self._call_packed(x, state, lengths)
        if self._bare_cell:
            return self._one_step(x, state, lengths)
        array, tokens = self._input(x), self.n_tokens > 0
        axes = array.ndim + tokens  # as if tokens had features
        if axes not in (2, 3) or (not tokens and array.shape[-1] != self.n_input):
            shapes = (
                "(T,), (T, B)" if tokens else f"(T, {self.input_size}), (T, B, {self.input_size})"
            )
            raise ShapeError(f"x: expected shape {shapes}, got {array.shape}")
        if axes == 2:
            if lengths is not None:
                raise ShapeError("lengths: x has no batch")
            y, states = self._sequence(array[:, None], state, None, False, batched=False)
            return _several.finish(self, y, None, 0, batched=False), states
        ends = None if lengths is None else _lengths(lengths, *self._steps_and_batch(array))
        y, states = self._sequence(array, state, ends, self.batch_first, batched=True)
        return _several.finish(self, y, ends, 1 if self.batch_first else 0), states

    def every_step(self, x: np.ndarray) -> np.ndarray:
        """All outputs side by side, (T, B, O), of x (T, B, I) or (T, B), from the initial state:
        what a certificate holds."""
        y: np.ndarray = self._sequence(self._input(x), None, None, False, batched=True)[0]
        return y

    def _steps_and_batch(self, x: np.ndarray) -> tuple[int, int]:
        return (x.shape[1], x.shape[0]) if self.batch_first else (x.shape[0], x.shape[1])

    def _call_packed(self, x: Any, state: Any, lengths: Any) -> Any:
        if lengths is not None:
            raise ShapeError("lengths: a PackedSequence has its own")
        if self._bare_cell:
            raise ShapeError(f"x: a bare cell takes one step; for sequences use {self._over_time}")
        rows = self._input(x.data)
        if rows.shape[1:] != (() if self.n_tokens else (self.n_input,)):
            expected = "(N,)" if self.n_tokens else f"(N, {self.n_input})"
            raise ShapeError(f"x: expected packed rows of shape {expected}, got {rows.shape}")
        packed = _packed.unpack(x)
        ends = packed.lengths.astype(np.uintp)
        y, states = self._sequence(packed.padded(rows), state, ends, False, batched=True)
        parts = _several.finish(self, y, ends, 0)
        if not isinstance(parts, tuple):
            parts = (parts,)
        found = tuple(
            part if last else packed.pack(part)
            for part, last in zip(parts, self.outputs.last, strict=True)
        )
        return found if len(found) > 1 else found[0], states

    def _input(self, x: Any) -> np.ndarray:
        if self.n_tokens:
            return _stream.tokens(self, x)
        return _stream.as_float32(_stream.real(x, "x"))

    @property
    def _over_time(self) -> str:
        """What a bare cell is of."""
        return f"nn.{type(self.layers[0]).__name__.removesuffix('Cell')}"

    def _one_step(self, x: Any, state: Any, lengths: Any) -> Any:
        array = self._input(x)
        if lengths is not None:
            raise ShapeError("lengths: a cell takes one step")
        if array.ndim == 3:
            raise ShapeError(
                "x: a bare cell takes one step, (I,) or (B, I); for sequences use "
                f"{self._over_time}"
            )
        if array.ndim not in (1, 2) or array.shape[-1] != self.input_size:
            raise ShapeError(
                f"x: expected shape ({self.n_input},) or (B, {self.n_input}), got {array.shape}"
            )
        if array.ndim == 1:
            return self._sequence(array[None, None], state, None, False, batched=False)[1]
        return self._sequence(array[None], state, None, False, batched=True)[1]

    def _sequence(
        self, x: np.ndarray, state: Any, ends: Any, batch_first: bool, batched: bool
    ) -> tuple[Any, Any]:  # fmt: skip
        """x is (T, B, ...) or (B, T, ...); y likewise; states in torch's shapes."""
        n_batch = x.shape[0 if batch_first else 1]
        shapes = _stream.shapes_of(self, n_batch if batched else None)
        given = None
        if state is not None:
            also = shapes
            if not batched:  # a cell's x (1, I) is one step here, a batch of 1 where it was trained
                also = [(1, *s) if len(s) == 1 else s for s in shapes]
            given = _stream.checked(self, state, shapes, also)
        y, parts = self.sequence(x, batch_first, ends, given, shapes)
        return y, _stream.wrapped(self, parts)

    # ---- streams --------------------------------------------------------------------------

    def stream(self, state: Any = None, *, snapshot: bytes | None = None) -> Stream:
        """A new stream: from the initial state, from ``state``, or from a snapshot."""
        if state is not None and snapshot is not None:
            raise ValueError("state and snapshot: give one of them")
        s = (_several.SeveralStream if len(self.outputs.widths) > 1 else Stream)(self)
        if state is not None:
            s.state = state
        if snapshot is not None:
            s._restore(snapshot)
        return s

    # ---- files ------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, check: tuple[Any, Any] | None = None) -> None:
        """Write layers and weights to one file: ``.clstm``, for Python and C, or
        ``.safetensors`` with the layers in its metadata.

        check: (x, y), an input of ``m(x)`` and its expected output, as another engine gave it,
        say; of several outputs a tuple. Where the model gives other numbers, ValueError, and no
        file. At most 256 rows of it (T * B) are stored, with outputs of the last step those of
        the steps before it too, and every later load recomputes them. The file appears whole
        or not at all.
        """
        image = Image(self._records, self.n_input, self._parsed.check)
        if check is not None:
            image.check = _certificate.certificate(self, check)
            CoreModel(write_image(image))  # what no load would take is not written
        target = Path(path)
        if target.suffix == ".clstm":
            data = write_image(image)
        elif target.suffix == ".safetensors":
            data = _as_safetensors(image, self.layers)
        else:
            raise ValueError(f"{target}: expected a name that ends in .clstm or .safetensors")
        _write(target, data)

    def __reduce__(self) -> Any:
        """Layers and weights; what depends on the machine is chosen where it is unpickled."""
        return Model, (self._image,)


def _lengths(lengths: Any, n_steps: int, n_batch: int) -> np.ndarray:
    array = np.asarray(lengths)
    if array.shape != (n_batch,) or (array.size and array.dtype.kind not in "iu"):
        raise ShapeError(
            f"lengths: expected integers of shape ({n_batch},), got {array.shape} {array.dtype}"
        )
    if array.size and (array.min() < 0 or array.max() > n_steps):
        raise ShapeError(f"lengths: expected 0 ... {n_steps}, got {array.min()} ... {array.max()}")
    return array.astype(np.uintp)


def _shown(layer: nn.Layer, record: Any) -> str:
    """A layer in a line: LSTM(24->64 x2)."""
    name = type(layer).__name__
    if isinstance(layer, nn.LSTM | nn.GRU | nn.RNN):
        more = f" x{layer.num_layers}" if (layer.num_layers or 1) > 1 else ""
        more += " bidirectional" if layer.bidirectional else ""
        proj = getattr(layer, "proj_size", 0)
        more += f" proj={proj}" if proj else ""
        return f"{name}({layer.input_size}->{layer.hidden_size}{more}{_words(layer)})"
    if isinstance(layer, _CELLS):
        return f"{name}({layer.input_size}->{layer.hidden_size}{_words(layer)})"
    if isinstance(layer, nn.Linear | nn.Embedding):
        return f"{name}({record.dims[0]}->{record.dims[1]})"
    return name


def _words(layer: nn.Layer) -> str:
    """The names of the options that change what a recurrent layer computes."""
    plain = {"prefix", "batch_first", "h0", "c0"}
    words = [f"{k}={v}" if isinstance(v, str) or v is False else k
             for k, v in layer.options().items() if k not in plain]  # fmt: skip
    return "".join(f" {word}" for word in words)


def _as_safetensors(image: Image, layers: list[nn.Layer]) -> bytes:
    from safetensors.numpy import save

    weights = [program.weights_of(r) for r in image.records]
    tensors = {name: a for arrays in weights for name, a in arrays.items()}
    if len(tensors) != sum(map(len, weights)):
        raise ModelFormatError("two layers share a tensor's name; save as .clstm")
    if not program.tells_all(image.records):
        raise ModelFormatError("its layers are wired in a way of their own; save as .clstm")
    if image.check:
        tensors |= {"clstm.check.x": image.check[0], "clstm.check.y": image.check[1]}
    # one entry: the writer orders several at random
    return save(tensors, {"clstm.layers": program.layers_to_json(layers)})


def _write(target: Path, data: bytes) -> None:
    """Whole or not at all: a temporary file beside it, synced, then renamed over it."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 is for secrets
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
