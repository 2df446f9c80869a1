// SPDX-License-Identifier: MIT
/* One time step of one LSTM cell:
 *
 *   i f g o = W x + b + U h          PyTorch's order of the gates
 *   c' = s(f) c + s(i) tanh(g)       s is the sigmoid
 *   h' = s(o) tanh(c')
 *
 * (https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html). A block of UNITS is
 * finished right behind its product, while its totals are in L1. */

/* |x| < 2^-100 becomes 0: a forget gate near 1 lets a state decay for ever, and once it is
 * denormal every product with it costs a microcode trap. NaN stays. */
INLINE vf flush(vf x) { return v_select(v_lt(v_abs(x), v_all(0x1p-100f)), v_all(0.0f), x); }

/* From n totals [4][UNITS] to c and h, in two passes: the chain from a gate to h is some
 * hundred cycles long, and only neighbours that do not wait for each other hide it. */
INLINE void finish(size_t n, float (*total)[4 * UNITS], float *const *c, float *const *out)
{
    for (size_t j = 0; j < n; j++) UNROLL
        for (int v = 0; v < UNITS; v += LANES) {
            float *gate = total[j] + v;
            const vf i = sigmoid(v_load(gate)), f = sigmoid(v_load(gate + UNITS));
            const vf g = tanh_(v_load(gate + 2 * UNITS)), o = sigmoid(v_load(gate + 3 * UNITS));
            v_store(c[j] + v, flush(v_fma(f, v_load(c[j] + v), v_mul(i, g))));
            v_store(gate + 3 * UNITS, o);
        }
    for (size_t j = 0; j < n; j++) UNROLL
        for (int v = 0; v < UNITS; v += LANES)
            v_store(out[j] + v,
                    flush(v_mul(v_load(total[j] + 3 * UNITS + v), tanh_(v_load(c[j] + v)))));
}

/* Totals of P neighbouring blocks of one row. */
INLINE void one_row_totals(const int P, const struct panels *p, const struct lstm_rows *rows,
                           size_t block, float *total)
{
    const size_t n_k = p->n_x + p->n_h;
    vf t[PANELS * 4 * NV];
    UNROLL for (int i = 0; i < P * 4 * NV; i++)
        t[i] = v_load(rows->total + block * 4 * UNITS + i * LANES);
    const float *w[PANELS];
    UNROLL for (int b = 0; b < P; b++)
        w[b] = p->weight + (block + b) * n_k * 4 * UNITS;
    if (rows->x) one_row(P, 4, t, w, p->n_x, rows->x);
    UNROLL for (int b = 0; b < P; b++)
        w[b] += p->n_x * 4 * UNITS;
    if (rows->h) one_row(P, 4, t, w, p->n_h, rows->h[0]);
    UNROLL for (int i = 0; i < P * 4 * NV; i++)
        v_store(total + i * LANES, t[i]);
}

#define BLOCK_GROUP 8 /* blocks of one row that are finished together */

/* The i-th of n, from either end. */
INLINE size_t turn(size_t i, size_t n, int backward) { return backward ? n - 1 - i : i; }

static void lstm_one_row(const struct panels *p, const struct lstm_rows *rows)
{
    float total[BLOCK_GROUP][4 * UNITS];
    float *c[BLOCK_GROUP], *out[BLOCK_GROUP];
    const size_t n_groups = (p->n_blocks + BLOCK_GROUP - 1) / BLOCK_GROUP;
    for (size_t g = 0; g < n_groups; g++) {
        const size_t first = turn(g, n_groups, rows->backward) * BLOCK_GROUP;
        const size_t left = p->n_blocks - first, n = left < BLOCK_GROUP ? left : BLOCK_GROUP;
        for (size_t b = 0; b < n; b++) {
            c[b] = rows->c[0] + (first + b) * UNITS;
            out[b] = rows->out.at + (first + b) * UNITS;
        }
        const size_t n_turns = (n + PANELS - 1) / PANELS;
        for (size_t i = 0; i < n_turns; i++) {
            const size_t b = turn(i, n_turns, rows->backward) * PANELS;
            if (b + PANELS <= n) one_row_totals(PANELS, p, rows, first + b, total[b]);
            else
                for (size_t j = b; j < n; j++) one_row_totals(1, p, rows, first + j, total[j]);
        }
        finish(n, total, c, out);
    }
}

/* At most ROW_GROUP rows. */
static void lstm_many_rows(const struct panels *p, const struct lstm_rows *rows)
{
    const size_t n_k = p->n_x + p->n_h;
    float totals[ROW_GROUP][4 * UNITS];
    float *total[ROW_GROUP], *c[ROW_GROUP], *out[ROW_GROUP];
    const float *x[ROW_GROUP];
    for (size_t r = 0; r < rows->n; r++) {
        total[r] = totals[r];
        x[r] = rows->x + (rows->x ? r * rows->x_stride : 0);
    }
    for (size_t i = 0; i < p->n_blocks; i++) {
        const size_t b = turn(i, p->n_blocks, rows->backward);
        const float *w = p->weight + b * n_k * 4 * UNITS;
        for (size_t r = 0; r < rows->n; r++) {
            memcpy(totals[r], rows->total + r * rows->total_stride + b * 4 * UNITS,
                   sizeof totals[r]);
            c[r] = rows->c[r] + b * UNITS;
            out[r] = rows->out.at + r * rows->out.stride + b * UNITS;
        }
        if (rows->x) many_rows(4, w, p->n_x, rows->n, x, total);
        if (rows->h) many_rows(4, w + p->n_x * 4 * UNITS, p->n_h, rows->n, rows->h, total);
        finish(rows->n, totals, c, out);
    }
}

static void lstm(const struct panels *p, const struct lstm_rows *rows)
{
    if (rows->n == 1) lstm_one_row(p, rows);
    for (size_t r = 0; rows->n > 1 && r < rows->n; r += ROW_GROUP) {
        struct lstm_rows group = *rows;
        group.n = rows->n - r < ROW_GROUP ? rows->n - r : ROW_GROUP;
        group.total += r * rows->total_stride;
        if (group.x) group.x += r * rows->x_stride;
        if (group.h) group.h += r;
        group.c += r;
        group.out.at += r * rows->out.stride;
        lstm_many_rows(p, &group);
    }
    v_leave();
}
