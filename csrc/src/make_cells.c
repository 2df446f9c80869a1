// SPDX-License-Identifier: MIT
/* Cells from the record of a recurrent op: its tensors in their order, its options. */
#include <math.h>
#include <string.h>

#include "model.h"
#include "pack.h"

/* A walk over the tensors of a record, in the order of docs/format.md. */
struct reader {
    const struct weights *w;
    const struct op_record *rec;
    size_t next;
};

static const float *next_if(struct reader *r, int there)
{
    return there ? clstm_tensor(r->w, r->rec, r->next++) : NULL;
}

/* The tensors of one cell; NULL for what it does not have. */
struct cell_tensors {
    const float *w, *u, *b_ih, *b_hh, *w_hr, *b_hr, *peephole, *full;
    const float *ln[2], *ln_bias[2], *ln_cell, *ln_cell_bias;
};

static struct cell_tensors read_cell(struct reader *r)
{
    const uint32_t f = r->rec->flags;
    struct cell_tensors t = {.w = next_if(r, 1)};
    t.u = next_if(r, 1);
    t.b_ih = next_if(r, f & FLAG_BIAS);
    t.b_hh = next_if(r, f & FLAG_BIAS);
    t.w_hr = next_if(r, r->rec->dims[CELL_PROJ] > 0);
    t.b_hr = next_if(r, f & FLAG_PROJ_BIAS);
    t.peephole = next_if(r, f & FLAG_PEEPHOLE);
    t.full = next_if(r, f & FLAG_PEEPHOLE_FULL);
    for (int i = 0; f & FLAG_LAYER_NORM && i < (f & FLAG_LN_SEPARATE ? 2 : 1); i++) {
        t.ln[i] = next_if(r, 1);
        t.ln_bias[i] = next_if(r, f & FLAG_LN_BIAS);
    }
    t.ln_cell = next_if(r, f & FLAG_LN_CELL);
    t.ln_cell_bias = next_if(r, f & FLAG_LN_CELL_BIAS);
    return t;
}

static struct gate_function function_of(const struct weights *w, const struct op_record *rec,
                                        const struct cell_shape *shape, size_t direction, size_t i)
{
    static const enum gate_function_kind defaults[4][3] = {
        [OP_LSTM] = {GATE_SIGMOID, GATE_TANH, GATE_TANH},
        [OP_GRU] = {GATE_SIGMOID, GATE_TANH},
        [OP_RNN] = {GATE_TANH}};
    if (i >= shape->n_functions) return (struct gate_function){0};
    if (!(rec->flags & FLAG_ACTIVATIONS))
        return (struct gate_function){.kind = defaults[rec->kind][i]};
    /* The numbers stand before the initial states. */
    const size_t at = rec->n_tensors - 1 - !!(rec->flags & FLAG_H0) - !!(rec->flags & FLAG_C0);
    const size_t n = direction * shape->n_functions + i;
    const float *numbers = clstm_tensor(w, rec, at) + 2 * n;
    return (struct gate_function){(rec->dims[CELL_FUNCTIONS] >> 5 * n) & 31, numbers[0],
                                  numbers[1]};
}

static float clip_of(double value) { return value > 0 ? (float)value : INFINITY; }

static struct form form_of(const struct weights *w, const struct op_record *rec,
                           const struct cell_shape *shape, size_t direction)
{
    static const enum finish finishes[4] = {
        [OP_LSTM] = FINISH_LSTM, [OP_GRU] = FINISH_GRU, [OP_RNN] = FINISH_RNN};
    const double *p = rec->params;
    struct form a = {.finish = finishes[rec->kind],
                     .at = {0, 1, 2, 3},
                     .f = function_of(w, rec, shape, direction, 0),
                     .g = function_of(w, rec, shape, direction, 1),
                     .h = function_of(w, rec, shape, direction, 2),
                     .clip = clip_of(p[PARAM_CLIP]),
                     .cell_clip = INFINITY};
    if (rec->kind == OP_LSTM) {
        a.cell_clip = clip_of(p[PARAM_CELL_CLIP]);
        a.cell_clip_stored = !!(rec->flags & FLAG_CELL_CLIP_STORED);
        a.zone_h = (float)p[PARAM_ZONE_H];
        a.zone_c = (float)p[PARAM_ZONE_C];
        a.fresh_h = (float)(1.0 - p[PARAM_ZONE_H]);
        a.fresh_c = (float)(1.0 - p[PARAM_ZONE_C]);
        if (rec->flags & FLAG_COUPLED_F) a.at = (struct gate_places){0, -1, 1, 2};
        if (rec->flags & FLAG_COUPLED_I) a.at = (struct gate_places){-1, 0, 1, 2};
    }
    a.plain = !(rec->flags & (FLAG_COUPLED_F | FLAG_COUPLED_I | FLAG_PEEPHOLE | FLAG_OUTPUT_NEW |
                              FLAG_LAYER_NORM | FLAG_ACTIVATIONS)) &&
              a.clip == INFINITY && a.cell_clip == INFINITY && a.zone_h == 0 && a.zone_c == 0;
    return a;
}

/* The normalisation of a cell, whose sums then begin without biases. */
static clstm_status make_norm(struct arena *memory, const struct op_record *rec,
                              const struct cell_tensors *t, const float *eps, const double *add,
                              size_t n_gates, struct cell *cell)
{
    const size_t n = cell->n_hidden, width = padded(n);
    struct cell_norm *norm = clstm_arena_take(memory, sizeof *norm);
    float *after = clstm_arena_take(memory, n_gates * width * sizeof *after);
    if (!norm || !after) return CLSTM_NO_MEMORY;
    *norm = (struct cell_norm){.per_gate = !!(rec->flags & FLAG_LN_PER_GATE),
                               .separate = !!(rec->flags & FLAG_LN_SEPARATE),
                               .cell = !!(rec->flags & FLAG_LN_CELL),
                               .cell_stored = !!(rec->flags & FLAG_LN_CELL_STORED),
                               .after = after,
                               .eps = *eps};
    for (size_t g = 0; g < n_gates; g++)
        for (size_t i = 0; i < n; i++) {
            const double b1 = t->b_ih ? t->b_ih[g * n + i] : 0.0;
            const double b2 = t->b_hh ? t->b_hh[g * n + i] : 0.0;
            after[g * width + i] = (float)(b1 + b2 + add[g]);
        }
    /* Gate by gate each row is padded; all gates at once are one row. */
    const size_t rows = norm->per_gate ? n_gates : 1, row = norm->per_gate ? n : n_gates * n;
    const float *from[4] = {t->ln[0], t->ln[1], t->ln_bias[0], t->ln_bias[1]};
    float *to[4] = {0};
    for (int i = 0; i < 4; i++) {
        if (!from[i]) continue;
        to[i] = clstm_arena_take(memory, rows * padded(row) * sizeof *to[i]);
        if (!to[i]) return CLSTM_NO_MEMORY;
        for (size_t g = 0; g < rows; g++)
            memcpy(to[i] + g * padded(row), from[i] + g * row, row * sizeof *to[i]);
    }
    norm->weight[0] = to[0], norm->weight[1] = to[1];
    norm->offset[0] = to[2], norm->offset[1] = to[3];
    if (t->peephole && norm->per_gate &&
        !norm->separate) { /* as in TFLite; else it is added after */
        float *inside = clstm_arena_take(memory, 3 * width * sizeof *inside);
        if (!inside) return CLSTM_NO_MEMORY;
        for (size_t g = 0; g < 3; g++)
            memcpy(inside + g * width, t->peephole + g * n, n * sizeof *inside);
        norm->inside = inside;
        cell->form.peephole = NULL;
    }
    if (t->ln_cell && !(norm->cell_weight = clstm_pack_row(memory, t->ln_cell, n, n)))
        return CLSTM_NO_MEMORY;
    if (t->ln_cell_bias && !(norm->cell_offset = clstm_pack_row(memory, t->ln_cell_bias, n, n)))
        return CLSTM_NO_MEMORY;
    cell->norm = norm;
    return CLSTM_OK;
}

/* Gates first ... first + n - 1 of the matrix. */
static struct matrix part_of(const struct matrix *all, const int *gates, size_t n)
{
    struct matrix part = *all;
    part.n_gates = n;
    part.gate = gates;
    return part;
}

static clstm_status pack_cell(struct clstm_model *m, const struct op_record *rec,
                              const struct cell_tensors *t, size_t n_gates, const float *eps,
                              struct cell *cell)
{
    static const int gates[4] = {0, 1, 2, 3};
    const uint32_t f = rec->flags;
    double add[4] = {0};
    if (rec->kind == OP_LSTM && cell->form.at.f >= 0)
        add[cell->form.at.f] = rec->params[PARAM_FORGET_BIAS];
    struct matrix matrix = {.n_gates = n_gates,
                            .n_out = cell->n_hidden,
                            .n_x = cell->n_input,
                            .n_h = cell->n_out,
                            .n_c = t->full ? cell->n_hidden : 0,
                            .w = t->w,
                            .u = t->u,
                            .k = t->full,
                            .b1 = t->b_ih,
                            .b2 = t->b_hh,
                            .add = add};
    if (t->peephole &&
        !(cell->form.peephole = clstm_pack_units(&m->memory, t->peephole, 3, cell->n_hidden)))
        return CLSTM_NO_MEMORY;
    if (f & FLAG_LAYER_NORM) {
        const clstm_status status = make_norm(&m->memory, rec, t, eps, add, n_gates, cell);
        if (status != CLSTM_OK) return status;
        matrix.b1 = matrix.b2 = NULL;
        matrix.add = NULL;
    }
    /* The last gate waits: of a GRU that resets before the product n, of an LSTM the o. */
    const int waits = (f & FLAG_RESET_BEFORE) || (f & FLAG_OUTPUT_NEW);
    matrix.apart = rec->kind == OP_GRU && !waits;
    cell->late_form = cell->form;
    if (waits) {
        const struct matrix early = part_of(&matrix, gates, n_gates - 1);
        const struct matrix late = part_of(&matrix, gates + n_gates - 1, 1);
        cell->form.finish = rec->kind == OP_GRU ? FINISH_GRU_RESET : FINISH_LSTM_CELL;
        cell->late_form.finish = rec->kind == OP_GRU ? FINISH_GRU_NEW : FINISH_LSTM_OUT;
        cell->late_form.at.o = 0;
        if (!clstm_pack(&m->memory, &early, &cell->gates) ||
            !clstm_pack(&m->memory, &late, &cell->late))
            return CLSTM_NO_MEMORY;
    } else if (!clstm_pack(&m->memory, &matrix, &cell->gates)) return CLSTM_NO_MEMORY;
    /* Sums that are not simply one matrix times [x, h] keep to the packed products. */
    if (m->blas.sgemm && !waits && !t->full && !cell->norm &&
        !clstm_blas_pack(&m->memory, &cell->gates, &cell->blas))
        return CLSTM_NO_MEMORY;
    if (!t->w_hr) return CLSTM_OK;
    const struct matrix project = {
        .n_gates = 1, .n_out = cell->n_out, .n_x = cell->n_hidden, .w = t->w_hr, .b1 = t->b_hr};
    cell->proj_clip = clip_of(rec->params[PARAM_PROJ_CLIP]);
    return clstm_pack(&m->memory, &project, &cell->project) ? CLSTM_OK : CLSTM_NO_MEMORY;
}

clstm_status clstm_make_cells(struct clstm_model *m, const struct weights *w,
                              const struct op_record *rec, struct recurrent *out)
{
    const struct cell_shape shape = clstm_cell_shape(rec);
    *out = (struct recurrent){clstm_arena_take(&m->memory, shape.n_cells * sizeof *out->cells),
                              rec->dims[CELL_LAYERS], shape.n_directions,
                              !!(rec->flags & FLAG_REVERSE)};
    if (!out->cells) return CLSTM_NO_MEMORY;
    if (shape.n_directions == 2 || out->reverse) m->against_time = 1;
    struct reader reader = {w, rec, 0};
    const size_t behind_eps =
        !!(rec->flags & FLAG_H0) + !!(rec->flags & FLAG_C0) + !!(rec->flags & FLAG_ACTIVATIONS);
    const float *eps =
        rec->flags & FLAG_LAYER_NORM ? clstm_tensor(w, rec, rec->n_tensors - 1 - behind_eps) : NULL;
    for (size_t i = 0; i < shape.n_cells; i++) {
        struct cell *cell = &out->cells[i];
        const size_t behind = shape.n_out * shape.n_directions;
        *cell = (struct cell){.n_input = i < shape.n_directions ? rec->dims[CELL_INPUT] : behind,
                              .n_hidden = rec->dims[CELL_HIDDEN],
                              .n_out = shape.n_out,
                              .has_c = rec->kind == OP_LSTM,
                              .number = m->n_cells++,
                              .form = form_of(w, rec, &shape, i % shape.n_directions),
                              .h_at = m->state_row};
        cell->c_at = cell->h_at + padded(cell->n_out);
        m->state_row = cell->c_at + (cell->has_c ? padded(cell->n_hidden) : 0);
        m->state_size += cell->n_out + (cell->has_c ? cell->n_hidden : 0);
        const struct cell_tensors tensors = read_cell(&reader);
        const clstm_status status = pack_cell(m, rec, &tensors, shape.n_gates, eps, cell);
        if (status != CLSTM_OK) return status;
    }
    return CLSTM_OK;
}
