// SPDX-License-Identifier: MIT
/* What the kernels must compute, in double and plain loops over row-major matrices, and how
 * far float32 may lie from it. It is written from PyTorch's documentation and shares no code,
 * layout or formula with csrc/; the bounds are those that tests/bounds.py derives. */
#ifndef ORACLE_H
#define ORACLE_H

#include <stddef.h>

#include "../../csrc/src/kernels/kernels.h" /* the kinds of map and norm, nothing else */

struct value {
    double exact, bound;
};

/* NaN for NaN, the same infinity for an infinity (or what rounds to it), else in the bound. */
int within(float got, struct value expected);

/* bias + w x + u h, of [n_x] and [n_h] inputs. */
struct value oracle_sum(double bias, size_t n_x, const float *w, const float *x, size_t n_h,
                        const float *u, const float *h);

/* A cell: row-major float32, gates in the order i f g o; b1, b2, u may be NULL. */
struct cell {
    size_t n_x, n_h, n_hidden;
    const float *w, *u;   /* [4 n_hidden][n_x], [4 n_hidden][n_h] */
    const float *b1, *b2; /* [4 n_hidden] */
};

/* The pre-activations z[4][n_hidden] of one row. */
void oracle_gates(const struct cell *cell, const float *x, const float *h, struct value *z);
/* From z and c[n_hidden] to the next c and h. */
void oracle_finish(size_t n_hidden, const struct value *z, const float *c, struct value *c_next,
                   struct value *h_next);

/* a and b are the values beside x in their arrays, 0 where there are none. */
struct value oracle_map(enum map_kind kind, float x, float a, float b, const float p[2]);
void oracle_norm(enum norm_kind kind, size_t n, const float *x, const float *weight,
                 const float *bias, float eps, struct value *out);

#endif
