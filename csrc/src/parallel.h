// SPDX-License-Identifier: MIT
/* The kernels that read weights, by the caller alone or by the model's threads, each with its
 * own share of the unit blocks. Blocks do not depend on each other: the same bits. */
#ifndef CLSTM_PARALLEL_H
#define CLSTM_PARALLEL_H

#include "model.h"

/* As kernels->cell and kernels->product. */
void clstm_run_cell(const clstm_model *m, const struct panels *p, const struct form *form,
                    const struct cell_rows *rows);
void clstm_run_product(const clstm_model *m, const struct panels *p, size_t n, const float *x,
                       size_t x_stride, struct values y);

#endif
