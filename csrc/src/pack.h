// SPDX-License-Identifier: MIT
/* From PyTorch's row-major matrices to the panels of kernels.h. */
#ifndef CLSTM_PACK_H
#define CLSTM_PACK_H

#include "alloc.h"
#include "kernels/kernels.h"

/* Gates of a matrix of n_out rows each. gate[i] is the number of the i-th that is packed, so
 * that some may be left for another matrix. */
struct matrix {
    size_t n_gates, n_out, n_x, n_h, n_c;
    const int *gate;             /* [n_gates], or NULL: 0, 1, ...                             */
    const float *w, *u, *k;      /* [rows][n_x], [rows][n_h], [rows][n_c]                     */
    const float *b1, *b2;        /* [rows] or NULL; summed                                    */
    const double *add;           /* NULL, or for each gate of w a number that its biases get */
    const double *scale, *shift; /* [n_out] or NULL: rows and bias times scale, then + shift */
    int apart;                   /* b2 of the last gate begins a sum of its own               */
};
int clstm_pack(struct arena *memory, const struct matrix *m, struct panels *out);

/* n values (or one for all) as a padded row. */
float *clstm_pack_row(struct arena *memory, const float *values, size_t n, size_t width);

/* n_rows rows of n values as [blocks][n_rows][UNITS]. */
float *clstm_pack_units(struct arena *memory, const float *values, size_t n_rows, size_t n);

#endif
