// SPDX-License-Identifier: MIT
/* The kernels that read weights, by the caller alone or by the model's threads, each with its
 * own share of the unit blocks. Blocks do not depend on each other: the same bits. */
#ifndef CLSTM_PARALLEL_H
#define CLSTM_PARALLEL_H

#include "model.h"

/* Of a model with threads. */
void clstm_share_cell(const clstm_model *m, const struct panels *p, const struct form *form,
                      const struct cell_rows *rows);
void clstm_share_product(const clstm_model *m, const struct panels *p, size_t n, const float *x,
                         size_t x_stride, struct values y);

/* As kernels->cell and kernels->product. */
static inline void clstm_run_cell(const clstm_model *m, const struct panels *p,
                                  const struct form *form, const struct cell_rows *rows)
{
    if (m->team) clstm_share_cell(m, p, form, rows);
    else m->kernels->cell(p, form, rows);
}

static inline void clstm_run_product(const clstm_model *m, const struct panels *p, size_t n,
                                     const float *x, size_t x_stride, struct values y)
{
    if (m->team) clstm_share_product(m, p, n, x, x_stride, y);
    else m->kernels->product(p, n, x, x_stride, y);
}

#endif
