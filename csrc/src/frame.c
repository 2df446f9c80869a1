// SPDX-License-Identifier: MIT
#include "frame.h"

#define RUN_SCRATCH (64 * 1024) /* bytes of scratch that a stream may cost for its run    */
#define RUN_ROWS 48             /* more rows read the weights no less often in L2         */
#define Z_BYTES (512 * 1024)    /* totals of a whole sequence: what L2 keeps beside weights */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The largest need of any cell: one frame serves all ops in turn. */
struct need {
    size_t gates, layer, direction, hidden, out;
};

static struct need needs(const clstm_model *m)
{
    struct need n = {0};
    for (size_t i = 0; i < m->n_ops; i++) {
        if (m->ops[i].action != RUN_LSTM) continue;
        const struct lstm *l = &m->ops[i].lstm;
        const struct lstm_cell *cell = l->cells;
        n.gates = larger(n.gates, cell->gates.n_blocks * 4 * UNITS);
        if (l->n_layers > 1) n.layer = larger(n.layer, padded(cell->n_out * l->n_directions));
        if (l->n_directions > 1) n.direction = larger(n.direction, padded(cell->n_out));
        if (cell->project.n_blocks) n.hidden = larger(n.hidden, padded(cell->n_hidden));
        if (m->blas.sgemm) n.out = larger(n.out, padded(cell->n_out));
    }
    return n;
}

void clstm_frame_carve(struct carver *c, const clstm_model *m, size_t max_rows, size_t max_batch,
                       struct frame *out)
{
    const struct need n = needs(m);
    const size_t row = sizeof(float);
    out->slot = clstm_carve(c, m->n_ops + 1, sizeof *out->slot);
    for (size_t i = 0; i <= m->n_ops; i++) {
        struct values slot = {NULL, padded(m->widths[i])};
        if (i > 0 && m->ops[i - 1].action == RUN_ALIAS) {
            if (out->slot) slot = out->slot[m->ops[i - 1].input];
        } else slot.at = clstm_carve(c, max_rows, slot.stride * row);
        if (out->slot) out->slot[i] = slot;
    }
    /* Totals are kept for as many rows as stay in the cache, but at least for one step. */
    const size_t fit = n.gates ? Z_BYTES / (n.gates * row) : 1;
    out->z_rows = larger(max_batch, fit < max_rows ? fit : max_rows);
    out->z = clstm_carve(c, out->z_rows, n.gates * row);
    for (int i = 0; i < 2; i++) out->layer[i] = clstm_carve(c, max_rows, n.layer * row);
    for (int i = 0; i < 2; i++) out->direction[i] = clstm_carve(c, max_rows, n.direction * row);
    out->unprojected = clstm_carve(c, max_batch, n.hidden * row);
    out->gathered = clstm_carve(c, max_batch, n.out * row);
    out->h = clstm_carve(c, max_batch, sizeof *out->h);
    out->c = clstm_carve(c, max_batch, sizeof *out->c);
}

size_t clstm_run_rows(const clstm_model *m)
{
    struct frame frame = {0};
    size_t rows = RUN_ROWS;
    for (; rows > 1; rows--) {
        struct carver counter = {0};
        clstm_frame_carve(&counter, m, rows, 1, &frame);
        if (counter.used <= RUN_SCRATCH) break;
    }
    return rows;
}
