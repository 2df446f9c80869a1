# SPDX-License-Identifier: MIT
"""Faults that somebody might make in csrc/, each with the check that must notice it.

A mutant is a textual change of one file. `text` must stand exactly once in it: a mutant that no
longer applies is a failure too, so that this table follows the sources. `check` names the program
that must fail: check_kernels (every kernel function against the oracle), digest (whole models:
certificates of the float64 oracle, and the same bits of every way to run them), modes (control
bits of the caller), check_file (hostile files, under the address sanitizer) or check_memory
(malloc fails).
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str  # below csrc/src
    text: str
    instead: str
    check: str
    kernel: str = ""  # the set to build and run; "" for the best one of this CPU


PRODUCT, LSTM = "kernels/product.inc.h", "kernels/lstm.inc.h"
MATH, MAP, NORM = "kernels/math.inc.h", "kernels/map.inc.h", "kernels/norm.inc.h"

MUTANTS = [
    # ---- sums of products
    Mutant(
        "flipped sign of a product (one row)",
        PRODUCT,
        "v_fma(v_load(panel[b] + i * LANES), xk, sum",
        "v_fnma(v_load(panel[b] + i * LANES), xk, sum",
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
        "n_k - first < K_BLOCK ? n_k : first + K_BLOCK;",
        "n_k - first < K_BLOCK ? n_k : first + K_BLOCK - 1;",
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
        "first < n_k; first += K_BLOCK) {\n        const size_t count = n_k - first < K_BLOCK ? n_k - first : K_BLOCK;",
        "first < n_k; first += 32) {\n        const size_t count = n_k - first < 32 ? n_k - first : 32;",
        "check_kernels",
    ),
    Mutant(
        "last block added first",
        PRODUCT,
        "v_store(t, v_add(v_load(t), sum[r][i]));",
        "v_store(t, v_add(v_add(v_load(t), sum[r][i]), v_load(t)));",
        "check_kernels",
    ),
    Mutant(
        "tail of the rows takes the first weights",
        PRODUCT,
        "const float *weight = w + first * G * UNITS + v * LANES;",
        "const float *weight = w + first * G * UNITS + (left < ROWS ? 0 : v * LANES);",
        "check_kernels",
        "avx2",
    ),
    Mutant(
        "wrong remainder of the rows",
        PRODUCT,
        "r += left < ROWS ? left : ROWS;",
        "r += left < ROWS ? left : ROWS + (left == ROWS + 1);",
        "check_kernels",
    ),
    Mutant(
        "a tail lane wrong",
        PRODUCT,
        "UNROLL for (int r = 0; r < R; r++)\n        UNROLL for (int i = 0; i < G * V; i++) {\n            float *t",
        "UNROLL for (int r = 0; r < R; r++) total[r][UNITS - 1] += R == 2 ? 0x1p-12f : 0;\n"
        "    UNROLL for (int r = 0; r < R; r++)\n        UNROLL for (int i = 0; i < G * V; i++) {\n            float *t",
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
        "memcpy(out[r], bias, G * UNITS * sizeof *bias)",
        "memset(out[r], 0, G * UNITS * sizeof *bias)",
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
    # ---- the cell
    Mutant(
        "two gates swapped",
        LSTM,
        "i = sigmoid(v_load(gate)), f = sigmoid(v_load(gate + UNITS))",
        "f = sigmoid(v_load(gate)), i = sigmoid(v_load(gate + UNITS))",
        "check_kernels",
    ),
    Mutant(
        "candidate and output gate swapped",
        LSTM,
        "g = tanh_(v_load(gate + 2 * UNITS)), o = sigmoid(v_load(gate + 3 * UNITS))",
        "g = tanh_(v_load(gate + 3 * UNITS)), o = sigmoid(v_load(gate + 2 * UNITS))",
        "check_kernels",
    ),
    Mutant(
        "flush of c removed",
        LSTM,
        "flush(v_fma(f, v_load(c[j] + v), v_mul(i, g)))",
        "v_fma(f, v_load(c[j] + v), v_mul(i, g))",
        "check_kernels",
    ),
    Mutant(
        "c not fused",
        LSTM,
        "v_fma(f, v_load(c[j] + v), v_mul(i, g))",
        "v_add(v_mul(f, v_load(c[j] + v)), v_add(v_mul(i, g), v_mul(v_all(1e-6f), g)))",
        "check_kernels",
    ),
    Mutant(
        "h from the old c",
        LSTM,
        "v_mul(v_load(total[j] + 3 * UNITS + v), tanh_(v_load(c[j] + v)))",
        "v_mul(v_load(total[j] + 3 * UNITS + v), v_load(c[j] + v))",
        "check_kernels",
    ),
    Mutant(
        "x and h in the other order (one row)",
        LSTM,
        "if (rows->x) one_row(P, 4, t, w, p->n_x, rows->x);\n"
        "    UNROLL for (int b = 0; b < P; b++) w[b] += p->n_x * 4 * UNITS;\n"
        "    if (rows->h) one_row(P, 4, t, w, p->n_h, rows->h[0]);",
        "UNROLL for (int b = 0; b < P; b++) w[b] += p->n_x * 4 * UNITS;\n"
        "    if (rows->h) one_row(P, 4, t, w, p->n_h, rows->h[0]);\n"
        "    UNROLL for (int b = 0; b < P; b++) w[b] -= p->n_x * 4 * UNITS;\n"
        "    if (rows->x) one_row(P, 4, t, w, p->n_x, rows->x);",
        "check_kernels",
    ),
    Mutant(
        "h reads the weights of x",
        LSTM,
        "many_rows(4, w + p->n_x * 4 * UNITS, p->n_h,",
        "many_rows(4, w, p->n_h,",
        "check_kernels",
    ),
    Mutant(
        "a row takes its neighbour's h", LSTM, "if (group.h) group.h += r;", "", "check_kernels"
    ),
    Mutant("a row takes its neighbour's c", LSTM, "group.c += r;", "", "check_kernels"),
    Mutant(
        "totals of the first row for all",
        LSTM,
        "group.total += r * rows->total_stride;",
        "",
        "check_kernels",
    ),
    Mutant(
        "last panel alone forgotten",
        LSTM,
        "for (size_t j = b; j < n; j++) one_row_totals(1, p, rows, first + j, total[j]);",
        "{}",
        "check_kernels",
        "avx512",
    ),
    Mutant(
        "backward skips the last blocks",
        LSTM,
        "return backward ? n - 1 - i : i;",
        "return backward && i ? n - 1 - i : i;",
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
    Mutant(
        "NaN clamped away",
        MAP,
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
        "AVX-512: product after all",
        "kernels/vec_avx512.h",
        "return _mm512_fmadd_ps(a, b, c);",
        "return _mm512_add_ps(_mm512_mul_ps(a, b), c);",
        "check_kernels",
        "avx512",
    ),
    # ---- packing
    Mutant(
        "packing: rows of the wrong gate",
        "pack.c",
        "lane = g * UNITS + o % UNITS;",
        "lane = (g ^ (G > 1)) * UNITS + o % UNITS;",
        "check_kernels",
    ),
    Mutant(
        "packing: one bias of two", "pack.c", "+ (m->b2 ? m->b2[row] : 0.0f)", "", "check_kernels"
    ),
    Mutant(
        "packing: U transposed",
        "pack.c",
        "*to = m->u[row * m->n_h + k];",
        "*to = m->u[k * m->n_h + row % m->n_h];",
        "check_kernels",
    ),
    Mutant(
        "packing: scale without shift",
        "pack.c",
        "(float)fma(bias, scale, m->shift[o])",
        "(float)(bias * scale)",
        "digest",
    ),
    # ---- the walk
    Mutant(
        "h of an ended sequence not kept",
        "recurrent.c",
        "if (!reverse) keep(cell, f, now, rows_at(f, t + 1), n);",
        "if (!reverse && t + 1 == f->n_steps) keep(cell, f, now, 0, n);",
        "digest",
    ),
    Mutant(
        "h of the reverse direction not kept",
        "recurrent.c",
        "else if (t == 0) keep(cell, f, now, 0, n);",
        "",
        "digest",
    ),
    Mutant(
        "reverse direction starts a step late",
        "recurrent.c",
        "size_t t = reverse ? f->n_steps - 1 - done : done;\n        const size_t count",
        "size_t t = reverse ? (done ? f->n_steps - 1 - done : f->n_steps - 1 - (f->n_steps > 1)) : done;\n        const size_t count",
        "digest",
    ),
    Mutant(
        "reverse direction runs forward",
        "recurrent.c",
        "(struct values){f->direction[d], padded(n_out)}, d);",
        "(struct values){f->direction[d], padded(n_out)}, 0);",
        "digest",
    ),
    Mutant(
        "directions swapped in the output",
        "recurrent.c",
        "memcpy(result.at + r * result.stride + d * n_out,",
        "memcpy(result.at + r * result.stride + (1 - d) * n_out,",
        "digest",
    ),
    Mutant(
        "projection not flushed",
        "recurrent.c",
        "map(MAP_FLUSH, padded(cell->n_out), row(out, r),",
        "map(MAP_CLAMP, 0, row(out, r),",
        "digest",
    ),
    Mutant(
        "a layer overwrites its input",
        "recurrent.c",
        "{f->layer[k % 2], padded(width)}",
        "{f->layer[0], padded(width)}",
        "digest",
    ),
    Mutant(
        "totals from the wrong row", "recurrent.c", "from(z, at - first)", "from(z, at)", "digest"
    ),
    Mutant("steps that do not fit", "recurrent.c", "if (rows > f->z_rows) break;", "", "digest"),
    Mutant(
        "h of the step before last",
        "recurrent.c",
        "from(out, t ? f->first[t - 1] : 0)",
        "from(out, t > 1 ? f->first[t - 2] : 0)",
        "digest",
    ),
    Mutant(
        "lengths off by one",
        "sequence.c",
        "length_of(b, w->order[active - 1]) <= t0 + t",
        "length_of(b, w->order[active - 1]) < t0 + t",
        "digest",
    ),
    Mutant(
        "unsorted batch",
        "sequence.c",
        "    sort(w->order, (size_t *)(void *)w->state, b->n_batch, b);\n",
        "",
        "digest",
    ),
    Mutant(
        "outputs past a length left as they were",
        "sequence.c",
        "else memset(to, 0, bytes);",
        "",
        "digest",
    ),
    Mutant(
        "state of the caller's first row for all",
        "sequence.c",
        "b->state + w->order[r] * m->state_size",
        "b->state",
        "digest",
    ),
    Mutant(
        "state returned in sorted order",
        "sequence.c",
        "b->state_out + w->order[r] * m->state_size",
        "b->state_out + r * m->state_size",
        "digest",
    ),
    Mutant(
        "chunk begins at the first step",
        "step.c",
        "        if (x) x += n * m->widths[0];\n",
        "",
        "digest",
    ),
    Mutant(
        "a token past the table",
        "step.c",
        "(uint64_t)tokens[r] < e->n",
        "(uint64_t)tokens[r] <= e->n",
        "digest",
    ),
    Mutant(
        "slot of an alias",
        "frame.c",
        "slot = out->slot[m->ops[i - 1].input]",
        "slot = out->slot[0]",
        "digest",
    ),
    Mutant(
        "copy of h alone",
        "stream.c",
        "memmove(to->state, from->state, to->model->state_row * sizeof *to->state);",
        "memmove(to->state, from->state, to->model->state_row / 2 * sizeof *to->state);",
        "digest",
    ),
    Mutant(
        "reset to zeros",
        "stream.c",
        "memcpy(s->state, s->model->initial, s->model->state_row * sizeof *s->state);",
        "memset(s->state, 0, s->model->state_row * sizeof *s->state);",
        "digest",
    ),
    Mutant(
        "h and c exchanged in a state",
        "stream.c",
        "copy(cells[j].h_at, cells[j].n_out);    \\",
        "copy(cells[j].c_at, cells[j].n_out);    \\",
        "digest",
    ),
    Mutant(
        "learned c0 forgotten", "model.c", "            if (c0)\n", "            if (0)\n", "digest"
    ),
    Mutant(
        "batch norm without its eps",
        "model.c",
        "sqrt(var[i] + op->params[0])",
        "sqrt(var[i] + 0.1)",
        "digest",
    ),
    Mutant(
        "scaling folded past another reader",
        "model.c",
        "found || !is_affine(&w->ops[j])",
        "!is_affine(&w->ops[j])",
        "digest",
    ),
    Mutant(
        "control bits not set",
        "fpmode.h",
        "if (mode.changed) fpmode_set(FPMODE_DEFAULT);",
        "",
        "modes",
    ),
    Mutant(
        "control bits not restored",
        "fpmode.h",
        "if (mode.changed) fpmode_set(mode.found);",
        "",
        "modes",
    ),
]
