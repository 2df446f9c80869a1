// SPDX-License-Identifier: MIT
/* The state of one sequence: its life, and its way to and from the caller's order. */
#include "stream.h"

#include <string.h>

/* The stream and all that it points to, in one block; counts only without memory. */
static clstm_stream *carve(struct carver *c, const clstm_model *m)
{
    clstm_stream *s = clstm_carve(c, 1, sizeof *s);
    clstm_stream nowhere = {0};
    clstm_stream *to = s ? s : &nowhere;
    *to = (clstm_stream){.model = m};
    to->state = clstm_carve(c, m->state_row, sizeof(float));
    float **states = clstm_carve(c, 1, sizeof *states);
    size_t *first = clstm_carve(c, m->run_rows + 1, sizeof *first);
    clstm_frame_carve(c, m, m->run_rows, 1, &to->frame);
    to->frame.steps = clstm_carve(c, m->n_cells, sizeof *to->frame.steps);
    if (s) {
        states[0] = s->state;
        for (size_t t = 0; t <= m->run_rows; t++) first[t] = t;
        s->frame.first = first;
        s->frame.state = states;
    }
    return s;
}

size_t clstm_stream_bytes(const clstm_model *m)
{
    struct carver counter = {0};
    carve(&counter, m);
    return counter.used + CACHE_LINE - 1; /* to align whatever memory comes */
}

clstm_status clstm_stream_init(void *memory, size_t bytes, const clstm_model *m, clstm_stream **out)
{
    if (m->against_time) return CLSTM_UNSUPPORTED;
    if (!memory || bytes < clstm_stream_bytes(m)) return CLSTM_BAD_ARGUMENT;
    const uintptr_t past = (uintptr_t)memory + CACHE_LINE - 1;
    struct carver c = {.memory = (char *)(past - past % CACHE_LINE)};
    memset(memory, 0, bytes);
    clstm_stream *s = carve(&c, m);
    clstm_reset(s);
    *out = s;
    return CLSTM_OK;
}

clstm_status clstm_stream_create(const clstm_model *m, clstm_stream **out)
{
    const size_t bytes = clstm_stream_bytes(m);
    void *memory = clstm_alloc(bytes);
    if (!memory) return CLSTM_NO_MEMORY;
    const clstm_status status = clstm_stream_init(memory, bytes, m, out);
    if (status == CLSTM_OK) (*out)->owned = memory;
    else clstm_free(memory);
    return status;
}

void clstm_stream_free(clstm_stream *s)
{
    if (s) clstm_free(s->owned);
}

void clstm_reset(clstm_stream *s)
{
    memcpy(s->state, s->model->initial, s->model->state_row * sizeof *s->state);
}

void clstm_stream_copy(clstm_stream *to, const clstm_stream *from)
{
    memmove(to->state, from->state, to->model->state_row * sizeof *to->state);
}

/* The parts of a state in their order: of each recurrent op the h of all its cells, then the c.
 * copy(part, cell, where it stands in a row, floats) */
#define EACH_STATE(m, copy)                                                                        \
    for (size_t i = 0, part = 0; i < (m)->n_ops; i++) {                                            \
        const struct op *op = &(m)->ops[i];                                                        \
        if (op->action != RUN_CELLS) continue;                                                     \
        const size_t n_cells = op->recurrent.n_layers * op->recurrent.n_directions;                \
        const struct cell *cells = op->recurrent.cells;                                            \
        for (size_t j = 0; j < n_cells; j++) copy(part, j, cells[j].h_at, cells[j].n_out);         \
        part++;                                                                                    \
        if (!cells->has_c) continue;                                                               \
        for (size_t j = 0; j < n_cells; j++) copy(part, j, cells[j].c_at, cells[j].n_hidden);      \
        part++;                                                                                    \
    }

void clstm_state_load(const clstm_model *m, float *row, const float *logical)
{
#define LOAD(part, cell, at, n)                                                                    \
    ((void)(part), memcpy(row + (at), logical, (n) * sizeof *row), logical += (n))
    EACH_STATE(m, LOAD)
#undef LOAD
}

void clstm_state_store(const clstm_model *m, const float *row, float *logical)
{
#define STORE(part, cell, at, n)                                                                   \
    ((void)(part), memcpy(logical, row + (at), (n) * sizeof *row), logical += (n))
    EACH_STATE(m, STORE)
#undef STORE
}

void clstm_state_load_part(const clstm_model *m, float *row, const float *const *parts, size_t b,
                           size_t n_batch)
{
#define LOAD(part, cell, at, n)                                                                    \
    (parts[part]                                                                                   \
         ? memcpy(row + (at), parts[part] + ((cell) * n_batch + b) * (n), (n) * sizeof *row)       \
         : NULL)
    EACH_STATE(m, LOAD)
#undef LOAD
}

void clstm_state_store_part(const clstm_model *m, const float *row, float *const *parts, size_t b,
                            size_t n_batch)
{
#define STORE(part, cell, at, n)                                                                   \
    memcpy(parts[part] + ((cell) * n_batch + b) * (n), row + (at), (n) * sizeof *row)
    EACH_STATE(m, STORE)
#undef STORE
}

void clstm_get_state(const clstm_stream *s, float *state)
{
    clstm_state_store(s->model, s->state, state);
}

void clstm_set_state(clstm_stream *s, const float *state)
{
    clstm_state_load(s->model, s->state, state);
}
