// SPDX-License-Identifier: MIT
/* One time step of one LSTM cell:
 *
 *   i f g o = W x + b + U h          PyTorch's order of the gates
 *   c' = s(f) c + s(i) tanh(g)       s is the sigmoid
 *   h' = s(o) tanh(c')
 *
 * (https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html). The totals go from
 * the product to h' in registers, one block of UNITS after another. */

/* |x| < 2^-100 becomes 0: a forget gate near 1 lets a state decay for ever, and once it is
 * denormal every product with it costs a microcode trap. NaN stays. */
INLINE vf flush(vf x) { return v_select(v_lt(v_abs(x), v_all(0x1p-100f)), v_all(0.0f), x); }

/* total[4][NV]: gates i, f, g, o of one block. */
INLINE void finish(const vf *total, float *c, float *out)
{
    UNROLL for (int v = 0; v < NV; v++) {
        const vf i = sigmoid(total[0 * NV + v]), f = sigmoid(total[1 * NV + v]);
        const vf g = tanh_(total[2 * NV + v]), o = sigmoid(total[3 * NV + v]);
        const vf cell = flush(v_fma(f, v_load(c + v * LANES), v_mul(i, g)));
        v_store(c + v * LANES, cell);
        v_store(out + v * LANES, flush(v_mul(o, tanh_(cell))));
    }
}

INLINE void lstm_one_row(const int P, const struct panels *p, const struct lstm_rows *rows,
                         size_t block)
{
    const size_t n_k = p->n_x + p->n_h;
    vf total[PANELS * 4 * NV];
    UNROLL for (int i = 0; i < P * 4 * NV; i++)
        total[i] = v_load(rows->total + block * 4 * UNITS + i * LANES);
    const float *w[PANELS];
    UNROLL for (int b = 0; b < P; b++) w[b] = p->weight + (block + b) * n_k * 4 * UNITS;
    if (rows->x) one_row(P, 4, total, w, p->n_x, rows->x);
    UNROLL for (int b = 0; b < P; b++) w[b] += p->n_x * 4 * UNITS;
    if (rows->h) one_row(P, 4, total, w, p->n_h, rows->h[0]);
    UNROLL for (int b = 0; b < P; b++)
        finish(total + b * 4 * NV, rows->c[0] + (block + b) * UNITS,
               rows->out.at + (block + b) * UNITS);
}

/* At most ROW_GROUP rows. */
static void lstm_many_rows(const struct panels *p, const struct lstm_rows *rows)
{
    const size_t n_k = p->n_x + p->n_h;
    float totals[ROW_GROUP][4 * UNITS];
    float *total[ROW_GROUP];
    const float *x[ROW_GROUP];
    for (size_t r = 0; r < rows->n; r++) {
        total[r] = totals[r];
        x[r] = rows->x + (rows->x ? r * rows->x_stride : 0);
    }
    for (size_t b = 0; b < p->n_blocks; b++) {
        const float *w = p->weight + b * n_k * 4 * UNITS;
        for (size_t r = 0; r < rows->n; r++)
            memcpy(totals[r], rows->total + r * rows->total_stride + b * 4 * UNITS,
                   sizeof totals[r]);
        if (rows->x) many_rows(4, w, p->n_x, rows->n, x, total);
        if (rows->h) many_rows(4, w + p->n_x * 4 * UNITS, p->n_h, rows->n, rows->h, total);
        for (size_t r = 0; r < rows->n; r++) {
            vf t[4 * NV];
            UNROLL for (int i = 0; i < 4 * NV; i++) t[i] = v_load(totals[r] + i * LANES);
            finish(t, rows->c[r] + b * UNITS, rows->out.at + r * rows->out.stride + b * UNITS);
        }
    }
}

static void lstm(const struct panels *p, const struct lstm_rows *rows)
{
    if (rows->n == 1) {
        size_t b = 0;
        for (; b + PANELS <= p->n_blocks; b += PANELS) lstm_one_row(PANELS, p, rows, b);
#if PANELS > 1
        for (; b < p->n_blocks; b++) lstm_one_row(1, p, rows, b);
#endif
        return;
    }
    for (size_t r = 0; r < rows->n; r += ROW_GROUP) {
        struct lstm_rows group = *rows;
        group.n = rows->n - r < ROW_GROUP ? rows->n - r : ROW_GROUP;
        group.total += r * rows->total_stride;
        if (group.x) group.x += r * rows->x_stride;
        if (group.h) group.h += r;
        group.c += r;
        group.out.at += r * rows->out.stride;
        lstm_many_rows(p, &group);
    }
}
