# SPDX-License-Identifier: MIT
"""The one tolerance against float64 (promise 2), derived here and used everywhere.

tolerances.py   the numbers in it, and every other number that a test allows
algebra.py      numbers with error bounds: what a sum of products, a product, a norm adds
activations.py  each function of a gate
cells.py        one step of every cell: `cell_bound`, `step_bound`
checks.py       whole streams and sequences against it: each check returns error / bound
"""

from .activations import activate, head_bound
from .algebra import (
    Near,
    blocks,
    normalised,
    number,
    sigmoid_bound,
    sigmoid_slope,
    sum_bound,
    tanh_bound,
    tanh_slope,
    ulp,
)
from .cells import Step, cell_bound, step_bound
from .checks import (
    affine_bound,
    direction_check,
    first_layers,
    fold,
    layer_norm_bound,
    linear_bound,
    lstm_check,
    recurrent_check,
    stream_check,
    worst,
)
from .tolerances import FLUSH, SLACK, TINY, U

__all__ = [
    "FLUSH",
    "SLACK",
    "TINY",
    "Near",
    "Step",
    "U",
    "activate",
    "affine_bound",
    "blocks",
    "cell_bound",
    "direction_check",
    "first_layers",
    "fold",
    "head_bound",
    "layer_norm_bound",
    "linear_bound",
    "lstm_check",
    "normalised",
    "number",
    "recurrent_check",
    "sigmoid_bound",
    "sigmoid_slope",
    "step_bound",
    "stream_check",
    "sum_bound",
    "tanh_bound",
    "tanh_slope",
    "ulp",
    "worst",
]
