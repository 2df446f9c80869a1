// SPDX-License-Identifier: MIT
/* A recurrent op: cells (one of each layer and direction) with their packed weights. */
#ifndef CLSTM_CELL_H
#define CLSTM_CELL_H

#include "gemm.h"
#include "kernels/kernels.h"
#include "weights.h"

/* Layer normalisation of the sums, and of c. */
struct cell_norm {
    int per_gate, separate, cell, cell_stored, bias;
    const float *weight[2],
        *offset[2];      /* of x's (or all) and of h's sums: [gates][padded n_hidden]
                            gate by gate, else [n_gates * n_hidden]; offset or NULL */
    const float *after;  /* [gates][padded n_hidden]: the biases                     */
    const float *inside; /* [3][padded n_hidden]: peepholes normalised too, or NULL  */
    const float *cell_weight, *cell_offset; /* [padded n_hidden] */
    float eps;
};

/* One layer and direction. Offsets are in floats from a state's row, in which each cell has
 * h, then (an LSTM) c, both padded. */
struct cell {
    size_t n_input, n_hidden, n_out; /* n_out: proj_size, or hidden_size                          */
    struct panels gates;             /* [W | U | K] of the gates that wait for nothing new        */
    struct form form;
    struct panels late; /* of those that do: the GRU's n behind r, the o that sees c(t);
                           no blocks without                                                      */
    struct form late_form;
    struct panels project; /* W_hr; no blocks without                                             */
    float proj_clip;
    const struct cell_norm *norm; /* or NULL                                                      */
    struct blas_panels blas;      /* the gates again; empty unless gemm=blas                      */
    int has_c;
    size_t number; /* among all cells of the model */
    size_t h_at, c_at;
};

struct recurrent {
    struct cell *cells; /* [n_layers][n_directions] */
    size_t n_layers, n_directions;
    int reverse; /* the only direction goes against time */
};

struct clstm_model;
/* make_cells.c: from a checked record; lays its state out behind what the model has. */
clstm_status clstm_make_cells(struct clstm_model *m, const struct weights *w,
                              const struct op_record *rec, struct recurrent *out);

/* Floats of the sums of one row, early and late gates side by side. */
static inline size_t cell_sums(const struct cell *c)
{
    return (c->gates.n_blocks * c->gates.n_gates + c->late.n_blocks * c->late.n_gates) * UNITS;
}

static inline int reads_old_c(const struct cell *c) { return c->form.zone_c > 0 || c->gates.n_c; }

/* Whether a step is more than one kernel call. */
static inline int takes_passes(const struct cell *c)
{
    return c->norm || c->late.n_blocks || c->project.n_blocks || reads_old_c(c);
}

#endif
