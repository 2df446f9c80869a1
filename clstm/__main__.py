# SPDX-License-Identifier: MIT
"""``python -m clstm``: the same as the command ``clstm``."""

import sys

from .cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
