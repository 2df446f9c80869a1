# SPDX-License-Identifier: MIT
"""``clstm config``"""

from __future__ import annotations

import argparse
import json

import clstm


def main(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(clstm.show_config("dict")))
    else:
        clstm.show_config()
    return 0
