# SPDX-License-Identifier: MIT
"""``clstm convert``"""

from __future__ import annotations

import argparse
import os

from .common import build_model, read_image, refuse_same, warn_non_finite
from .text import one_line


def main(args: argparse.Namespace) -> int:
    refuse_same(args.output, [args.file])
    image = read_image(args)
    model = build_model(args, image)
    model.save(args.output)
    for record in image.records:
        warn_non_finite(record.tensors)
    size = os.path.getsize(args.output)
    print(f"wrote {one_line(args.output)}: {size:,} bytes\n{model!r}")
    print(f"fingerprint {model.fingerprint}")
    return 0
