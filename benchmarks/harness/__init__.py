# SPDX-License-Identifier: MIT
"""What the benchmarks share: cases, contestants, turns, limits of the machine, reports."""
