// SPDX-License-Identifier: MIT
/* A frame: some time steps of some sequences on their way through the program.
 *
 * Its rows stand in time order, those of one step side by side, longest sequence first:
 * rows first[t] ... first[t + 1] - 1 belong to step t, and row r of each step to sequence
 * r. So a step never touches a sequence that has ended, and a reverse direction meets each
 * one at its own last step. One stream is a frame of one row a step. */
#ifndef CLSTM_FRAME_H
#define CLSTM_FRAME_H

#include "model.h"

/* The single step of a stream's cell, which is always alike: made at the first one. */
struct stream_step {
    struct cell_rows rows; /* of none, before */
    const float *h;
    float *c;
};

struct frame {
    size_t n_steps;
    const size_t *first;       /* [n_steps + 1]                                       */
    float *const *state;       /* [first[1]]: the state row of each sequence          */
    const int64_t *tokens;     /* [first[n_steps]], of a model of tokens              */
    struct values *slot;       /* [n_ops + 1]; slot 0 is the input                    */
    size_t turn;               /* steps taken before: which way the weights are read  */
    struct stream_step *steps; /* [m->n_cells] of a stream, else NULL                 */
    /* Room to work in, sized by clstm_frame_carve for max_rows and max_batch. */
    size_t z_rows;       /* rows whose totals fit in z                          */
    float *z;            /* totals of the input part                            */
    float *layer[2];     /* outputs between the layers of a stack               */
    float *direction[2]; /* outputs of each direction                           */
    float *unprojected;  /* [max_batch] h before projection                     */
    float *gathered;     /* [max_batch] h rows side by side, for the BLAS       */
    const float **h;     /* [max_batch]                                         */
    float **c;           /* [max_batch]                                         */
    /* Of the cells whose options need them: */
    float *c_old;    /* [max_batch] c of the step before                    */
    float *c_new;    /* [max_batch] a copy of c, or c normalised            */
    float *reset;    /* [max_batch] r * h of a GRU                          */
    float *update;   /* [max_batch] its z                                   */
    float *sums[2];  /* [max_batch] totals to be normalised                 */
    float *logical;  /* one row of them, gate by gate                       */
    const float **k; /* [max_batch] rows of the c part, or of reset         */
};

/* Lays a frame for at most max_rows rows, max_batch a step, out in the carver's memory. */
void clstm_frame_carve(struct carver *carver, const clstm_model *m, size_t max_rows,
                       size_t max_batch, struct frame *out);

/* Steps of one stream that are taken at once: as many as a small scratch block holds. */
size_t clstm_run_rows(const clstm_model *m);

/* step.c: runs the program over the frame, from slot 0 (or the tokens) to the last slot. */
void clstm_walk(const clstm_model *m, struct frame *f);

/* recurrent.c */
void clstm_recurrent_walk(const clstm_model *m, const struct recurrent *l, struct frame *f,
                          struct values in, struct values out);

/* step_cell.c: n rows of a cell, whose h and c pointers stand in the frame (walk_stream_step has
 * its own). `total` has x in it already, unless x is given; then its stride is 0 and it is the
 * biases'. */
struct cell_rows clstm_cell_rows(const struct cell *cell, const struct frame *f, size_t n,
                                 struct values total, const struct values *x, struct values out);
/* One step of them, of a cell that takes_passes. */
void clstm_step_in_passes(const clstm_model *m, const struct cell *cell, struct frame *f,
                          const struct cell_rows *rows, struct values out);
/* totals += U h by the BLAS, which wants its rows side by side. */
void clstm_recurrent_part(const clstm_model *m, const struct cell *cell, struct frame *f, size_t n,
                          struct values z);

#endif
