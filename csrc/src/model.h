// SPDX-License-Identifier: MIT
/* A model: a program (a list of operations over value slots) with its packed weights. */
#ifndef CLSTM_MODEL_H
#define CLSTM_MODEL_H

#include <stdatomic.h>

#include "alloc.h"
#include "cell.h"
#include "clstm.h"
#include "gemm.h"
#include "kernels/kernels.h"
#include "weights.h"

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
enum action {
    RUN_ALIAS,
    RUN_CELLS,
    RUN_PRODUCT,
    RUN_EMBEDDING,
    RUN_MAP,
    RUN_NORM,
    RUN_COMBINE, /* map of the first input with each of the others in turn */
    RUN_CONCAT,
    RUN_SLICE,
    RUN_FIRST
};

#define INPUTS_MAX 4

struct op {
    enum action action;
    size_t n_inputs, inputs[INPUTS_MAX]; /* the slots read; op i writes slot i + 1 */
    union {
        struct recurrent recurrent;
        enum map_kind combine;
        size_t start; /* of a slice */
        struct panels product;
        struct embedding embedding;
        struct map map;
        struct norm norm;
    };
};

struct clstm_model {
    struct arena memory; /* all below */
    const struct kernels *kernels;
    struct blas blas;  /* closed unless gemm=blas */
    struct team *team; /* NULL with one thread */
    struct op *ops;
    size_t n_ops, n_cells;
    size_t *widths;    /* [n_ops + 1]: features of each slot                         */
    size_t n_tokens;   /* num_embeddings, 0 for no tokens                            */
    size_t state_size; /* floats, logical                                            */
    size_t state_row;  /* floats, padded                                             */
    float *initial;    /* [state_row]                                                */
    atomic_uint *turn; /* of sequences: which way the next begins to read the weights        */

    size_t run_rows;  /* steps that a stream takes at once in clstm_run             */
    int against_time; /* some direction needs the end of a sequence first */
};

clstm_status clstm_model_create(const struct weights *w, const clstm_options *given,
                                clstm_model **out, char *err);
/* Recomputes the certificate in the weights, if there is one. */
clstm_status clstm_model_verify(const clstm_model *model, const struct weights *w, char *err);

/* A padded row from or to the caller's logical order. */
void clstm_state_load(const clstm_model *model, float *row, const float *logical);
void clstm_state_store(const clstm_model *model, const float *row, float *logical);
/* The same for sequence b of arrays in torch's layout. */
void clstm_state_load_part(const clstm_model *model, float *row, const float *const *parts,
                           size_t b, size_t n_batch);
void clstm_state_store_part(const clstm_model *model, const float *row, float *const *parts,
                            size_t b, size_t n_batch);

/* dispatch.c */
clstm_status clstm_choose_kernels(const clstm_options *opt, const struct kernels **out, char *err);

#endif
