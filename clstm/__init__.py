# SPDX-License-Identifier: MIT
"""clstm: LSTMs trained in PyTorch, run on a CPU one step at a time.

    m = clstm.load("weights.pt")        # no torch needed
    s = m.stream()
    y = s.step(frame)                   # float32 (I,) -> (O,)

See README.md for more, docs/from-torch.md for what to write in place of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from . import formats, nn
    from ._config import show_config
    from ._core import VERSION as __version__
    from ._core import Stream, available_kernels
    from ._embed import get_include, get_library_dir
    from .loading import from_state_dict, from_torch, load, read_weights
    from .model import Model
else:
    # NumPy takes 100 ms and more to import, so what needs it comes with its first use and
    # `clstm --version` without. Names to where they are; "" for a submodule.
    _LATER = {
        "Model": "model",
        "Stream": "_core",
        "__version__": "_core",
        "available_kernels": "_core",
        "formats": "",
        "from_state_dict": "loading",
        "from_torch": "loading",
        "get_include": "_embed",
        "get_library_dir": "_embed",
        "load": "loading",
        "nn": "",
        "read_weights": "loading",
        "show_config": "_config",
    }

    def __getattr__(name):
        where = _LATER.get(name)
        if where is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{where or name}", __name__)
        value = getattr(module, "VERSION" if name == "__version__" else name) if where else module
        globals()[name] = value
        return value

    def __dir__():
        return sorted(globals().keys() | _LATER.keys())


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
    "formats",
    "from_state_dict",
    "from_torch",
    "get_include",
    "get_library_dir",
    "load",
    "nn",
    "read_weights",
    "show_config",
]
