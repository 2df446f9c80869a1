// SPDX-License-Identifier: MIT
/* Whole sequences side by side: into frames, through the program, and back. */
#include <math.h>
#include <string.h>

#include "fpmode.h"
#include "frame.h"
#include "status.h"

#define FRAME_ROWS 512 /* rows at once, where time may be cut: enough to fill a product */

/* What a call works in. Sequences are taken longest first: order[r] is the caller's index
 * of row r, sorted stably by counting, so that equal lengths keep their order. */
struct work {
    size_t *order, *first; /* [n_batch], [n_steps of a frame + 1] */
    float **state;         /* [n_batch] */
    float *states;         /* [n_batch][state_row] */
    int64_t *tokens;       /* [rows of a frame] */
    struct frame frame;
};

static size_t length_of(const clstm_batch *b, size_t i)
{
    return b->lengths ? b->lengths[i] : b->n_steps;
}

static void carve(struct carver *c, const clstm_model *m, const clstm_batch *b, size_t steps,
                  struct work *w)
{
    const size_t rows = steps * b->n_batch;
    w->order = clstm_carve(c, b->n_batch, sizeof *w->order);
    w->first = clstm_carve(c, steps + 1, sizeof *w->first);
    w->state = clstm_carve(c, b->n_batch, sizeof *w->state);
    w->states = clstm_carve(c, b->n_batch, m->state_row * sizeof *w->states);
    w->tokens = clstm_carve(c, m->n_tokens ? rows : 0, sizeof *w->tokens);
    clstm_frame_carve(c, m, rows, b->n_batch, &w->frame);
    w->frame.first = w->first;
    w->frame.state = w->state;
    w->frame.tokens = w->tokens;
}

/* Longest first. Quadratic sorting would show at 10^5 rows; this is a merge by halves. */
static void sort(size_t *order, size_t *spare, size_t n, const clstm_batch *b)
{
    if (n < 2) return;
    const size_t half = n / 2;
    sort(order, spare, half, b);
    sort(order + half, spare, n - half, b);
    memcpy(spare, order, half * sizeof *order);
    for (size_t i = 0, j = half, k = 0; i < half; k++)
        order[k] =
            j < n && length_of(b, order[j]) > length_of(b, spare[i]) ? order[j++] : spare[i++];
}

/* Rows of steps t0 ... t0 + n_steps - 1 from the caller's arrays. */
static void gather(const clstm_model *m, const clstm_batch *b, struct work *w, size_t t0)
{
    const struct values in = w->frame.slot[0];
    for (size_t t = 0; t < w->frame.n_steps; t++)
        for (size_t row = w->first[t]; row < w->first[t + 1]; row++) {
            const size_t at = w->order[row - w->first[t]] * b->x_batch + (t0 + t) * b->x_step;
            if (m->n_tokens) w->tokens[row] = b->tokens[at];
            else memcpy(in.at + row * in.stride, b->x + at, m->widths[0] * sizeof *b->x);
        }
}

static void scatter(const clstm_model *m, const clstm_batch *b, const struct work *w, size_t t0)
{
    const struct values out = w->frame.slot[m->n_ops];
    const size_t bytes = m->widths[m->n_ops] * sizeof *b->y;
    for (size_t t = 0; t < w->frame.n_steps; t++)
        for (size_t r = 0; r < b->n_batch; r++) {
            float *to = b->y + w->order[r] * b->y_batch + (t0 + t) * b->y_step;
            if (w->first[t] + r < w->first[t + 1])
                memcpy(to, out.at + (w->first[t] + r) * out.stride, bytes);
            else memset(to, 0, bytes);
        }
}

/* Where states come from and go to: in the batch, or in torch's layout. */
struct states {
    const float *const *parts;
    float *const *parts_out;
};

static void load_state(const clstm_model *m, const clstm_batch *b, const struct states *by_layer,
                       size_t i, float *row)
{
    if (by_layer && by_layer->parts) clstm_state_load_part(m, row, by_layer->parts, i, b->n_batch);
    else if (!by_layer && b->state) clstm_state_load(m, row, b->state + i * m->state_size);
}

static void store_state(const clstm_model *m, const clstm_batch *b, const struct states *by_layer,
                        size_t i, const float *row)
{
    if (by_layer && by_layer->parts_out)
        clstm_state_store_part(m, row, by_layer->parts_out, i, b->n_batch);
    else if (!by_layer && b->state_out) clstm_state_store(m, row, b->state_out + i * m->state_size);
}

static void run(const clstm_model *m, const clstm_batch *b, const struct states *by_layer,
                size_t steps, struct work *w)
{
    for (size_t i = 0; i < b->n_batch; i++) w->order[i] = i;
    if (b->lengths) sort(w->order, (size_t *)(void *)w->state, b->n_batch, b);
    for (size_t r = 0; r < b->n_batch; r++) {
        w->state[r] = w->states + r * m->state_row;
        memcpy(w->state[r], m->initial, m->state_row * sizeof *w->states);
        load_state(m, b, by_layer, w->order[r], w->state[r]);
    }
    size_t active = b->n_batch;
    for (size_t t0 = 0; t0 < b->n_steps; t0 += steps) {
        w->frame.n_steps = b->n_steps - t0 < steps ? b->n_steps - t0 : steps;
        w->first[0] = 0;
        for (size_t t = 0; t < w->frame.n_steps; t++) {
            while (active && length_of(b, w->order[active - 1]) <= t0 + t) active--;
            w->first[t + 1] = w->first[t] + active;
        }
        gather(m, b, w, t0);
        const size_t all = w->frame.n_steps;
        while (w->frame.n_steps && w->first[w->frame.n_steps - 1] == w->first[w->frame.n_steps])
            w->frame.n_steps--; /* steps that no sequence reaches */
        if (w->frame.n_steps) clstm_walk(m, &w->frame);
        w->frame.n_steps = all;
        scatter(m, b, w, t0);
    }
    for (size_t r = 0; r < b->n_batch; r++) store_state(m, b, by_layer, w->order[r], w->state[r]);
}

static int copies(const struct op *op) /* rows without their pads */
{
    if (op->action == RUN_CELLS) return op->recurrent.n_directions > 1;
    return op->action == RUN_EMBEDDING || op->action == RUN_CONCAT || op->action == RUN_SLICE ||
           op->action == RUN_FIRST;
}

/* Pads that no kernel writes. Maps compute with them, though nobody reads them back; and half of
 * a pointer that lay there before is a denormal float, which is slow. */
static void clear_pads(const clstm_model *m, const struct frame *f, size_t n)
{
    for (size_t i = 0; i <= m->n_ops; i++) {
        if (i > 0 && !copies(&m->ops[i - 1])) continue;
        const struct values slot = f->slot[i];
        const size_t pad = slot.stride - m->widths[i];
        for (size_t r = 0; pad && r < n; r++)
            memset(slot.at + r * slot.stride + m->widths[i], 0, pad * sizeof *slot.at);
    }
}

static clstm_status sequence(const clstm_model *m, const clstm_batch *b,
                             const struct states *by_layer)
{
    if (!b->n_batch) return CLSTM_OK;
    for (size_t i = 0; b->lengths && i < b->n_batch; i++)
        if (b->lengths[i] > b->n_steps) return CLSTM_BAD_ARGUMENT;
    if (b->n_steps && (!b->y || !(m->n_tokens ? (const void *)b->tokens : (const void *)b->x)))
        return CLSTM_BAD_ARGUMENT;
    /* A reverse direction begins at the end: only then must all steps be there at once. */
    size_t steps = m->against_time ? b->n_steps : FRAME_ROWS / b->n_batch;
    if (steps > b->n_steps) steps = b->n_steps;
    if (steps < 1) steps = 1;
    if (b->n_batch > SIZE_MAX / steps) return CLSTM_NO_MEMORY;
    struct work work = {0};
    struct carver carver = {0};
    carve(&carver, m, b, steps, &work);
    carver = (struct carver){.memory = clstm_alloc_raw(carver.used)};
    if (!carver.memory) return CLSTM_NO_MEMORY;
    carve(&carver, m, b, steps, &work);
    clear_pads(m, &work.frame, steps * b->n_batch);
    /* As a stream does from step to step; no bit depends on it. */
    work.frame.turn =
        atomic_fetch_add_explicit(m->turn, (unsigned)b->n_steps, memory_order_relaxed);
    const struct fpmode mode = fpmode_enter();
    run(m, b, by_layer, steps, &work);
    fpmode_leave(mode);
    clstm_free(carver.memory);
    return CLSTM_OK;
}

clstm_status clstm_sequence(const clstm_model *m, const clstm_batch *b)
{
    return sequence(m, b, NULL);
}

clstm_status clstm_sequence_by_layer(const clstm_model *m, const clstm_batch *b,
                                     const float *const *state, float *const *state_out)
{
    return sequence(m, b, &(struct states){state, state_out});
}
