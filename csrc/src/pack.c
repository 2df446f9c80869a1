// SPDX-License-Identifier: MIT
#include "pack.h"

#include <math.h>

static size_t row_of(const struct matrix *m, size_t gate, size_t o)
{
    return (m->gate ? (size_t)m->gate[gate] : gate) * m->n_out + o;
}

/* Every sum of biases is rounded once. */
static float bias_of(const struct matrix *m, size_t gate, size_t o)
{
    const size_t row = row_of(m, gate, o);
    const int apart = m->apart && gate + 1 == m->n_gates;
    const double add = m->add ? m->add[m->gate ? (size_t)m->gate[gate] : gate] : 0.0;
    const double b1 = m->b1 ? m->b1[row] : 0.0, b2 = m->b2 && !apart ? m->b2[row] : 0.0;
    const float bias = (float)(b1 + b2 + add);
    /* fma, not a product and a sum: no compiler may choose the rounding. */
    return m->scale ? (float)fma(bias, m->scale[o], m->shift[o]) : bias;
}

int clstm_pack(struct arena *memory, const struct matrix *m, struct panels *out)
{
    const size_t n_k = m->n_x + m->n_h + m->n_c, G = m->n_gates;
    const size_t n_blocks = padded(m->n_out) / UNITS;
    *out = (struct panels){
        .n_gates = G, .n_blocks = n_blocks, .n_x = m->n_x, .n_h = m->n_h, .n_c = m->n_c};
    out->weight = clstm_arena_take(memory, n_blocks * n_k * G * UNITS * sizeof(float));
    out->bias = clstm_arena_take(memory, n_blocks * G * UNITS * sizeof(float));
    if (m->apart) out->apart = clstm_arena_take(memory, n_blocks * UNITS * sizeof(float));
    if (!out->weight || !out->bias || (m->apart && !out->apart)) return 0;
    for (size_t g = 0; g < G; g++)
        for (size_t o = 0; o < m->n_out; o++) {
            const size_t row = row_of(m, g, o), lane = g * UNITS + o % UNITS;
            float *to = out->weight + o / UNITS * n_k * G * UNITS + lane;
            const double scale = m->scale ? m->scale[o] : 1.0;
            for (size_t k = 0; k < m->n_x; k++, to += G * UNITS)
                *to = (float)(m->w[row * m->n_x + k] * scale);
            for (size_t k = 0; k < m->n_h; k++, to += G * UNITS) *to = m->u[row * m->n_h + k];
            for (size_t k = 0; k < m->n_c; k++, to += G * UNITS) *to = m->k[row * m->n_c + k];
            out->bias[o / UNITS * G * UNITS + lane] = bias_of(m, g, o);
        }
    for (size_t o = 0; m->apart && o < m->n_out; o++)
        out->apart[o] = m->b2 ? m->b2[row_of(m, G - 1, o)] : 0.0f;
    return 1;
}

float *clstm_pack_row(struct arena *memory, const float *values, size_t n, size_t width)
{
    float *row = clstm_arena_take(memory, padded(width) * sizeof *row);
    for (size_t i = 0; row && i < width; i++) row[i] = values[n == 1 ? 0 : i];
    return row;
}

float *clstm_pack_units(struct arena *memory, const float *values, size_t n_rows, size_t n)
{
    float *units = clstm_arena_take(memory, padded(n) * n_rows * sizeof *units);
    for (size_t r = 0; units && r < n_rows; r++)
        for (size_t i = 0; i < n; i++)
            units[(i / UNITS * n_rows + r) * UNITS + i % UNITS] = values[r * n + i];
    return units;
}
