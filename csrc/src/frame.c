// SPDX-License-Identifier: MIT
#include "frame.h"

#define RUN_SCRATCH (64 * 1024) /* bytes of scratch that a stream may cost for its run    */
#define RUN_ROWS 48             /* more rows read the weights no less often in L2         */
#define Z_BYTES (512 * 1024)    /* totals of a whole sequence: what L2 keeps beside weights */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The largest need of any cell, in floats of a row: one frame serves all ops in turn. */
struct need {
    size_t sums, layer, direction, unprojected, gathered;
    size_t c_old, c_new, reset, normed, separate, logical;
};

static struct need needs(const clstm_model *m)
{
    struct need n = {0};
    for (size_t i = 0; i < m->n_ops; i++) {
        if (m->ops[i].action != RUN_CELLS) continue;
        const struct recurrent *l = &m->ops[i].recurrent;
        const struct cell *cell = l->cells;
        const size_t hidden = padded(cell->n_hidden), sums = cell_sums(cell);
        const int late_c = cell->late.n_c > 0;
        n.sums = larger(n.sums, sums);
        if (l->n_layers > 1) n.layer = larger(n.layer, padded(cell->n_out * l->n_directions));
        if (l->n_directions > 1) n.direction = larger(n.direction, padded(cell->n_out));
        if (cell->project.n_blocks) n.unprojected = larger(n.unprojected, hidden);
        if (cell->blas.x) n.gathered = larger(n.gathered, padded(cell->n_out));
        if (reads_old_c(cell)) n.c_old = larger(n.c_old, hidden);
        if (late_c || (cell->norm && cell->norm->cell)) n.c_new = larger(n.c_new, hidden);
        if (cell->form.finish == FINISH_GRU_RESET) n.reset = larger(n.reset, hidden);
        if (!cell->norm) continue;
        n.normed = larger(n.normed, sums);
        if (cell->norm->separate) n.separate = larger(n.separate, sums);
        n.logical = larger(n.logical, cell->gates.n_gates * hidden);
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
            if (out->slot) slot = out->slot[m->ops[i - 1].inputs[0]];
        } else slot.at = clstm_carve(c, max_rows, slot.stride * row);
        if (out->slot) out->slot[i] = slot;
    }
    /* Totals are kept for as many rows as stay in the cache, but at least for one step; a frame
     * that is one step has none, unless the BLAS makes them. */
    const size_t fit = n.sums ? Z_BYTES / (n.sums * row) : 1;
    if (max_rows > max_batch || m->blas.sgemm)
        out->z_rows = larger(max_batch, fit < max_rows ? fit : max_rows);
    out->z = clstm_carve(c, out->z_rows, n.sums * row);
    for (int i = 0; i < 2; i++) out->layer[i] = clstm_carve(c, max_rows, n.layer * row);
    for (int i = 0; i < 2; i++) out->direction[i] = clstm_carve(c, max_rows, n.direction * row);
    out->unprojected = clstm_carve(c, max_batch, n.unprojected * row);
    out->gathered = clstm_carve(c, max_batch, n.gathered * row);
    out->c_old = clstm_carve(c, max_batch, n.c_old * row);
    out->c_new = clstm_carve(c, max_batch, n.c_new * row);
    out->reset = clstm_carve(c, max_batch, n.reset * row);
    out->update = clstm_carve(c, max_batch, n.reset * row);
    out->sums[0] = clstm_carve(c, max_batch, n.normed * row);
    out->sums[1] = clstm_carve(c, max_batch, n.separate * row);
    out->logical = clstm_carve(c, 1, n.logical * row);
    out->k = clstm_carve(c, n.c_old || n.reset ? max_batch : 0, sizeof *out->k);
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
