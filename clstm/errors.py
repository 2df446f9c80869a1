# SPDX-License-Identifier: MIT
"""The errors of clstm. Each also derives from the built-in class that fits it.

A message says what was expected, what was given and, where one can, what to do.
"""


def escaped(text: str) -> str:
    """On one line, for any terminal: a name in a file may bring line breaks and control codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ClstmError(Exception):
    """Base of every error that clstm raises on purpose. Its message is one line."""

    def __init__(self, message: object = "") -> None:
        super().__init__(escaped(str(message)))


class ModelFormatError(ClstmError, ValueError):
    """A file, or the tensors in it, do not form a model."""


class ShapeError(ClstmError, ValueError):
    """An array has the wrong shape, strides or overlap."""


class DTypeError(ClstmError, TypeError):
    """An array has the wrong element type or byte order, or is no array."""


class TokenError(ClstmError, IndexError):
    """A token lies outside 0 ... num_embeddings - 1."""


class SnapshotError(ClstmError, ValueError):
    """A snapshot is damaged, of another version, or of another model."""


class UnsupportedError(ClstmError, NotImplementedError):
    """Valid, but this build, CPU or kind of model cannot do it."""


class StreamBusyError(ClstmError, RuntimeError):
    """A second thread used a stream while the first was inside it."""


class ClosedError(ClstmError, ValueError):
    """A pool or slot was used after it was closed."""


__all__ = [
    "ClosedError",
    "ClstmError",
    "DTypeError",
    "ModelFormatError",
    "ShapeError",
    "SnapshotError",
    "StreamBusyError",
    "TokenError",
    "UnsupportedError",
]
