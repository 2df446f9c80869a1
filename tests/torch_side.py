# SPDX-License-Identifier: MIT
"""Torch modules as the oracle takes them: stand-ins for layers, their arrays, close results."""

from types import SimpleNamespace

import numpy as np
import torch

from bounds.tolerances import FLOAT64


def layer(kind, prefix="", **options):
    """A stand-in for `clstm.nn.<kind>`: the oracle asks for the class name and the attributes."""
    return type(kind, (SimpleNamespace,), {})(prefix=prefix, **options)


def arrays(module, prefix=""):
    dot = f"{prefix}." if prefix else ""
    return {dot + name: value.detach().numpy() for name, value in module.state_dict().items()}


def close(actual, expected):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == tuple(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=FLOAT64, atol=FLOAT64)
