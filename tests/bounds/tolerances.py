# SPDX-License-Identifier: MIT
"""Every number that a test allows, and where it comes from. No other file of the tests may write
one (tests/unit/test_tolerances.py); the C programs have theirs in tests/c/tolerances.h, the same
numbers under the same names.

The rule: what is compared with float64 keeps a bound that `bounds` computes from the numbers
below, for the very weights and inputs at hand. The plain numbers further down serve tests that ask
something else: which state was it, are the gates in this order. Those models are small, and being
wrong moves their outputs by DIFFERENT or more, a hundred times what is allowed.
"""

# ---- float32 ------------------------------------------------------------------------------------

U = 2.0**-24  # half the spacing at 1: a rounded result is exact (1 + d), |d| <= U
TINY = 2.0**-149  # the least subnormal: the roundings of one product where they underflow
FLUSH = 2.0**-100  # states below it become 0
# The reference and its bound are themselves computed in float64, with some dozens of roundings of
# 2^-53, relative to terms that the bound holds at least u/2 times: 2^-20 of it covers them.
SLACK = 1.0 + 2.0**-20

# ---- functions, in ulps of the exact value ------------------------------------------------------

# Promise 1. What the formulas reach over all floats is 1.30 and 1.48 (tests/native/sweep.py).
TANH_ULPS = 1.5
SIGMOID_ULPS = 2.0
# Promise 4: GELU, softmax, log-softmax, SiLU; or HEAD_FLOOR, one spacing at 1, where the exact
# result nears 0 and the operands' own roundings weigh more than any ulp of it.
HEAD_ULPS = 4.0
HEAD_FLOOR = 2.0**-23
# Not promised; measured over the inputs of tests/c/check_kernels.c and kept from growing.
ELU_ULPS = 2.5
SOFTPLUS_ULPS = 3.0
# The sweep's own float64 formulas against libm's, relative: sixteen roundings of 2^-53, six of
# them libm's. In ulps of float32 that is 2^-25, and the sweep adds it to what it found.
REFERENCE = 2.0**-49

# ---- sums (promise 2; algebra.py derives it) ----------------------------------------------------

# A pre-activation errs by at most (SUM + K) u S, K the number of blocks of 64 inputs: 64 roundings
# of a chain, K of the total, and 2 for the second order and float64's own.
SUM = 66.0
# In random tests by RANDOM u S: errors of random sign grow like a square root, sqrt(66 + 32) < 10
# at H = 1024; six standard deviations of sums of such errors stay below it.
RANDOM = 16.0

# ---- beside PyTorch, default weights ------------------------------------------------------------

# Mean max|dh| over the models as a part of PyTorch's, by hidden size: one chain of H products
# errs like sqrt(H), blocks of 64 like sqrt(64 + H / 64). That is a third at 1024; PyTorch's
# product has several chains of its own, so half is promised there, and 0.6 at 256.
MEAN_RATIO = {256: 0.6, 512: 0.5, 1024: 0.5}
# One model's max|dh| beside PyTorch's in the same steps, 99 models of 100: the maximum of some
# hundreds of errors of a few ulps moves by a quarter between engines of the same quality.
BESIDE_TORCH = 1.25
# Free runs of contractive models, 32 inputs of N(0, 1), by the gain on PyTorch's default weights:
# a goal, not a bound. S grows with the gain, and with it what a step errs by; what is not yet
# forgotten of the steps before is as much again. Of 72 models over 10,000 steps the worst had 3.8,
# 7.1 and 20.8 u, PyTorch 3.1, 6.6 and 19.1 (so that 5, 5 and 16, the goals of before, are beyond
# float32). In the mean over models PyTorch's error is the measure: BESIDE_TORCH.
FREE_RUN = {1: 6.0 * U, 2: 12.0 * U, 4: 24.0 * U}
DRIFT = 2.0  # the last tenth beside the first: maxima of as many steps, no growth

# ---- two computations in float64 ----------------------------------------------------------------

FLOAT64 = 2.0**-40  # of values of about 1 with up to 8000 roundings on the way
FLOAT64_RUN = 2.0**-35  # through 160 steps of 400 products and more: 64,000 roundings, and slopes
# What divides by a spread or exponentiates inputs of up to 10^4 loses the digits that these have
# in front of the point: 2^14 times 2^-53, and the slopes of a layer behind it.
FLOAT64_STEEP = 2.0**-30
# The oracle's own result beside the bound around it: float64 has 2^29 digits more than float32.
EXACT_SHARE = 2.0**-10

# ---- which numbers, not how exact ---------------------------------------------------------------

# Two float32 engines, or one and float64, on layers of at most twenty features: each errs by the
# random bound, 16 u S with S up to 2, so they differ by 64 u.
NEAR = 2.0**-18
# Some layers behind each other, some hundred features, or some tens of steps: eight times as much.
FAR = 2.0**-15
FAR_RELATIVE = 2.0**-12  # of results that a scaling behind such layers made large
# What a wrong equation, order or state changes at least, in values of about 1.
DIFFERENT = 2.0**-10
# Where the smallest of wrong things is an error in a single weight's product.
WRONG_TERM = 3.0  # times the bound

# ---- numbers that somebody printed --------------------------------------------------------------

PRINTED_10 = 1e-9  # ten digits behind the point, float64 from other libraries behind them
PRINTED_8 = 1e-8  # six to eight digits of values below 1
TABLE = 1e-4  # the README's table rounds to 10^-4: half of it, half for a float32 network
RETRAINED = 0.05  # a training that is repeated on another CPU ends in another minimum
