# SPDX-License-Identifier: MIT
"""A live module, traced by torch.export, as layers and tensors. torch is imported here only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import nn

Check = Callable[[Any], None]


def trace(module: Any, example: Any) -> tuple[list[nn.Layer], dict[str, np.ndarray], Check]:
    """Layers and tensors of a module with its own forward; and what compares the model that is
    made of them with the module, at other sizes, and refuses it if they differ.

    example: what forward takes: a tensor, a tuple of arguments, or a dict of keyword arguments;
    only its shapes and types count. States of recurrent layers among the inputs and outputs become
    the model's state. The module is as it was afterwards. Raises UnsupportedError, which names
    the operation and its line, for what clstm cannot do or what depends on the length.
    """
    if not hasattr(module, "named_parameters"):
        raise TypeError(f"from_torch: expected an nn.Module, got {type(module).__name__}")
    from .export import export
    from .layers import OPERATIONS
    from .translate import Translation
    from .verify import verify

    program, leaves, form = export(module, example, OPERATIONS)
    layers, tensors = Translation(program).run(OPERATIONS)
    check = partial(verify, module, leaves, form, program.inputs, program.main)
    return layers, tensors, check


__all__ = ["trace"]
