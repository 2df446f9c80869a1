// SPDX-License-Identifier: MIT
/* One time step of one cell: the sums of a group of units, and behind them their finish. */

#define BLOCK_GROUP 8 /* blocks of one row that are finished together */

/* Blocks of one row at once: as many as give 4 * PANELS chains of fused multiply-adds. */
#define PANELS_OF(G) ((G) < 3 ? PANELS * 4 / (G) : PANELS)

/* The i-th of n, from either end. */
INLINE size_t turn(size_t i, size_t n, int backward) { return backward ? n - 1 - i : i; }

/* Block b of the panels, for row r. Totals are [4][UNITS]; with a part apart, that stands in the
 * fourth. */
INLINE struct unit unit_of(const struct form *form, const struct cell_rows *rows, size_t r,
                           size_t b, float *total)
{
    b += rows->first;
    struct unit u = {.total = total, .out = rows->out.at + r * rows->out.stride + b * UNITS};
    if (rows->c) u.c = rows->c[r] + b * UNITS;
    if (form->plain && rows->c) return u;
    if (rows->old) u.old = rows->old[r] + b * UNITS;
    if (rows->z.at) u.z = rows->z.at + r * rows->z.stride + b * UNITS;
    if (rows->c_old.at) u.c_old = rows->c_old.at + r * rows->c_old.stride + b * UNITS;
    u.squash = rows->squash.at ? rows->squash.at + r * rows->squash.stride + b * UNITS : u.c;
    if (form->peephole) u.peephole = form->peephole + b * 3 * UNITS;
    return u;
}

/* Without a finish the totals are what is wanted. */
INLINE void hand_out(const int G, const struct cell_rows *rows, size_t r, size_t b,
                     const float *total)
{
    memcpy(rows->out.at + r * rows->out.stride + (rows->first + b) * G * UNITS, total,
           G * UNITS * sizeof *total);
}

/* Totals of P neighbouring blocks of one row. */
INLINE void one_row_totals(const int P, const int G, const int apart, const struct panels *p,
                           const struct cell_rows *rows, size_t block, float (*total)[4 * UNITS])
{
    const size_t n_k = p->n_x + p->n_h + p->n_c;
    vf t[PANELS * GATES_MAX * NV];
    UNROLL for (int i = 0; i < P * G * NV; i++)
        t[i] = v_load(rows->total + block * G * UNITS + i * LANES);
    const float *w[PANELS * GATES_MAX];
    UNROLL for (int b = 0; b < P; b++)
        w[b] = p->weight + (block + b) * n_k * G * UNITS;
    if (rows->x) one_row(P, G, t, w, p->n_x, rows->x);
    UNROLL for (int b = 0; b < P; b++)
        w[b] += p->n_x * G * UNITS;
    if (apart) UNROLL
        for (int b = 0; b < P; b++) UNROLL
            for (int v = 0; v < NV; v++) {
                vf *last = &t[(b * G + G - 1) * NV + v];
                v_store(total[b] + 3 * UNITS + v * LANES, *last);
                *last = v_load(p->apart + (block + b) * UNITS + v * LANES);
            }
    if (rows->h) one_row(P, G, t, w, p->n_h, rows->h[0]);
    if (p->n_c) {
        UNROLL for (int b = 0; b < P; b++)
            w[b] += p->n_h * G * UNITS;
        one_row(P, G, t, w, p->n_c, rows->k[0]);
    }
    UNROLL for (int b = 0; b < P; b++) UNROLL
        for (int i = 0; i < G * NV; i++) v_store(total[b] + i * LANES, t[b * G * NV + i]);
}

/* n blocks, P of them at once or fewer where fewer are left. */
INLINE void some_blocks(const int P, const int G, const int apart, const struct panels *p,
                        const struct cell_rows *rows, size_t block, size_t n,
                        float (*total)[4 * UNITS])
{
    size_t b = 0;
#define TAKE(N)                                                                                    \
    for (; P >= (N) && b + (N) <= n; b += (N))                                                     \
    one_row_totals(P >= (N) ? (N) : 1, G, apart, p, rows, block + b, total + b)
#if PANELS > 1
    TAKE(8);
#endif
    TAKE(4);
    TAKE(2);
    TAKE(1);
#undef TAKE
}

/* How many blocks to read at once. One, where a block stays in L1 but not all do: the next step
 * begins with the block that this one ended with, and finds it there. Four chains of an LSTM's
 * gates are enough for what L2 delivers; fewer gates would wait for each other. */
#define L1_BYTES (40 * 1024) /* what L1 keeps beside x, h and the totals */

INLINE size_t blocks_at_once(const int G, const struct panels *p)
{
    const size_t bytes = (p->n_x + p->n_h + p->n_c) * G * UNITS * sizeof *p->weight;
    return G == 4 && bytes <= L1_BYTES && bytes * p->n_blocks > L1_BYTES ? 1 : PANELS_OF(G);
}

INLINE void one_row_cell(const int G, const int apart, const struct panels *p,
                         const struct form *form, const struct cell_rows *rows)
{
    const size_t P = blocks_at_once(G, p);
    float total[BLOCK_GROUP][4 * UNITS];
    struct unit unit[BLOCK_GROUP];
    const size_t n_groups = (p->n_blocks + BLOCK_GROUP - 1) / BLOCK_GROUP;
    for (size_t i = 0; i < n_groups; i++) {
        const size_t first = turn(i, n_groups, rows->backward) * BLOCK_GROUP;
        const size_t left = p->n_blocks - first, n = left < BLOCK_GROUP ? left : BLOCK_GROUP;
        const size_t n_turns = (n + P - 1) / P;
        for (size_t k = 0; k < n_turns; k++) {
            const size_t b = turn(k, n_turns, rows->backward) * P;
            some_blocks(PANELS_OF(G), G, apart, p, rows, first + b, n - b < P ? n - b : P,
                        total + b);
        }
        for (size_t b = 0; b < n; b++) {
            if (form->finish == FINISH_NONE) hand_out(G, rows, 0, first + b, total[b]);
            else unit[b] = unit_of(form, rows, 0, first + b, total[b]);
        }
        finish(form, n, unit);
    }
}

/* At most ROW_GROUP rows. */
INLINE void many_rows_cell(const int G, const int apart, const struct panels *p,
                           const struct form *form, const struct cell_rows *rows)
{
    const size_t n_k = p->n_x + p->n_h + p->n_c, n = rows->n;
    float totals[ROW_GROUP][4 * UNITS];
    struct unit unit[ROW_GROUP];
    float *total[ROW_GROUP];
    const float *x[ROW_GROUP];
    for (size_t r = 0; r < n; r++) {
        total[r] = totals[r];
        x[r] = rows->x + (rows->x ? r * rows->x_stride : 0);
    }
    for (size_t i = 0; i < p->n_blocks; i++) {
        const size_t b = turn(i, p->n_blocks, rows->backward);
        const float *w = p->weight + b * n_k * G * UNITS;
        for (size_t r = 0; r < n; r++)
            memcpy(totals[r], rows->total + r * rows->total_stride + b * G * UNITS,
                   G * UNITS * sizeof totals[r][0]);
        if (rows->x) many_rows(G, w, p->n_x, n, x, total);
        for (size_t r = 0; apart && r < n; r++) {
            float *last = totals[r] + (G - 1) * UNITS;
            memcpy(totals[r] + 3 * UNITS, last, UNITS * sizeof *last);
            memcpy(last, p->apart + b * UNITS, UNITS * sizeof *last);
        }
        if (rows->h) many_rows(G, w + p->n_x * G * UNITS, p->n_h, n, rows->h, total);
        if (p->n_c) many_rows(G, w + (p->n_x + p->n_h) * G * UNITS, p->n_c, n, rows->k, total);
        for (size_t r = 0; r < n; r++) {
            if (form->finish == FINISH_NONE) hand_out(G, rows, r, b, totals[r]);
            else unit[r] = unit_of(form, rows, r, b, totals[r]);
        }
        finish(form, n, unit);
    }
}

INLINE void forward(struct values *v, size_t r) { v->at += v->at ? r * v->stride : 0; }

INLINE void cell_of(const int G, const int apart, const struct panels *p, const struct form *form,
                    const struct cell_rows *rows)
{
    if (rows->n == 1) one_row_cell(G, apart, p, form, rows);
    for (size_t r = 0; rows->n > 1 && r < rows->n; r += ROW_GROUP) {
        struct cell_rows group = *rows;
        group.n = rows->n - r < ROW_GROUP ? rows->n - r : ROW_GROUP;
        group.total += r * rows->total_stride;
        if (group.x) group.x += r * rows->x_stride;
        if (group.h) group.h += r;
        if (group.k) group.k += r;
        if (group.old) group.old += r;
        if (group.c) group.c += r;
        forward(&group.c_old, r);
        forward(&group.squash, r);
        forward(&group.z, r);
        forward(&group.out, r);
        many_rows_cell(G, apart, p, form, &group);
    }
}

static void cell(const struct panels *p, const struct form *form, const struct cell_rows *rows)
{
    switch (p->n_gates) {
    case 1: cell_of(1, 0, p, form, rows); break;
    case 2: cell_of(2, 0, p, form, rows); break;
    case 3:
        if (p->apart) cell_of(3, 1, p, form, rows);
        else cell_of(3, 0, p, form, rows);
        break;
    default: cell_of(4, 0, p, form, rows);
    }
    v_leave();
}
