// SPDX-License-Identifier: MIT
/* The gate products of sequences and batches by a BLAS, for models that ask for it. */
#ifndef CLSTM_GEMM_H
#define CLSTM_GEMM_H

#include "alloc.h"
#include "clstm.h"
#include "kernels/kernels.h"

struct blas {
    void *sgemm;      /* cblas_sgemm, NULL when closed  */
    int wide;         /* its integers have 64 bits      */
    const char *path; /* owned by the model's arena     */
};

/* Panels as two plain matrices with the columns in the panels' order. */
struct blas_panels {
    size_t n_columns;   /* n_blocks * n_gates * UNITS */
    const float *x, *h; /* [n_x][n_columns], [n_h][n_columns]; NULL without BLAS */
};

/* Is gemm "blas"? Words are checked here; opens the library if so. */
clstm_status clstm_blas_open(const clstm_options *opt, struct arena *memory, struct blas *out,
                             char *err);
int clstm_blas_pack(struct arena *memory, const struct panels *p, struct blas_panels *out);

/* total[n][total.stride] += x[n][x_stride] . matrix[n_k][n_columns] */
void clstm_blas_product(const struct blas *blas, const float *matrix, size_t n_columns, size_t n_k,
                        size_t n, const float *x, size_t x_stride, struct values total);

#endif
