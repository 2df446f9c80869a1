# SPDX-License-Identifier: MIT
"""One thread for every library here: the suite runs in several processes on few cores, and
threads that wait for each other by spinning take the time of those that work."""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
