# SPDX-License-Identifier: MIT
"""clstm: LSTMs trained in PyTorch, run on a CPU one step at a time.

    m = clstm.load("weights.pt")        # no torch needed
    s = m.stream()
    y = s.step(frame)                   # float32 (I,) -> (O,)

See README.md for more, docs/from-torch.md for what to write in place of torch.
"""

from . import nn
from ._config import show_config
from ._core import VERSION as __version__
from ._core import Stream, available_kernels
from .errors import (
    ClosedError,
    ClstmError,
    DTypeError,
    ModelFormatError,
    ShapeError,
    SnapshotError,
    StreamBusyError,
    TokenError,
    UnsupportedError,
)
from .loading import from_state_dict, from_torch, load, read_weights
from .model import Model

__all__ = [
    "ClosedError",
    "ClstmError",
    "DTypeError",
    "Model",
    "ModelFormatError",
    "ShapeError",
    "SnapshotError",
    "Stream",
    "StreamBusyError",
    "TokenError",
    "UnsupportedError",
    "__version__",
    "available_kernels",
    "from_state_dict",
    "from_torch",
    "load",
    "nn",
    "read_weights",
    "show_config",
]
