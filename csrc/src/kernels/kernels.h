// SPDX-License-Identifier: MIT
/* What a kernel set is: one table of functions, made from one text per kernel.
 *
 * Shapes. Weights are packed as panel[block][k][gate][UNITS]: UNITS hidden units finish
 * together, so their gates never leave the registers. Rows of values are padded to
 * UNITS floats; the pad is zero in weights, and what lands in it is never read back.
 *
 * Order. Each sum starts from its bias (or a total that began there); blocks of K_BLOCK
 * inputs are added to it in index order, those of x first, then those of h; a block is
 * one chain of fused multiply-adds from zero. Width, rows and threads change nothing. */
#ifndef CLSTM_KERNELS_H
#define CLSTM_KERNELS_H

#include <stddef.h>

#include "clstm.h"

#include "form.h"

#define UNITS 16
#define K_BLOCK 64
#define GATES_MAX 4
#define ROW_GROUP                                                                                  \
    64 /* rows that share one pass over the weights: fewer would read weights                      \
          beyond L2 too often, more would not stay in L1 with their totals */

static inline size_t padded(size_t n) { return (n + UNITS - 1) / UNITS * UNITS; }

/* One packed matrix, or up to three side by side that are read for the same sums. */
struct panels {
    size_t n_gates;       /* 4 for an LSTM, 1 for a plain matrix                         */
    size_t n_blocks;      /* of UNITS outputs each                                       */
    size_t n_x, n_h, n_c; /* inputs of the parts, in the order of the sums; any may be 0 */
    float *weight;        /* owned: [n_blocks][n_x + n_h + n_c][n_gates][UNITS]          */
    float *bias;          /* owned: [n_blocks][n_gates][UNITS]                           */
    float *apart;         /* owned: [n_blocks][UNITS], or NULL: of the last gate the h part
                             is a sum of its own that begins here (GRU, r behind it)     */
};

/* Rows of values: row r begins at at[r * stride]. */
struct values {
    float *at;
    size_t stride;
};

/* The rows of one time step of one cell. */
struct cell_rows {
    size_t n;            /* rows                                                     */
    const float *total;  /* [n][total_stride] as product() left them, or the bias    */
    size_t total_stride; /* 0: every row starts from the bias                        */
    const float *x;      /* [n][x_stride], or NULL: x is in the totals already       */
    size_t x_stride;
    const float *const *h; /* [n] rows of the h part, or NULL: in the totals too       */
    const float *const *k; /* [n] rows of the c part                                   */
    /* Of the same unit: */
    const float *const *old; /* [n] the h of the last step, where the finish mixes it in */
    float *const *c;         /* [n] cell states, updated where they lie                  */
    struct values c_old;     /* [n] the c of the last step, for zoneout                  */
    struct values squash;    /* [n] what goes through the output's function instead of c */
    struct values z;         /* [n] z between FINISH_GRU_RESET and FINISH_GRU_NEW        */
    struct values out;       /* [n] new h; or the totals, [n_blocks][n_gates][UNITS]     */
    size_t first;            /* the block of the cell that these panels begin with       */
    int backward;            /* blocks last to first: every other step, so that what the
                                cache kept of weights larger than it is read first       */
};

/* y = f(x), element by element. */
enum map_kind {
    MAP_ADD,    /* x + a[i] */
    MAP_MUL,    /* x a[i] */
    MAP_AFFINE, /* a[i] x + b[i] */
    MAP_CLAMP,  /* p0 ... p1: ReLU, ReLU6, Hardtanh */
    MAP_LEAKY,  /* a[i] x below 0: LeakyReLU, PReLU */
    MAP_ELU,    /* p0 (exp(x) - 1) below 0 */
    MAP_FLUSH,  /* |x| < 2^-100 to 0 */
    MAP_TANH,
    MAP_SIGMOID,
    MAP_GELU,
    MAP_GELU_TANH,
    MAP_SILU,
    MAP_SOFTPLUS /* log(1 + exp(p0 x)) / p0, x where p0 x > p1 */
};

enum norm_kind { NORM_LAYER, NORM_SOFTMAX, NORM_LOG_SOFTMAX };

struct kernels {
    const char *name;
    int needs; /* enum cpu_feature */

    /* y[n][n_blocks][n_gates][UNITS] = bias + panels . x, over the x part alone. */
    void (*product)(const struct panels *p, size_t n, const float *x, size_t x_stride,
                    struct values y) CLSTM_HOT;
    /* One step of a cell: bias or totals + panels . [x, h, k], then the finish of its form.
     * Panels without inputs finish what stands in the totals. */
    void (*cell)(const struct panels *p, const struct form *form,
                 const struct cell_rows *rows) CLSTM_HOT;
    /* n floats, a multiple of UNITS; a and b are [n] or NULL. */
    void (*map)(enum map_kind kind, size_t n, const float *x, float *y, const float *a,
                const float *b, const float p[2]) CLSTM_HOT;
    /* One row of n features; weight and bias are padded [n] or NULL, for NORM_LAYER. */
    void (*norm)(enum norm_kind kind, size_t n, const float *x, float *y, const float *weight,
                 const float *bias, float eps) CLSTM_HOT;
};

extern const struct kernels clstm_kernels_scalar, clstm_kernels_avx2, clstm_kernels_avx512,
    clstm_kernels_neon;

#endif
