# SPDX-License-Identifier: MIT
"""The faults of the cell kernels. See mutants.py for what the columns are."""

from mutants import CELL, FINISH, PRODUCT, Mutant

CELL_MUTANTS = [
    # ---- the LSTM
    Mutant(
        "two gates swapped",
        FINISH,
        "v_load(z + a->at.i * UNITS)",
        "v_load(z + (a->at.i ^ 1) * UNITS)",
        "check_kernels",
    ),
    Mutant(
        "candidate and output gate swapped",
        FINISH,
        "VALUE(g, v_load(z + a->at.g * UNITS))",
        "VALUE(g, v_load(z + a->at.o * UNITS))",
        "check_kernels",
    ),
    Mutant(
        "flush of c removed",
        FINISH,
        "v_store(unit[j].c + v, flush(next));",
        "v_store(unit[j].c + v, next);",
        "check_kernels",
    ),
    Mutant(
        "flush of h removed",
        FINISH,
        "v_store(unit[j].out + v, flush(h));",
        "v_store(unit[j].out + v, h);",
        "check_kernels",
    ),
    Mutant(
        "c not fused",
        FINISH,
        "vf next = v_fma(f, c, v_mul(i, g));",
        "vf next = v_add(v_mul(f, c), v_add(v_mul(i, g), v_mul(v_all(1e-6f), g)));",
        "check_kernels",
    ),
    Mutant(
        "h from c without tanh",
        FINISH,
        "v_mul(o, a->plain ? tanh_(s) :",
        "v_mul(o, a->plain ? s :",
        "check_kernels",
    ),
    Mutant(
        "h through the candidate's function",
        FINISH,
        "gate_function(&a->h, ",
        "gate_function(&a->g, ",
        "check_kernels",
    ),
    Mutant(
        "peephole row of o for f",
        FINISH,
        "peep(weight, 1, c, v_load(z",
        "peep(weight, 2, c, v_load(z",
        "check_kernels",
    ),
    Mutant(
        "peephole row of f for i",
        FINISH,
        "peep(weight, 0, c, v_load(z",
        "peep(weight, 1, c, v_load(z",
        "check_kernels",
    ),
    Mutant(
        "peephole row of f for o",
        FINISH,
        "peep(weight, 2, c, z)",
        "peep(weight, 1, c, z)",
        "check_kernels",
    ),
    Mutant(
        "peepholes of the first block for all",
        CELL,
        "form->peephole + b * 3 * UNITS",
        "form->peephole",
        "check_kernels",
    ),
    Mutant(
        "i = f where i = 1 - f",
        FINISH,
        "if (a->at.i < 0) i = v_sub(one, f);",
        "if (a->at.i < 0) i = f;",
        "check_kernels",
    ),
    Mutant(
        "f = i where f = 1 - i",
        FINISH,
        "if (a->at.f < 0) f = v_sub(one, i);",
        "if (a->at.f < 0) f = i;",
        "check_kernels",
    ),
    Mutant(
        "stored cell clip forgotten",
        FINISH,
        "next = clamp(next, -a->cell_clip, a->cell_clip);",
        ";",
        "check_kernels",
    ),
    Mutant(
        "cell clip forgotten",
        FINISH,
        "s = clamp(s, -a->cell_clip, a->cell_clip);",
        ";",
        "check_kernels",
    ),
    Mutant(
        "stored cell clip repeated behind the norm",
        FINISH,
        "if (!a->plain && !a->cell_clip_stored) s =",
        "if (!a->plain) s =",
        "check_models",
    ),
    Mutant(
        "gates not clipped",
        FINISH,
        "(a->plain ? sigmoid(x) : gate_function(&a->which, clamp(x, -a->clip, a->clip)))",
        "(a->plain ? sigmoid(x) : gate_function(&a->which, x))",
        "check_kernels",
    ),
    Mutant(
        "candidate not clipped",
        FINISH,
        "(a->plain ? tanh_(x) : gate_function(&a->which, clamp(x, -a->clip, a->clip)))",
        "(a->plain ? tanh_(x) : gate_function(&a->which, x))",
        "check_kernels",
    ),
    Mutant(
        "zoneout of h the other way round",
        FINISH,
        "h = v_fma(v_all(a->zone_h), v_load(unit[j].old + v), v_mul(v_all(a->fresh_h), h));",
        "h = v_fma(v_all(a->fresh_h), v_load(unit[j].old + v), v_mul(v_all(a->zone_h), h));",
        "check_kernels",
    ),
    Mutant(
        "zoneout of c by the share of h",
        FINISH,
        "v_mul(v_all(a->fresh_c), c)",
        "v_mul(v_all(a->fresh_h), c)",
        "check_kernels",
    ),
    Mutant(
        "zoneout of c with the new c",
        FINISH,
        "const vf old = v_load(unit[j].c_old + v);",
        "const vf old = c;",
        "check_kernels",
    ),
    # ---- GRU and RNN
    Mutant(
        "reset of the input's part",
        FINISH,
        "v_fma(r, v_load(sum + 2 * UNITS), v_load(sum + 3 * UNITS))",
        "v_fma(r, v_load(sum + 3 * UNITS), v_load(sum + 2 * UNITS))",
        "check_kernels",
    ),
    Mutant(
        "update the other way round",
        FINISH,
        "v_fma(v_load(sum + UNITS), change, m)",
        "v_fma(v_load(sum + UNITS), change, v_load(unit[j].old + v))",
        "check_kernels",
    ),
    Mutant(
        "update the other way round (reset before)",
        FINISH,
        "v_fma(v_load(unit[j].z + v), change, m)",
        "v_fma(v_load(unit[j].z + v), change, v_load(unit[j].old + v))",
        "check_kernels",
    ),
    Mutant(
        "no reset before the product",
        FINISH,
        "v_mul(r, v_load(unit[j].old + v))",
        "v_load(unit[j].old + v)",
        "check_kernels",
    ),
    Mutant(
        "z is r",
        FINISH,
        "v_store(unit[j].z + v, GATE(f, v_load(sum + UNITS)));",
        "v_store(unit[j].z + v, GATE(f, v_load(sum)));",
        "check_kernels",
    ),
    Mutant(
        "flush of an RNN removed",
        FINISH,
        "flush(VALUE(f, v_load(unit[j].total + v)))",
        "VALUE(f, v_load(unit[j].total + v))",
        "check_kernels",
    ),
    Mutant(
        "bias behind the reset forgotten (one row)",
        CELL,
        "*last = v_load(p->apart + (block + b) * UNITS + v * LANES);",
        "*last = v_all(0.0f);",
        "check_kernels",
    ),
    Mutant(
        "bias behind the reset forgotten (many rows)",
        CELL,
        "memcpy(last, p->apart + b * UNITS, UNITS * sizeof *last);",
        "memset(last, 0, UNITS * sizeof *last);",
        "check_kernels",
    ),
    # ---- gate functions
    Mutant(
        "relu loses NaN",
        FINISH,
        "case GATE_RELU: return v_max(zero, x);",
        "case GATE_RELU: return v_max(x, zero);",
        "check_kernels",
    ),
    Mutant("hard sigmoid up to 2", FINISH, "0.0f, 1.0f)", "0.0f, 2.0f)", "check_kernels"),
    Mutant(
        "hard tanh symmetric",
        FINISH,
        "clamp(x, a->alpha, a->beta)",
        "clamp(x, -a->beta, a->beta)",
        "check_kernels",
    ),
    Mutant(
        "softsign of infinity",
        FINISH,
        "v_min(v_all(0x1p100f), v_abs(x))",
        "v_abs(x)",
        "check_kernels",
    ),
    Mutant(
        "softplus as relu",
        FINISH,
        "case GATE_SOFTPLUS: return softplus(x);",
        "case GATE_SOFTPLUS: return v_max(zero, x);",
        "check_kernels",
    ),
    Mutant(
        "elu without alpha",
        FINISH,
        "v_mul(alpha, expm1_negative(x))",
        "expm1_negative(x)",
        "check_kernels",
    ),
    Mutant(
        "leaky on the other side",
        FINISH,
        "case GATE_LEAKY: return v_select(v_lt(x, zero)",
        "case GATE_LEAKY: return v_select(v_lt(zero, x)",
        "check_kernels",
    ),
    Mutant(
        "threshold of 0",
        FINISH,
        "v_select(v_lt(alpha, x), x, v_max(",
        "v_select(v_lt(zero, x), x, v_max(",
        "check_kernels",
    ),
    Mutant("threshold loses NaN", FINISH, "v_max(zero, v_min(zero, x))", "zero", "check_kernels"),
    Mutant(
        "scaled tanh without beta",
        FINISH,
        "tanh_(v_mul(v_all(a->beta), x))",
        "tanh_(x)",
        "check_kernels",
    ),
    Mutant(
        "affine without beta",
        FINISH,
        "case GATE_AFFINE: return v_fma(alpha, x, v_all(a->beta));",
        "case GATE_AFFINE: return v_mul(alpha, x);",
        "check_kernels",
    ),
    # ---- the sums of a cell
    Mutant(
        "x and h in the other order (one row)",
        CELL,
        "one_row(P, G, t, w, n_x, rows->x); "
        "if (apart) UNROLL for (int b = 0; b < P; b++) UNROLL for (int v = 0; v < NV; v++) { vf *last = &t[(b * G + G - 1) * NV + v]; v_store(total[b] + 3 * UNITS + v * LANES, *last); *last = v_load(p->apart + (block + b) * UNITS + v * LANES); } "
        "one_row(P, G, t, w, n_h, h);",
        "for (int b = 0; b < P; b++) w[b] += n_x * G * UNITS;\n"
        "        one_row(P, G, t, w, n_h, h);\n"
        "        for (int b = 0; b < P; b++) w[b] -= (n_x + n_h) * G * UNITS;\n"
        "        one_row(P, G, t, w, n_x, rows->x);\n"
        "        for (int b = 0; b < P; b++) w[b] += n_h * G * UNITS;",
        "digest",
    ),
    Mutant(
        "h reads the weights of x",
        CELL,
        "many_rows(P, G, w + p->n_x * G * UNITS, next, p->n_h,",
        "many_rows(P, G, w, next, p->n_h,",
        "check_kernels",
    ),
    Mutant(
        "c reads the weights of h (many rows)",
        CELL,
        "w + (p->n_x + p->n_h) * G * UNITS",
        "w + p->n_x * G * UNITS",
        "check_kernels",
    ),
    Mutant(
        "c takes the values of h (one row)",
        PRODUCT,
        "*x = in->x[in->part] + in->at;",
        "*x = in->x[in->part == 2 ? 1 : in->part] + in->at;",
        "check_kernels",
    ),
    Mutant(
        "a row takes its neighbour's h", CELL, "if (group.h) group.h += r;", "", "check_kernels"
    ),
    Mutant(
        "a row takes its neighbour's c", CELL, "if (group.c) group.c += r;", "", "check_kernels"
    ),
    Mutant(
        "a row takes its neighbour's old c", CELL, "if (group.k) group.k += r;", "", "check_kernels"
    ),
    Mutant(
        "a row mixes in its neighbour's h",
        CELL,
        "if (group.old) group.old += r;",
        "",
        "check_kernels",
    ),
    Mutant(
        "a row mixes in its neighbour's c", CELL, "forward(&group.c_old, r);", "", "check_kernels"
    ),
    Mutant("a row takes its neighbour's z", CELL, "forward(&group.z, r);", "", "check_kernels"),
    Mutant(
        "a row shows its neighbour's c", CELL, "forward(&group.squash, r);", "", "check_kernels"
    ),
    Mutant(
        "totals of the first row for all",
        CELL,
        "group.total += r * rows->total_stride;",
        "",
        "check_kernels",
    ),
    Mutant(
        "sums of the first row handed out for all",
        CELL,
        "hand_out(G, rows, r, b + i, totals[r]",
        "hand_out(G, rows, 0, b + i, totals[r]",
        "cells",
    ),
    Mutant(
        "sums of the first block handed out for all",
        CELL,
        "hand_out(G, rows, 0, first + b, total[b]);",
        "hand_out(G, rows, 0, b, total[b]);",
        "check_models",
    ),
    Mutant(
        "blocks that make no tile forgotten",
        CELL,
        "!rows->backward && i < left; i++)",
        "!rows->backward && i + 1 < left; i++)",
        "check_kernels",
    ),
    Mutant(
        "second block of a tile at the place of the first",
        CELL,
        "b + i, totals[r] + i * G * UNITS);\n        }",
        "b + i, totals[r]);\n        }",
        "check_kernels",
    ),
    Mutant(
        "second block of inputs takes the weights of the first",
        PRODUCT,
        "w2[b] = w[b] + n * G * UNITS;",
        "w2[b] = w[b];",
        "check_kernels",
    ),
    Mutant(
        "last panel alone forgotten",
        CELL,
        "CASE(1);\n        CASE(2);",
        "CASE(2);",
        "check_kernels",
    ),
    Mutant(
        "backward skips the last blocks",
        CELL,
        "return backward ? n - 1 - i : i;",
        "return backward && i ? n - 1 - i : i;",
        "check_kernels",
    ),
]
