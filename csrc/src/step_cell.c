// SPDX-License-Identifier: MIT
/* One time step of one cell for some rows, where it is more than one kernel call: with options that
 * make gates wait for others, normalise their sums, need the old c, or project h. */
#include <math.h>
#include <string.h>

#include "frame.h"
#include "parallel.h"

static struct values rows_of(float *at, size_t n) { return (struct values){at, padded(n)}; }

void clstm_recurrent_part(const clstm_model *m, const struct cell *cell, struct frame *f, size_t n,
                          struct values z)
{
    const size_t stride = padded(cell->n_out);
    for (size_t r = 0; r < n; r++)
        memcpy(f->gathered + r * stride, f->h[r], cell->n_out * sizeof *f->h[r]);
    clstm_blas_product(&m->blas, cell->blas.h, z.stride, cell->n_out, n, f->gathered, stride, z);
}

static void copy_c(const struct cell *cell, struct frame *f, const struct cell_rows *rows,
                   float *to)
{
    const size_t width = padded(cell->n_hidden);
    for (size_t r = 0; r < rows->n; r++) {
        memcpy(to + r * width, rows->c[r], width * sizeof *to);
        f->k[r] = to + r * width;
    }
}

/* The totals of the late gates: behind those of the early ones, or the biases. */
static void late_rows(const struct cell *cell, struct cell_rows *rows)
{
    const size_t early = cell->gates.n_blocks * cell->gates.n_gates * UNITS;
    rows->total = rows->total_stride ? rows->total + early : cell->late.bias;
}

/* r and z, then n: its product with r * h begins when all of r is there. */
static void step_reset(const clstm_model *m, const struct cell *cell, struct frame *f,
                       struct cell_rows rows)
{
    const struct values out = rows.out;
    rows.z = rows_of(f->update, cell->n_hidden);
    rows.out = rows_of(f->reset, cell->n_hidden);
    clstm_run_cell(m, &cell->gates, &cell->form, &rows);
    for (size_t r = 0; r < rows.n; r++) f->k[r] = f->reset + r * rows.out.stride;
    rows.h = f->k;
    rows.out = out;
    late_rows(cell, &rows);
    clstm_run_cell(m, &cell->late, &cell->late_form, &rows);
}

/* i, f and g, then o, whose matrix sees all of the new c. */
static void step_new_output(const clstm_model *m, const struct cell *cell, struct frame *f,
                            struct cell_rows rows)
{
    clstm_run_cell(m, &cell->gates, &cell->form, &rows);
    copy_c(cell, f, &rows, f->c_new); /* zoneout writes into c while others still read it */
    late_rows(cell, &rows);
    clstm_run_cell(m, &cell->late, &cell->late_form, &rows);
}

/* Panels' order [block][gate][UNITS] of one row to gate by gate, and back. Gate by gate a row
 * of the normalisation is padded; all gates together are one row without gaps. */
static void to_logical(const struct cell *cell, const float *sums, float *logical)
{
    const size_t n = cell->n_hidden, G = cell->gates.n_gates;
    const size_t stride = cell->norm->per_gate ? padded(n) : n;
    for (size_t g = 0; g < G; g++)
        for (size_t i = 0; i < n; i += UNITS)
            memcpy(logical + g * stride + i, sums + (i / UNITS * G + g) * UNITS,
                   (n - i < UNITS ? n - i : UNITS) * sizeof *logical);
}

/* Rows of gates first ... last - 1, `stride` apart, to their places among the sums, or added
 * to what stands there. */
static void from_logical(const struct cell *cell, size_t first, size_t last, const float *rows,
                         size_t stride, int add, float *sums)
{
    const size_t n = cell->n_hidden, G = cell->gates.n_gates;
    for (size_t g = first; g < last; g++)
        for (size_t i = 0; i < n; i++) {
            float *to = &sums[(i / UNITS * G + g) * UNITS + i % UNITS];
            *to = rows[g * stride + i] + (add ? *to : 0.0f);
        }
}

static void normalise(const clstm_model *m, const struct cell *cell, int which, size_t first,
                      size_t last, float *logical)
{
    const struct cell_norm *norm = cell->norm;
    const float *weight = norm->weight[which], *offset = norm->offset[which];
    const size_t n = cell->n_hidden, width = padded(n);
    if (!norm->per_gate) {
        m->kernels->norm(NORM_LAYER, cell->gates.n_gates * n, logical, logical, weight, offset,
                         norm->eps);
        return;
    }
    for (size_t g = first; g < last; g++)
        m->kernels->norm(NORM_LAYER, n, logical + g * width, logical + g * width,
                         weight + g * width, offset ? offset + g * width : NULL, norm->eps);
}

/* A peephole inside the normalisation: weight * c goes to the sums of its gate. */
static void peep_inside(const clstm_model *m, const struct cell *cell, int row, int gate,
                        const float *c, float *logical)
{
    const size_t width = padded(cell->n_hidden);
    const float none[2] = {0};
    if (gate < 0) return;
    m->kernels->map(MAP_AFFINE, width, c, logical + gate * width, cell->norm->inside + row * width,
                    logical + gate * width, none);
}

/* The sums of row r, normalised; with peepholes inside first all gates but o, which waits for
 * the new c, then o. */
static void normalise_row(const clstm_model *m, const struct cell *cell, struct frame *f, size_t r,
                          const float *c, int late)
{
    const struct cell_norm *norm = cell->norm;
    const size_t G = cell->gates.n_gates, sums = cell_sums(cell);
    const size_t first = late ? G - 1 : 0, last = norm->inside && !late ? G - 1 : G;
    const size_t width = padded(cell->n_hidden), stride = norm->per_gate ? width : cell->n_hidden;
    float *total = f->sums[0] + r * sums;
    to_logical(cell, total, f->logical);
    if (norm->inside && !late) {
        peep_inside(m, cell, 0, cell->form.at.i, c, f->logical);
        peep_inside(m, cell, 1, cell->form.at.f, c, f->logical);
    } else if (late) peep_inside(m, cell, 2, cell->form.at.o, c, f->logical);
    normalise(m, cell, 0, first, last, f->logical);
    from_logical(cell, first, last, f->logical, stride, 0, total);
    if (norm->separate) {
        to_logical(cell, f->sums[1] + r * sums, f->logical);
        normalise(m, cell, 1, first, last, f->logical);
        from_logical(cell, first, last, f->logical, stride, 1, total);
    }
    from_logical(cell, first, last, norm->after, width, 1, total);
}

static const struct form none = {.finish = FINISH_NONE};

static void step_normed(const clstm_model *m, const struct cell *cell, struct frame *f,
                        struct cell_rows rows)
{
    const struct cell_norm *norm = cell->norm;
    const struct kernels *k = m->kernels;
    const size_t sums = cell_sums(cell), width = padded(cell->n_hidden);
    const struct values out = rows.out, total = {f->sums[0], sums};
    struct cell_rows part = rows;
    part.out = total;
    if (norm->separate) { /* x's product alone, then h's from zero */
        part.h = NULL;
        clstm_run_cell(m, &cell->gates, &none, &part);
        part = rows;
        part.x = NULL;
        part.total = cell->gates.bias;
        part.total_stride = 0;
        part.out = (struct values){f->sums[1], sums};
    }
    clstm_run_cell(m, &cell->gates, &none, &part);
    for (size_t r = 0; r < rows.n; r++) normalise_row(m, cell, f, r, rows.c[r], 0);
    /* Panels without inputs: only the finish, in its two passes. */
    struct panels finished = cell->gates;
    finished.n_x = finished.n_h = finished.n_c = 0;
    struct form form = cell->form;
    rows.total = total.at;
    rows.total_stride = total.stride;
    rows.x = NULL;
    rows.h = NULL;
    rows.out = out;
    form.finish = FINISH_LSTM_CELL;
    clstm_run_cell(m, &finished, &form, &rows);
    for (size_t r = 0; r < rows.n; r++) {
        float *to = norm->cell_stored ? rows.c[r] : f->c_new + r * width;
        if (!norm->cell) continue;
        k->norm(NORM_LAYER, cell->n_hidden, rows.c[r], to, norm->cell_weight, norm->cell_offset,
                norm->eps);
        if (norm->cell_stored) k->map(MAP_FLUSH, width, to, to, NULL, NULL, (const float[2]){0});
    }
    if (norm->cell && !norm->cell_stored) rows.squash = (struct values){f->c_new, width};
    for (size_t r = 0; norm->inside && r < rows.n; r++) normalise_row(m, cell, f, r, rows.c[r], 1);
    form.finish = FINISH_LSTM_OUT;
    clstm_run_cell(m, &finished, &form, &rows);
}

/* h = W_hr h' + b_hr, clipped. */
static void project(const clstm_model *m, const struct cell *cell, size_t n, struct values from,
                    struct values out)
{
    const size_t width = padded(cell->n_out);
    const float clip[2] = {-cell->proj_clip, cell->proj_clip};
    clstm_run_product(m, &cell->project, n, from.at, from.stride, out);
    for (size_t r = 0; r < n; r++) {
        float *row = out.at + r * out.stride;
        if (clip[1] < INFINITY) m->kernels->map(MAP_CLAMP, width, row, row, NULL, NULL, clip);
        m->kernels->map(MAP_FLUSH, width, row, row, NULL, NULL, clip);
    }
}

struct cell_rows clstm_cell_rows(const struct cell *cell, const struct frame *f, size_t n,
                                 struct values total, const struct values *x, struct values out)
{
    const int projected = cell->project.n_blocks > 0;
    struct cell_rows rows = {.n = n,
                             .total = total.at,
                             .total_stride = total.stride,
                             .h = f->h,
                             .old = f->h,
                             .c = cell->has_c ? f->c : NULL,
                             .out = projected ? rows_of(f->unprojected, cell->n_hidden) : out};
    if (x) rows.x = x->at, rows.x_stride = x->stride;
    if (reads_old_c(cell)) {
        rows.k = f->k;
        rows.c_old = rows_of(f->c_old, cell->n_hidden);
    }
    return rows;
}

void clstm_step_in_passes(const clstm_model *m, const struct cell *cell, struct frame *f,
                          const struct cell_rows *rows, struct values out)
{
    if (reads_old_c(cell)) copy_c(cell, f, rows, f->c_old);
    if (cell->norm) step_normed(m, cell, f, *rows);
    else if (cell->form.finish == FINISH_GRU_RESET) step_reset(m, cell, f, *rows);
    else if (cell->late.n_blocks) step_new_output(m, cell, f, *rows);
    else clstm_run_cell(m, &cell->gates, &cell->form, rows);
    if (cell->project.n_blocks) project(m, cell, rows->n, rows->out, out);
}
