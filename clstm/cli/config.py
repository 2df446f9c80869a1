# SPDX-License-Identifier: MIT
"""``clstm config``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import clstm
from clstm import _embed


def main(args: argparse.Namespace) -> int:
    if args.cflags or args.libs:
        if args.json or args.pkgconfigdir:
            raise ValueError("--cflags and --libs go with each other alone")
        print(_embed.flags(args.cflags, args.libs))
    elif args.pkgconfigdir:
        print(Path(clstm.get_library_dir(), "pkgconfig"))
    elif args.json:
        print(json.dumps(clstm.show_config("dict")))
    else:
        clstm.show_config()
    return 0
