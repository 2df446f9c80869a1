// SPDX-License-Identifier: MIT
/* A model: a program (a list of operations over value slots) with its packed weights. */
#ifndef CLSTM_MODEL_H
#define CLSTM_MODEL_H

#include "alloc.h"
#include "clstm.h"
#include "gemm.h"
#include "kernels/kernels.h"
#include "weights.h"

/* One layer and direction of an LSTM. Offsets are in floats from a state's row, in which
 * each cell has h, then c, both padded. */
struct lstm_cell {
    size_t n_input, n_hidden, n_out; /* n_out: proj_size, or hidden_size        */
    struct panels gates;             /* [W | U], biases summed                  */
    struct panels project;           /* W_hr; no blocks without projection      */
    struct blas_panels blas;         /* the gates again; empty unless gemm=blas */
    size_t h_at, c_at;
};

struct lstm {
    struct lstm_cell *cells; /* [n_layers][n_directions] */
    size_t n_layers, n_directions;
};

struct map {
    enum map_kind kind;
    const float *a, *b; /* [padded width] or NULL */
    float p[2];
};

struct norm {
    enum norm_kind kind;
    const float *weight, *bias; /* [padded width] or NULL */
    float eps;
};

struct embedding {
    const float *table; /* [n][padded width] */
    size_t n;
};

/* What an op does when it runs. Several kinds of the file share one. */
enum action { RUN_ALIAS, RUN_LSTM, RUN_PRODUCT, RUN_EMBEDDING, RUN_MAP, RUN_NORM };

struct op {
    enum action action;
    size_t input; /* the slot read; op i writes slot i + 1 */
    union {
        struct lstm lstm;
        struct panels product;
        struct embedding embedding;
        struct map map;
        struct norm norm;
    };
};

struct clstm_model {
    struct arena memory; /* all below */
    const struct kernels *kernels;
    struct blas blas; /* closed unless gemm=blas */
    struct op *ops;
    size_t n_ops;
    size_t *widths;    /* [n_ops + 1]: features of each slot                         */
    size_t n_tokens;   /* num_embeddings, 0 for no tokens                            */
    size_t state_size; /* floats, logical                                            */
    size_t state_row;  /* floats, padded                                             */
    float *initial;    /* [state_row]                                                */
    size_t run_rows;   /* steps that a stream takes at once in clstm_run             */
    int bidirectional;
};

clstm_status clstm_model_create(const struct weights *w, const clstm_options *given,
                                clstm_model **out, char *err);
/* Recomputes the certificate in the weights, if there is one. */
clstm_status clstm_model_verify(const clstm_model *model, const struct weights *w, char *err);

/* A padded row from or to the caller's logical order. */
void clstm_state_load(const clstm_model *model, float *row, const float *logical);
void clstm_state_store(const clstm_model *model, const float *row, float *logical);

/* pack.c: row-major float32 to panels. u, b1, b2 may be NULL; scale[n_out] multiplies the
 * rows and the bias, to which shift[n_out] is added then (both NULL for none). */
struct matrix {
    size_t n_gates, n_out, n_x, n_h;
    const float *w, *u, *b1, *b2; /* [n_gates * n_out][n_x], [..][n_h], [..], [..] */
    const double *scale, *shift;
};
int clstm_pack(struct arena *memory, const struct matrix *m, struct panels *out);
float *clstm_pack_row(struct arena *memory, const float *values, size_t n, size_t width);

/* dispatch.c */
clstm_status clstm_choose_kernels(const clstm_options *opt, const struct kernels **out, char *err);

#endif
