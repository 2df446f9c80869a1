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

from . import _stream, nn, program
from ._core import Model as CoreModel
from ._core import Stream
from .errors import ModelFormatError, ShapeError
from .formats.budget import Budget
from .formats.container import Image, read_image, write_image

CHECK_ROWS = 256  # of a certificate; csrc/src/certificate.c has the same


class Model(CoreModel):
    """Packed weights and a list of layers. Immutable; shared by any number of threads and
    streams. Made by :func:`clstm.load` and its siblings."""

    def __init__(self, image: bytes, **options: Any) -> None:
        self._image = image  # logical weights, for saving and pickling; packed ones are in the core
        self._parsed = read_image(image, "model", Budget(len(image)))
        self._records = self._parsed.records
        self.layers: list[nn.Layer] = program.layers_of(self._records)
        self.recurrent = program.recurrent_of(self._records)
        self.precision: str = "float32"
        self.threads: int = 1
        self.batch_first = any(getattr(layer, "batch_first", False) for layer in self.layers)
        # A bare cell has no layer axis in its state, and a call of it is one step.
        self._bare_cell = len(self.layers) == 1 and isinstance(self.layers[0], nn.LSTMCell)

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
    def output_size(self) -> int:
        """Features of the output."""
        return self.n_output

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
        n = sum(a.size for r in self._records for a in r.tensors.values())
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
        valid step. Returns (y, state); a bare cell returns its state. float32, fresh.
        """
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
            return y[:, 0], states
        return self._sequence(array, state, lengths, self.batch_first, batched=True)

    def _input(self, x: Any) -> np.ndarray:
        if self.n_tokens:
            return _stream.tokens(self, x)
        return _stream.as_float32(_stream.real(x, "x"))

    def _one_step(self, x: Any, state: Any, lengths: Any) -> Any:
        array = self._input(x)
        if lengths is not None:
            raise ShapeError("lengths: a cell takes one step")
        if array.ndim == 3:
            raise ShapeError(
                "x: a bare cell takes one step, (I,) or (B, I); for sequences use nn.LSTM"
            )
        if array.ndim not in (1, 2) or array.shape[-1] != self.input_size:
            raise ShapeError(
                f"x: expected shape ({self.n_input},) or (B, {self.n_input}), got {array.shape}"
            )
        if array.ndim == 1:
            return self._sequence(array[None, None], state, None, False, batched=False)[1]
        return self._sequence(array[None], state, None, False, batched=True)[1]

    def _sequence(
        self, x: np.ndarray, state: Any, lengths: Any, batch_first: bool, batched: bool
    ) -> tuple[np.ndarray, Any]:  # fmt: skip
        """x is (T, B, ...) or (B, T, ...); y likewise; states in torch's shapes."""
        outer, inner = x.shape[:2]
        n_steps, n_batch = (inner, outer) if batch_first else (outer, inner)
        n_out = self.n_output
        flat = np.empty((n_batch, self.n_state), np.float32)
        if state is not None:
            self._flatten(state, flat, batched)
        ends = None if lengths is None else _lengths(lengths, n_steps, n_batch)
        y = np.empty((outer, inner, n_out), np.float32)
        width = self.n_input or 1  # a token is one number
        x_step, x_batch, y_step, y_batch = inner * width, width, inner * n_out, n_out
        if batch_first:
            x_step, x_batch, y_step, y_batch = x_batch, x_step, y_batch, y_step
        self.sequence(x, y, ends, flat, state is not None or not n_batch, n_steps, n_batch,
                      x_step, x_batch, y_step, y_batch)  # fmt: skip
        return y, self._unflatten(flat, batched)

    def _flatten(self, state: Any, into: np.ndarray, batched: bool) -> None:
        """The caller's state into (B, n_state), all checked."""
        n_batch, at = len(into), 0
        for r, pair in zip(self.recurrent, _stream.pairs(self, state), strict=True):
            for word, size, given in zip("hc", (r.n_out, r.n_hidden), pair, strict=True):
                array = _stream.as_float32(_stream.real(given, word))
                rows = () if r.cell else (r.n_cells,)
                shape = (*rows, *([n_batch] if batched else []), size)
                if array.shape != shape:
                    raise ShapeError(f"{word}: expected shape {shape}, got {array.shape}")
                part = array.reshape(r.n_cells, n_batch, size).transpose(1, 0, 2)
                into[:, at : at + r.n_cells * size] = part.reshape(n_batch, r.n_cells * size)
                at += r.n_cells * size

    def _unflatten(self, flat: np.ndarray, batched: bool) -> Any:
        """States (B, n_state) in torch's shapes, each an array of its own."""
        n_batch, at, states = len(flat), 0, []
        for r in self.recurrent:
            pair = []
            for size in (r.n_out, r.n_hidden):
                end = at + r.n_cells * size
                if r.n_cells == 1:
                    array = flat[:, at:end].copy()
                else:
                    cells = flat[:, at:end].reshape(n_batch, r.n_cells, size)
                    array = cells.transpose(1, 0, 2).copy()
                if not batched:
                    array = array.reshape((size,) if r.cell else (r.n_cells, size))
                elif r.n_cells == 1 and not r.cell:
                    array = array[None]
                pair.append(array)
                at = end
            states.append(tuple(pair))
        return _stream.wrapped(states)

    # ---- streams --------------------------------------------------------------------------

    def stream(self, state: Any = None, *, snapshot: bytes | None = None) -> Stream:
        """A new stream: from the initial state, from ``state``, or from a snapshot."""
        if state is not None and snapshot is not None:
            raise ValueError("state and snapshot: give one of them")
        s = Stream(self)
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
        say. At most 256 rows of it (T * B) are stored, and every later load recomputes them.
        The file appears whole or not at all.
        """
        image = Image(self._records, self.n_input, self._parsed.check)
        if check is not None:
            image.check = self._certificate(*check)
        target = Path(path)
        if target.suffix == ".clstm":
            data = write_image(image)
        elif target.suffix == ".safetensors":
            data = _as_safetensors(image, self.layers)
        else:
            raise ValueError(f"{target}: expected a name that ends in .clstm or .safetensors")
        _write(target, data)

    def _certificate(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """x (T, B, I) or (T, B), y (T, B, O), cut to CHECK_ROWS rows."""
        array, expected = self._input(x), _stream.as_float32(_stream.real(y, "y"))
        axes = array.ndim + (self.num_embeddings > 0)
        if self._bare_cell:
            array, expected, axes = array[None], expected[None], axes + 1
        if axes == 2:
            array, expected = array[:, None], expected[:, None]
        elif self.batch_first:
            array, expected = array.swapaxes(0, 1), expected.swapaxes(0, 1)
        want = (*array.shape[:2], self.n_output)
        if expected.shape != want or (self.n_input and array.shape[2:] != (self.n_input,)):
            raise ShapeError(f"check: x {np.shape(x)} and y {np.shape(y)} do not fit this model")
        if not array.size:
            raise ShapeError("check: x is empty")
        if array.shape[1] > CHECK_ROWS or (not self.streamable and want[0] * want[1] > CHECK_ROWS):
            raise ValueError(f"check: at most {CHECK_ROWS} rows (T * B) are stored")
        n_steps = CHECK_ROWS // array.shape[1]
        return np.ascontiguousarray(array[:n_steps]), np.ascontiguousarray(expected[:n_steps])

    def __reduce__(self) -> Any:
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
    if isinstance(layer, nn.LSTM):
        assert layer.proj_size is not None and layer.num_layers is not None
        more = f" x{layer.num_layers}" if layer.num_layers > 1 else ""
        more += " bidirectional" if layer.bidirectional else ""
        more += f" proj={layer.proj_size}" if layer.proj_size else ""
        return f"LSTM({layer.input_size}->{layer.hidden_size}{more})"
    if isinstance(layer, nn.LSTMCell | nn.Linear | nn.Embedding):
        return f"{type(layer).__name__}({record.dims[0]}->{record.dims[1]})"
    return type(layer).__name__


def _as_safetensors(image: Image, layers: list[nn.Layer]) -> bytes:
    from safetensors.numpy import save

    tensors = {name: a for r in image.records for name, a in r.tensors.items()}
    if len(tensors) != sum(len(r.tensors) for r in image.records):
        raise ModelFormatError("two layers share a tensor's name; save as .clstm")
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
