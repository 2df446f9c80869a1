// SPDX-License-Identifier: MIT
/* From PyTorch's row-major matrices to the panels of kernels.h. */
#include <math.h>
#include <string.h>

#include "model.h"

int clstm_pack(struct arena *memory, const struct matrix *m, struct panels *out)
{
    const size_t n_k = m->n_x + m->n_h, G = m->n_gates, n_blocks = padded(m->n_out) / UNITS;
    *out = (struct panels){.n_gates = G, .n_blocks = n_blocks, .n_x = m->n_x, .n_h = m->n_h};
    out->weight = clstm_arena_take(memory, n_blocks * n_k * G * UNITS * sizeof(float));
    out->bias = clstm_arena_take(memory, n_blocks * G * UNITS * sizeof(float));
    if (!out->weight || !out->bias) return 0;
    for (size_t g = 0; g < G; g++)
        for (size_t o = 0; o < m->n_out; o++) {
            const size_t row = g * m->n_out + o, lane = g * UNITS + o % UNITS;
            float *to = out->weight + o / UNITS * n_k * G * UNITS + lane;
            const double scale = m->scale ? m->scale[o] : 1.0;
            for (size_t k = 0; k < m->n_x; k++, to += G * UNITS)
                *to = (float)(m->w[row * m->n_x + k] * scale);
            for (size_t k = 0; k < m->n_h; k++, to += G * UNITS) *to = m->u[row * m->n_h + k];
            const float bias = (m->b1 ? m->b1[row] : 0.0f) + (m->b2 ? m->b2[row] : 0.0f);
            /* fma, not a product and a sum: no compiler may choose the rounding. */
            out->bias[o / UNITS * G * UNITS + lane] =
                m->scale ? (float)fma(bias, scale, m->shift[o]) : bias;
        }
    return 1;
}

/* n values (or one for all) as a padded row. */
float *clstm_pack_row(struct arena *memory, const float *values, size_t n, size_t width)
{
    float *row = clstm_arena_take(memory, padded(width) * sizeof *row);
    for (size_t i = 0; row && i < width; i++) row[i] = values[n == 1 ? 0 : i];
    return row;
}
