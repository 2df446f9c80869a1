// SPDX-License-Identifier: MIT
/* A recurrent op over a frame: for each layer and direction the input part of all rows as one
 * product, then the recurrence step by step, from the totals that the product left. */
#include <string.h>

#include "frame.h"
#include "parallel.h"

static const float *row(struct values v, size_t r) { return v.at + r * v.stride; }

/* Of whole units: small rows would wait longer for a call of memcpy than for the copy. */
static void copy_row(float *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i += UNITS) memcpy(to + i, from + i, UNITS * sizeof *to);
}

static struct values from(struct values v, size_t r)
{
    return (struct values){v.at + r * v.stride, v.stride};
}

/* Totals of n rows from bias and x, by either back end; late gates behind the early ones. */
static struct values input_part(const clstm_model *m, const struct cell *cell, struct frame *f,
                                size_t n, struct values x)
{
    const struct values z = {f->z, cell_sums(cell)};
    if (cell->blas.x && n > 1) {
        for (size_t r = 0; r < n; r++)
            memcpy(z.at + r * z.stride, cell->gates.bias, z.stride * sizeof *z.at);
        clstm_blas_product(&m->blas, cell->blas.x, z.stride, cell->n_input, n, x.at, x.stride, z);
        return z;
    }
    clstm_run_product(m, &cell->gates, n, x.at, x.stride, z);
    if (cell->late.n_blocks) {
        float *at = z.at + cell->gates.n_blocks * cell->gates.n_gates * UNITS;
        clstm_run_product(m, &cell->late, n, x.at, x.stride, (struct values){at, z.stride});
    }
    return z;
}

/* Where step t of n rows finds h and c: h in the outputs of the step before it (`behind`,
 * n_behind rows), or in the state for a sequence that begins here. */
static void point(const struct cell *cell, struct frame *f, size_t n, struct values behind,
                  size_t n_behind)
{
    for (size_t r = 0; r < n; r++) {
        f->h[r] = r < n_behind ? row(behind, r) : f->state[r] + cell->h_at;
        if (cell->has_c) f->c[r] = f->state[r] + cell->c_at;
    }
}

/* The h of sequences begin ... end - 1, which stop here, goes back to their states. */
static void keep(const struct cell *cell, struct frame *f, struct values out, size_t begin,
                 size_t end)
{
    for (size_t r = begin; r < end; r++)
        copy_row(f->state[r] + cell->h_at, row(out, r), padded(cell->n_out));
}

static size_t rows_at(const struct frame *f, size_t t) /* 0 past the end */
{
    return t < f->n_steps ? f->first[t + 1] - f->first[t] : 0;
}

/* Steps from t on, in the direction of time or against it, whose totals fit in z. */
static size_t steps_that_fit(const struct frame *f, size_t t, int reverse)
{
    size_t n = 1, rows = rows_at(f, t);
    const size_t left = reverse ? t + 1 : f->n_steps - t;
    while (n < left) {
        rows += rows_at(f, reverse ? t - n : t + n);
        if (rows > f->z_rows) break;
        n++;
    }
    return n;
}

static void step_cell(const clstm_model *m, const struct cell *cell, struct frame *f,
                      const struct cell_rows *rows, struct values out)
{
    if (takes_passes(cell)) clstm_step_in_passes(m, cell, f, rows, out);
    else clstm_run_cell(m, &cell->gates, &cell->form, rows);
}

/* The only step of a frame: x and h in one pass over the panels. */
static void walk_step(const clstm_model *m, const struct cell *cell, struct frame *f,
                      struct values in, struct values out)
{
    const size_t n = f->first[1];
    const struct values bias = {cell->gates.bias, 0};
    struct cell_rows rows = clstm_cell_rows(cell, f, n, bias, &in, out);
    rows.backward = f->turn & 1;
    point(cell, f, n, out, 0);
    step_cell(m, cell, f, &rows, out);
    keep(cell, f, out, 0, n);
}

/* Where the outputs of layer k of a stack go. */
static struct values result_of(const struct recurrent *l, const struct frame *f, size_t k,
                               struct values out)
{
    if (k + 1 == l->n_layers) return out;
    return (struct values){f->layer[k % 2], padded(l->cells->n_out * l->n_directions)};
}

/* The only step of a stream's frame, as briefly as can be: around a small model such code takes as
 * long as its products. What stays from step to step is found once. */
static void walk_stream_step(const clstm_model *m, const struct recurrent *l, struct frame *f,
                             struct values in, struct values out)
{
    float *state = f->state[0];
    for (size_t k = 0; k < l->n_layers; k++) {
        const struct cell *cell = &l->cells[k];
        const struct values result = result_of(l, f, k, out);
        struct stream_step *step = &f->steps[cell->number];
        if (!step->rows.n) {
            const struct values bias = {cell->gates.bias, 0};
            step->rows = clstm_cell_rows(cell, f, 1, bias, &in, result);
            step->h = state + cell->h_at;
            step->c = state + cell->c_at;
            step->rows.h = step->rows.old = &step->h;
            if (cell->has_c) step->rows.c = &step->c;
        }
        step->rows.backward = f->turn & 1;
        step_cell(m, cell, f, &step->rows, result);
        copy_row(state + cell->h_at, result.at, padded(cell->n_out));
        in = result;
    }
}

static void walk_cell(const clstm_model *m, const struct cell *cell, struct frame *f,
                      struct values in, struct values out, int reverse)
{
    if (f->n_steps == 1 && !(cell->blas.x && f->first[1] > 1)) { /* the BLAS takes both apart */
        walk_step(m, cell, f, in, out);
        return;
    }
    for (size_t done = 0; done < f->n_steps;) {
        size_t t = reverse ? f->n_steps - 1 - done : done;
        const size_t count = steps_that_fit(f, t, reverse);
        const size_t first = f->first[reverse ? t + 1 - count : t];
        const size_t last = f->first[reverse ? t + 1 : t + count];
        const struct values z = input_part(m, cell, f, last - first, from(in, first));
        for (size_t i = 0; i < count; i++, done++) {
            t = reverse ? f->n_steps - 1 - done : done;
            const size_t n = rows_at(f, t), at = f->first[t];
            const struct values now = from(out, at);
            if (reverse) point(cell, f, n, from(out, f->first[t + 1]), rows_at(f, t + 1));
            else point(cell, f, n, from(out, t ? f->first[t - 1] : 0), t ? n : 0);
            const struct values total = from(z, at - first);
            struct cell_rows rows = clstm_cell_rows(cell, f, n, total, NULL, now);
            rows.backward = (f->turn + t) & 1;
            if (cell->blas.x && n > 1 && !cell->gates.apart) {
                clstm_recurrent_part(m, cell, f, n, total);
                rows.h = NULL;
            }
            step_cell(m, cell, f, &rows, now);
            /* Forward, a sequence ends where the next step has fewer rows; in reverse, all
             * end at step 0. */
            if (!reverse) keep(cell, f, now, rows_at(f, t + 1), n);
            else if (t == 0) keep(cell, f, now, 0, n);
        }
    }
}

void clstm_recurrent_walk(const clstm_model *m, const struct recurrent *l, struct frame *f,
                          struct values in, struct values out)
{
    if (f->steps && f->n_steps == 1) {
        walk_stream_step(m, l, f, in, out);
        return;
    }
    const size_t n_rows = f->first[f->n_steps];
    for (size_t k = 0; k < l->n_layers; k++) {
        const struct cell *cells = l->cells + k * l->n_directions;
        const size_t n_out = cells->n_out;
        const struct values result = result_of(l, f, k, out);
        if (l->n_directions == 1) walk_cell(m, cells, f, in, result, l->reverse);
        else {
            /* Not straight into the result: a padded row of one would run into the other. */
            for (int d = 0; d < 2; d++)
                walk_cell(m, &cells[d], f, in, (struct values){f->direction[d], padded(n_out)}, d);
            for (size_t r = 0; r < n_rows; r++)
                for (int d = 0; d < 2; d++)
                    memcpy(result.at + r * result.stride + d * n_out,
                           f->direction[d] + r * padded(n_out), n_out * sizeof(float));
        }
        in = result;
    }
}
