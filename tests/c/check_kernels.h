// SPDX-License-Identifier: MIT
/* What the parts of check_kernels share. */
#ifndef CHECK_KERNELS_H
#define CHECK_KERNELS_H

#include "../../csrc/src/model.h"
#include "../../csrc/src/pack.h"
#include "check.h"
#include "oracle.h"

extern const struct kernels *sets[4];
extern size_t n_sets;

#define N_EDGES 15 /* sizes around the edges of vectors, unit blocks and blocks of 64 */
extern const size_t edges[N_EDGES];

size_t some_size(struct rng *r);
float *some(struct rng *r, size_t n, float scale);
/* n rows of `width` values, `stride` apart; the gaps stay NaN. */
float *some_rows(struct rng *r, size_t n, size_t width, size_t stride, float scale);
/* Values at which something happens: NaN, infinities, zeros, denormals, saturation. */
float rare(struct rng *r);
float weight_scale(size_t n); /* a power of two near 2 / sqrt(n) */

void check_cells(struct rng *r); /* check_cells.c */

#endif
