# SPDX-License-Identifier: MIT
"""Faults that somebody might make in csrc/, each with the check that must notice it.

A mutant is a textual change of one file. `text` must stand exactly once in it: a mutant that no
longer applies is a failure too, so that this table follows the sources. `check` names the program
that must fail: check_kernels (every kernel function against the oracle), check_models (models of
every cell and option against it), digest (whole models: certificates of the float64 oracle, and the
same bits of every way to run them), cells (the same of every cell and option), sweep (sigmoid and tanh over the floats), modes (control bits
of the caller), check_file (hostile files, under the address sanitizer), check_refused (records that
contradict themselves), check_memory (malloc fails), many_callers (threads that share a model) or
first_jobs (a child's). The rest of the table is in mutants_cells.py, mutants_steps.py,
mutants_records.py, mutants_team.py and mutants_core.py, which puts it together.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str  # below csrc/src
    text: str
    instead: str
    check: str
    kernel: str = ""  # the set to build and run; "" for the best one of this CPU


PRODUCT, MATH, MAP, NORM = (f"kernels/{name}.inc.h" for name in ("product", "math", "map", "norm"))
FINISH, CELL = "kernels/finish.inc.h", "kernels/cell.inc.h"

KERNEL_MUTANTS = [
    # ---- sums of products
    Mutant(
        "flipped sign of a product (one row)",
        PRODUCT,
        "v_fma(v_load(w[b] + i * LANES), xk, sum",
        "v_fnma(v_load(w[b] + i * LANES), xk, sum",
        "check_kernels",
    ),
    Mutant(
        "flipped sign of a product (many rows, weights held)",
        PRODUCT,
        "v_fma(weight[i], xk, sum[r][i])",
        "v_fnma(weight[i], xk, sum[r][i])",
        "check_kernels",
        "avx512",
    ),
    Mutant(
        "flipped sign of a product (many rows, inputs held)",
        PRODUCT,
        "v_fma(weight, xk[r], sum[r][i])",
        "v_fnma(weight, xk[r], sum[r][i])",
        "check_kernels",
        "avx2",
    ),
    Mutant(
        "block boundary off by one (one row)",
        PRODUCT,
        "n_k - first < K_BLOCK ? n_k - first : K_BLOCK, x + first);",
        "n_k - first < K_BLOCK ? n_k - first : K_BLOCK - 1, x + first);",
        "check_kernels",
    ),
    Mutant(
        "block boundary off by one (many rows)",
        PRODUCT,
        "count = n_k - first < K_BLOCK ? n_k - first : K_BLOCK;",
        "count = n_k - first <= K_BLOCK ? n_k - first - 1 : K_BLOCK;",
        "check_kernels",
    ),
    Mutant(
        "blocks of 32 where many rows go",
        PRODUCT,
        "first += K_BLOCK, from = (const float *const *)total) {\n        const size_t count = n_k - first < K_BLOCK ? n_k - first : K_BLOCK;",
        "first += 32, from = (const float *const *)total) {\n        const size_t count = n_k - first < 32 ? n_k - first : 32;",
        "check_kernels",
    ),
    Mutant(
        "last block added first",
        PRODUCT,
        "v_add(v_load(from[r] + place), sum[r][i]));",
        "v_add(v_add(v_load(from[r] + place), sum[r][i]), v_load(from[r] + place)));",
        "check_kernels",
    ),
    Mutant(
        "tail of the rows takes the first weights",
        PRODUCT,
        "const float *weight = w + first * G * UNITS + v * LANES;",
        "const float *weight = w + first * G * UNITS + (rows < ROWS ? 0 : v * LANES);",
        "check_kernels",
        "avx2",
    ),
    Mutant(
        "wrong remainder of the rows",
        PRODUCT,
        "r += rows;",
        "r += rows + (g == 0 && n_groups > 1);",
        "check_kernels",
    ),
    Mutant(
        "a tail lane wrong",
        PRODUCT,
        "const size_t place = i / V * UNITS + i % V * LANES;",
        "const size_t place = i / V * UNITS + i % V * LANES;\n"
        "            if (R == 2 && i == 0) ((float *)(uintptr_t)from[r])[UNITS - 1] += 0x1p-12f;",
        "check_kernels",
    ),
    Mutant(
        "bias dropped (one row)",
        PRODUCT,
        "total[i] = v_load(bias + i * LANES);",
        "total[i] = v_all(0.0f);",
        "check_kernels",
    ),
    Mutant(
        "bias dropped (many rows)",
        PRODUCT,
        "from[r] = bias;",
        "from[r] = w;",
        "check_kernels",
    ),
    Mutant(
        "stride of the inputs",
        PRODUCT,
        "in[r] = x + (row + r) * x_stride;",
        "in[r] = x + (row + r) * n_k;",
        "check_kernels",
    ),
    Mutant(
        "stride of the outputs",
        PRODUCT,
        "out[r] = y.at + (row + r) * y.stride + b * G * UNITS;",
        "out[r] = y.at + (row + r) * p->n_blocks * G * UNITS + b * G * UNITS;",
        "check_kernels",
    ),
    Mutant(
        "second row group lost",
        PRODUCT,
        "for (size_t row = 0; row < n; row += ROW_GROUP) {",
        "for (size_t row = 0; row < n; row += ROW_GROUP + 1) {",
        "check_kernels",
    ),
    # ---- functions
    Mutant("wrong exp coefficient", MATH, "0.166665167f", "0.166655167f", "check_kernels"),
    Mutant("wrong tanh coefficient", MATH, "0.133305177f", "0.133405177f", "check_kernels"),
    Mutant("wrong log coefficient", MATH, "0.200022072f", "0.201022072f", "check_kernels"),
    Mutant(
        "tanh: the other branch too early",
        MATH,
        "v_lt(a, v_all(0.65f))",
        "v_lt(a, v_all(0.95f))",
        "check_kernels",
    ),
    Mutant(
        "sigmoid without its correction",
        MATH,
        "return v_fma(rest, reciprocal, y);",
        "return y;",
        "check_kernels",
    ),
    Mutant(
        "tanh loses its sign",
        MATH,
        "return v_copysign(v_select(v_lt(a, v_all(0.65f)), low, high), x);",
        "return v_select(v_lt(a, v_all(0.65f)), low, high);",
        "check_kernels",
    ),
    # ---- what a sweep over neighbouring floats sees
    Mutant(
        "tanh: error of 1.6 ulp",
        MATH,
        "v_lt(a, v_all(0.65f))",
        "v_lt(a, v_all(0.685f))",
        "sweep",
    ),
    Mutant(
        "sigmoid no longer monotone",
        MATH,
        "return v_fma(rest, reciprocal, y);",
        "return v_select(v_lt(v_all(0.4f), e), y, v_fma(rest, reciprocal, y));",
        "sweep",
    ),
    Mutant(
        "tanh not odd",
        MATH,
        "return v_copysign(v_select(v_lt(a, v_all(0.65f)), low, high), x);",
        "return v_select(v_lt(x, v_all(-0.65f)), v_sub(v_all(0.0f), v_add(high, v_all(0x1p-24f))),\n"
        "                    v_copysign(v_select(v_lt(a, v_all(0.65f)), low, high), x));",
        "sweep",
    ),
    Mutant(
        "sigmoid not exact at infinity",
        MATH,
        "v_max(v_all(-104.0f), x), &n);\n    return v_scale2(",
        "v_max(v_all(-86.0f), x), &n);\n    return v_scale2(",
        "sweep",
    ),
    Mutant(
        "tanh of NaN is 1",
        MATH,
        "const vf t = exp_parts(v_min(v_all(20.0f), v_mul(two, a)), &n);",
        "const vf t = exp_parts(v_min(v_mul(two, a), v_all(20.0f)), &n);",
        "sweep",
    ),
    Mutant(
        "NaN clamped away",
        FINISH,
        "v_min(v_all(high), v_max(v_all(low), x))",
        "v_min(v_max(x, v_all(low)), v_all(high))",
        "check_kernels",
    ),
    Mutant(
        "slope of the other side",
        MAP,
        "v_select(v_lt(v, zero), v_mul(v_load(a + i), v), v)",
        "v_select(v_lt(zero, v), v_mul(v_load(a + i), v), v)",
        "check_kernels",
    ),
    Mutant(
        "variance by n - 1",
        NORM,
        "const float variance = fold(FOLD_SUM, part) / (float)n;",
        "const float variance = fold(FOLD_SUM, part) / (float)(n > 1 ? n - 1 : n);",
        "check_kernels",
    ),
    Mutant(
        "pad of a row counted",
        NORM,
        "EACH_BLOCK(x, n, mean, const vf",
        "EACH_BLOCK(x, n, 0.0f, const vf",
        "check_kernels",
    ),
    Mutant(
        "fold takes a lane twice",
        NORM,
        "p[i] = p[i] + p[i + half];",
        "p[i] = p[i] + p[i + half - (half == 4)];",
        "check_kernels",
    ),
    Mutant(
        "softmax without its maximum",
        NORM,
        "const vf top = v_all(fold(FOLD_MAX, part));",
        "const vf top = v_all(0.0f);",
        "check_kernels",
    ),
    Mutant(
        "AVX2: minimum of the other operand",
        "kernels/vec_avx2.h",
        "return _mm256_min_ps(a, b);",
        "return _mm256_min_ps(b, a);",
        "check_kernels",
        "avx2",
    ),
    Mutant(
        "AVX2: exp without denormal results",
        "kernels/vec_avx2.h",
        "return v_mul(v_scale2_normal(v_mul(a, v_all(0x1p64f)), n), v_all(0x1p-64f));",
        "return v_scale2_normal(a, n);",
        "check_kernels",
        "avx2",
    ),
    Mutant(
        "AVX-512: product after all",
        "kernels/vec_avx512.h",
        "return _mm512_fmadd_ps(a, b, c);",
        "return _mm512_add_ps(_mm512_mul_ps(a, b), c);",
        "check_kernels",
        "avx512",
    ),
]
