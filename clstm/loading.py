# SPDX-License-Identifier: MIT
"""From files, state dicts and live modules to models."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import nn, program
from ._core import DefaultMode
from .errors import ModelFormatError, UnsupportedError
from .formats import DEFAULT_MAX_BYTES, Weights, read_file
from .formats.container import Image, write_image
from .formats.source import SourceLike
from .guess import guess
from .model import Model


def load(
    source: SourceLike,
    *,
    layers: Sequence[nn.Layer] | None = None,
    strict: bool = True,
    key: str | None = None,
    precision: str = "float32",
    threads: int = 1,
    gemm: str | None = None,
    kernel: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    external_data: bool = False,
    states: Sequence[tuple[str, str]] | None = None,
) -> Model:
    """Load a model: a path, bytes or a binary file object; told by content, then by suffix.

    ``.pt .pth .ckpt`` (torch.save, read without torch), ``.safetensors``, ``.npz``, ``.onnx``,
    or a file that :meth:`Model.save` wrote. layers: what the model is, unless the tensors are
    exactly one recurrent module. strict=False ignores tensors that no layer takes. key: which state
    dict of a checkpoint. gemm: "auto", "packed" or "blas"; kernel: see
    :func:`clstm.available_kernels`; both else from CLSTM_GEMM and CLSTM_KERNEL. max_bytes
    limits the tensors. Of ONNX files, which tell their layers themselves (extra "onnx"):
    external_data=True also reads tensors that lie in files beside the model; states pairs its
    state inputs with its outputs by name, where they are not told by name or position.
    Raises ModelFormatError, UnsupportedError, ValueError or OSError.
    """
    with DefaultMode():
        weights = read_file(
            source, key=key, max_bytes=max_bytes, external_data=external_data, states=states
        )
        with naming(weights.name):
            image = image_of(weights, layers, strict)
            return build(image, precision=precision, threads=threads, gemm=gemm, kernel=kernel)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors about what a file holds say which file."""
    try:
        yield
    except (ModelFormatError, UnsupportedError) as error:
        if str(error).startswith(name):
            raise
        raise type(error)(f"{name}: {error}") from None


def is_ours(weights: Weights) -> bool:
    """Whether the file holds its layers: :meth:`Model.save` wrote it, or it is an ONNX file."""
    layers = weights.image is not None or weights.layers is not None
    return layers or "clstm.layers" in weights.metadata


def image_of(weights: Weights, layers: Sequence[nn.Layer] | None, strict: bool) -> Image:
    """Records and certificate of what was read, nothing of it packed or run yet."""
    if is_ours(weights) and layers is not None:
        raise ValueError(f"{weights.name} holds its layers; layers= is for files of other origin")
    if weights.image is not None:
        return weights.image
    if weights.layers is not None:
        return _image(weights.tensors, weights.layers, strict=True)
    if not is_ours(weights):
        return _image(weights.tensors, layers, strict)
    tensors = dict(weights.tensors)
    check = tensors.pop("clstm.check.x", None), tensors.pop("clstm.check.y", None)
    found = program.layers_from_json(weights.metadata["clstm.layers"], weights.name)
    try:
        records, input_size = program.bind(found, tensors, strict=True)
    except (ModelFormatError, UnsupportedError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ModelFormatError(f"{weights.name}: layers in its metadata: {error}") from None
    if (check[0] is None) != (check[1] is None):
        raise ModelFormatError("half a certificate")
    image = Image(records, input_size)
    if check[0] is not None and check[1] is not None:
        image.check = _certificate(check[0], check[1])
    return image


def _image(
    tensors: Mapping[str, np.ndarray], layers: Sequence[nn.Layer] | None, strict: bool
) -> Image:
    if isinstance(layers, nn.Layer):
        layers = [layers]
    if layers is None:
        layers = guess(tensors, strict)
    return Image(*program.bind(list(layers), tensors, strict))


def _certificate(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if x.dtype not in (np.float32, np.int64) or y.dtype != np.float32 or max(x.ndim, y.ndim) > 4:
        raise ModelFormatError("its certificate is neither float32 nor int64")
    return x, y


def from_state_dict(
    mapping: Mapping[str, Any],
    *,
    layers: Sequence[nn.Layer] | None = None,
    strict: bool = True,
    **options: Any,
) -> Model:
    """Make a model of a state dict: names to NumPy arrays, or to anything with
    ``detach().cpu().numpy()`` or ``__array__``; bfloat16 torch tensors included. The options
    are those of :func:`load`."""
    _refuse_unknown("from_state_dict", options)
    options.pop("max_bytes", None)
    if not isinstance(mapping, Mapping):
        raise TypeError(f"expected a state dict, got {type(mapping).__name__}")
    with DefaultMode():
        tensors = {str(name): _tensor(str(name), value) for name, value in mapping.items()}
        return build(_image(tensors, layers, strict), **options)


_OPTIONS_OF_BUILD = ("gemm", "kernel", "max_bytes", "precision", "threads")
_MOST_THREADS = 256  # csrc/src/model.c has the same


def _refuse_unknown(function: str, options: Mapping[str, Any], *more: str) -> None:
    """Options that a public function has not, by its own name."""
    known = (*more, *_OPTIONS_OF_BUILD)
    for name in options:
        if name not in known:
            raise TypeError(
                f"{function}() has no option {name}=; those beside its arguments are "
                f"{', '.join(known)}"
            )


def _tensor(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        raise ModelFormatError(f"{name}: a dict, not a tensor; pass mapping[{name!r}] if it is one")
    try:
        return program.as_array(value)
    except (TypeError, NotImplementedError) as error:
        raise ModelFormatError(f"{name}: {error}") from None


def build(
    image: Image,
    *,
    precision: str = "float32",
    threads: int = 1,
    gemm: str | None = None,
    kernel: str | None = None,
) -> Model:
    """The model of an image, packed by the core."""
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads={threads!r}: expected an integer from 1 on")
    if threads > _MOST_THREADS:
        raise ValueError(f"threads={threads}: at most {_MOST_THREADS}")
    word = gemm if gemm is not None else os.environ.get("CLSTM_GEMM")
    return Model(
        write_image(image),
        precision=precision,
        threads=threads,
        gemm=gemm,
        kernel=kernel,
        blas="\n".join(numpy_blas()) if word == "blas" else None,
    )


def numpy_blas() -> list[str]:
    """Paths of the OpenBLAS that NumPy's wheel brings, if it does."""
    package = os.path.dirname(np.__file__)
    folders = (package + ".libs", os.path.join(package, ".dylibs"))
    return sorted(p for f in folders for p in glob.glob(os.path.join(glob.escape(f), "*openblas*")))


# ---- live modules -------------------------------------------------------------------------

# The attributes of torch's modules that a description needs.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "LSTM": ("batch_first",), "LSTMCell": (), "GRU": ("batch_first",), "GRUCell": (),
    "RNN": ("nonlinearity", "batch_first"), "RNNCell": ("nonlinearity",),
    "Linear": (), "Embedding": (),
    "LayerNorm": ("eps",), "BatchNorm1d": ("eps",), "Dropout": ("p",), "Identity": (),
    "ReLU": (), "ReLU6": (), "LeakyReLU": ("negative_slope",), "PReLU": (), "ELU": ("alpha",),
    "Tanh": (), "Hardtanh": ("min_val", "max_val"), "Sigmoid": (), "GELU": ("approximate",),
    "SiLU": (), "Softplus": ("beta", "threshold"), "Softmax": ("dim",), "LogSoftmax": ("dim",),
}  # fmt: skip


def from_torch(module: Any, example: Any = None, **options: Any) -> Model:
    """Make a model of a live ``nn.Module``: a recurrent module or cell, any layer of
    :mod:`clstm.nn`, an ``nn.Sequential``, or a list of modules, in evaluation. After it
    returns, torch is not needed. example: an input of the module, or a tuple of its inputs;
    with it any module whose ``forward`` ``torch.export`` can trace is taken. The options are
    those of :func:`load`."""
    _refuse_unknown("from_torch", options, "strict")
    if example is not None:
        from .trace import trace

        traced, weights, check = trace(module, example)
        model = from_state_dict(weights, layers=traced, **options)
        check(model)
        return model
    layers: list[nn.Layer] = []
    tensors: dict[str, Any] = {}
    _collect(module, "", layers, tensors)
    if not layers:
        raise ValueError("from_torch: no modules")
    return from_state_dict(tensors, layers=layers, **options)


def _collect(module: Any, prefix: str, layers: list[nn.Layer], tensors: dict[str, Any]) -> None:
    kind = type(module).__name__
    ours = type(module).__module__.startswith("torch.nn.")
    if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
        raise UnsupportedError(
            f"from_torch: {kind} has forward hooks, which change what it computes; remove them "
            "(weight_norm: torch.nn.utils.remove_weight_norm, pruning: prune.remove)"
        )
    if isinstance(module, list | tuple) or (kind in ("Sequential", "ModuleList") and ours):
        for i, child in enumerate(module):
            _collect(child, f"{prefix}.{i}" if prefix else str(i), layers, tensors)
        return
    if kind.startswith("Parametrized"):
        raise UnsupportedError(
            f"from_torch: {kind}: first write "
            "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
        )
    if not hasattr(module, "state_dict"):
        raise TypeError(f"from_torch: expected an nn.Module or a list of them, got {kind}")
    if not ours or kind not in _OPTIONS:
        raise UnsupportedError(
            f"from_torch: {kind} is not a layer of clstm.nn; give example=, an input to trace it "
            "with, or its layers as a list, or from_state_dict(module.state_dict(), layers=[...])"
        )
    words = {name: getattr(module, name) for name in _OPTIONS[kind]}
    if kind in ("Softmax", "LogSoftmax") and words["dim"] == 2:
        words["dim"] = -1  # of a batched sequence
    if kind == "LayerNorm":
        if len(module.normalized_shape) != 1:
            raise UnsupportedError("from_torch: LayerNorm over more than the features")
        words["normalized_shape"] = int(module.normalized_shape[0])
    if kind == "BatchNorm1d" and module.running_mean is None:
        raise UnsupportedError("from_torch: BatchNorm1d without running statistics")
    if kind == "Embedding" and module.max_norm is not None:
        raise UnsupportedError("from_torch: Embedding with max_norm changes its weights when read")
    own = module.state_dict()
    described = getattr(nn, kind)
    if own or "prefix" not in described.__dataclass_fields__:
        words |= {"prefix": prefix} if own else {}
    elif kind == "LayerNorm" and prefix:
        words["prefix"] = ""
    layers.append(described(**words))
    tensors.update({f"{prefix}.{name}" if prefix else name: t for name, t in own.items()})


def read_weights(
    source: SourceLike, *, key: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> dict[str, np.ndarray]:
    """The tensors of a weight file by their raw names; bfloat16 becomes float32, exactly, other
    dtypes stay. Raises ModelFormatError, UnsupportedError or OSError."""
    return read_file(source, key=key, max_bytes=max_bytes).tensors
