# SPDX-License-Identifier: MIT
"""The command line: arguments, errors as one line, exit statuses.

Nothing here imports NumPy or the core, so that --version and --help come at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from ..errors import ClstmError
from . import ATOL, RTOL
from .text import one_line

FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141  # the last two as a shell reports the signals
LAYERS = "what the model is: \"[nn.LSTM('lstm'), nn.Linear('fc')]\""


class Parser(argparse.ArgumentParser):
    """Whose errors are one line, as those of the commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"clstm: {one_line(message)}; see {self.prog} --help\n")


class Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"clstm {version()}")
        parser.exit()


def version() -> str:
    from importlib import metadata

    try:
        return metadata.version("clstm")
    except metadata.PackageNotFoundError:  # a source tree on the path
        from .. import __version__

        return __version__


def make_parser() -> Parser:
    parser = Parser(prog="clstm", description="Run LSTMs trained in PyTorch on a CPU.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_info, _convert, _run, _verify, _config):
        add(commands)
    return parser


def _info(commands: Any) -> None:
    p = commands.add_parser("info", help="say what a weight file holds")
    p.description = "Layers, sizes and tensors of a file; for a foreign one the layers= to write."
    p.add_argument("file", metavar="FILE", help="any file that clstm.load reads")
    _reading(p)
    p.add_argument("--json", action="store_true", help="print one JSON object")


def _convert(commands: Any) -> None:
    p = commands.add_parser("convert", help="write a file with layers and weights together")
    p.description = "Write IN as a file that clstm loads without layers=, in Python and in C."
    p.add_argument("file", metavar="IN", help="any file that clstm.load reads")
    p.add_argument("-o", "--output", metavar="OUT", required=True, help=".clstm or .safetensors")
    _reading(p)


def _run(commands: Any) -> None:
    p = commands.add_parser("run", help="predict row by row")
    p.description = "One prediction a row, as the rows come; the state carries on between them."
    p.add_argument("file", metavar="MODEL", help="any file that clstm.load reads")
    p.add_argument(
        "input", metavar="INPUT", nargs="?", default="-",
        help="CSV with a frame (or a token) a row, a .npy of (T, I) or (T,), or - (default): "
        "CSV from standard input",
    )  # fmt: skip
    p.add_argument("-o", "--output", metavar="FILE", help="write there, not to standard output")
    p.add_argument(
        "--chunk", metavar="N", type=_positive,
        help="rows at once, the results are the same (default: 1 from a pipe, 256 from a file)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="write a JSON array a row, not CSV")
    p.add_argument(
        "--header", action=argparse.BooleanOptionalAction,
        help="the CSV does or does not begin with a header (default: it does if its first line "
        "holds no number)",
    )  # fmt: skip
    p.add_argument(
        "--progress", action=argparse.BooleanOptionalAction,
        help="report progress on standard error (default: if that is a terminal)",
    )  # fmt: skip
    _reading(p)
    _packing(p)


def _verify(commands: Any) -> None:
    p = commands.add_parser(
        "verify", help="compare with known outputs; exit status 1 if they differ"
    )
    p.description = (
        "Recompute known outputs: those of FILE, else of MODEL's own certificate. An output agrees "
        "if |got - expected| <= ATOL + RTOL * |expected|. Exit status 1 if one does not."
    )
    p.add_argument("file", metavar="MODEL", help="any file that clstm.load reads")
    p.add_argument(
        "--against", metavar="FILE",
        help=".npz of arrays x and y (and h0, c0), as in y, _ = m(x, (h0, c0)); or a model file "
        "whose certificate is run",
    )  # fmt: skip
    for name, default in (("rtol", RTOL), ("atol", ATOL)):
        p.add_argument(
            f"--{name}", type=_tolerance, default=default, metavar=name.upper(),
            help="default: %(default)g, as of the check at every load",
        )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print one JSON object")
    _reading(p)
    _packing(p)


def _config(commands: Any) -> None:
    p = commands.add_parser("config", help="say what this installation is, or how to link it")
    p.description = "What this installation is, for bug reports; or how a C program links it."
    p.add_argument("--cflags", action="store_true", help="print flags for the compiler")
    p.add_argument("--libs", action="store_true", help="print flags for the linker")
    one = p.add_mutually_exclusive_group()
    one.add_argument("--pkgconfigdir", action="store_true", help="print the folder of clstm.pc")
    one.add_argument("--json", action="store_true", help="print one JSON object")


def _reading(p: argparse.ArgumentParser) -> None:
    p.add_argument("--layers", metavar="LIST", help=LAYERS)
    p.add_argument("--key", metavar="K", help="which state dict of a checkpoint")
    p.add_argument("--no-strict", action="store_true", help="ignore tensors that no layer takes")


def _packing(p: argparse.ArgumentParser) -> None:
    p.add_argument("--kernel", help="kernel set (default: $CLSTM_KERNEL, or the best)")
    p.add_argument("--gemm", help="auto, packed or blas (default: $CLSTM_GEMM, or auto)")


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not value:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 on, got {text!r}")
    return value


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    try:
        args = make_parser().parse_args(argv)
        status: int = import_module(f".{args.command}", __package__).main(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is an error here, not at exit
        return status
    except BrokenPipeError:  # the reader has had enough
        _drop_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ClstmError, OSError, ValueError, MemoryError) as error:
        print(f"clstm: {_said(error)}", file=sys.stderr)
        _drop_output()
        return FAILED


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fspath(error.filename)}: " if error.filename is not None else ""
        return one_line(f"{where}{error.strerror}")
    return one_line(str(error)) or ("out of memory" if isinstance(error, MemoryError) else "failed")


def _drop_output() -> None:
    """Make sure that the interpreter's own flush at exit cannot fail and complain."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
