// SPDX-License-Identifier: MIT
/* One time step of one cell: the sums of a group of units, and behind them their finish. */

/* Blocks of one row at once: as many as give 4 * PANELS chains of fused multiply-adds. */
#define PANELS_OF(G) ((G) < 3 ? PANELS * 4 / (G) : PANELS)

/* Blocks of one row that are finished together: as many as hide each other's latency. The next
 * weights come while the last of them end, so more at once would wait longer for the memory. */
#define GROUP_OF(G) (PANELS_OF(G) > 2 ? PANELS_OF(G) : 2)
#define GROUP_ALONE 4 /* of blocks that are read one at a time */
#define GROUP_MAX 8
_Static_assert(PANELS_OF(1) <= GROUP_MAX, "a group has room for the blocks that are read at once");

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
        w[b] = p->weight + ((block + b) * n_k + (rows->x ? 0 : p->n_x)) * G * UNITS;
    const size_t n_x = rows->x ? p->n_x : 0, n_h = rows->h ? p->n_h : 0;
    const float *h = n_h ? rows->h[0] : NULL, *c = p->n_c ? rows->k[0] : NULL;
    if (FEW(P, G)) {
        few_sums(P, G, t, w, (struct inputs){{rows->x, h, c}, {n_x, n_h, p->n_c}, 0, 0});
    } else {
        one_row(P, G, t, w, n_x, rows->x);
        if (apart) UNROLL
            for (int b = 0; b < P; b++) UNROLL
                for (int v = 0; v < NV; v++) {
                    vf *last = &t[(b * G + G - 1) * NV + v];
                    v_store(total[b] + 3 * UNITS + v * LANES, *last);
                    *last = v_load(p->apart + (block + b) * UNITS + v * LANES);
                }
        one_row(P, G, t, w, n_h, h);
        one_row(P, G, t, w, p->n_c, c);
    }
    UNROLL for (int b = 0; b < P; b++) UNROLL
        for (int i = 0; i < G * NV; i++) v_store(total[b] + i * LANES, t[b * G * NV + i]);
}

/* n <= P blocks at once. */
INLINE void some_blocks(const int P, const int G, const int apart, const struct panels *p,
                        const struct cell_rows *rows, size_t block, size_t n,
                        float (*total)[4 * UNITS])
{
#define CASE(N)                                                                                    \
    case N:                                                                                        \
        if (P >= (N)) one_row_totals(P >= (N) ? (N) : 1, G, apart, p, rows, block, total);         \
        break
    switch (n) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
#if PANELS > 1
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
#endif
    }
#undef CASE
}

/* Whether to read one block at once: where it stays in L1 but not all do, the next step begins
 * with the block that this one ended with, and finds it there. Four chains of an LSTM's gates are
 * enough for what L2 delivers; fewer gates would wait for each other. */
#define L1_BYTES (40 * 1024) /* what L1 keeps beside x, h and the totals */

INLINE int one_at_a_time(const int G, const struct panels *p)
{
    const size_t bytes = (p->n_x + p->n_h + p->n_c) * G * UNITS * sizeof *p->weight;
    return G == 4 && bytes <= L1_BYTES && bytes * p->n_blocks > L1_BYTES;
}

/* n <= GROUP_MAX neighbouring blocks, P at once, and their finish. */
INLINE void one_row_group(const int P, const int G, const int apart, const struct panels *p,
                          const struct form *form, const struct cell_rows *rows, size_t first,
                          size_t n)
{
    float total[GROUP_MAX][4 * UNITS];
    struct unit unit[GROUP_MAX];
    const size_t n_turns = (n + P - 1) / P;
    for (size_t k = 0; k < n_turns; k++) {
        const size_t b = turn(k, n_turns, rows->backward) * P;
        some_blocks(P, G, apart, p, rows, first + b, n - b < (size_t)P ? n - b : (size_t)P,
                    total + b);
    }
    for (size_t b = 0; b < n; b++) {
        if (form->finish == FINISH_NONE) hand_out(G, rows, 0, first + b, total[b]);
        else unit[b] = unit_of(form, rows, 0, first + b, total[b]);
    }
    finish(form, n, unit);
}

INLINE void one_row_cell(const int G, const int apart, const struct panels *p,
                         const struct form *form, const struct cell_rows *rows)
{
    const int alone = one_at_a_time(G, p);
    const size_t group = alone ? GROUP_ALONE : GROUP_OF(G);
    const size_t n_groups = (p->n_blocks + group - 1) / group;
    for (size_t i = 0; i < n_groups; i++) {
        const size_t first = turn(i, n_groups, rows->backward) * group;
        const size_t left = p->n_blocks - first, n = left < group ? left : group;
        if (alone) one_row_group(1, G, apart, p, form, rows, first, n);
        else one_row_group(PANELS_OF(G), G, apart, p, form, rows, first, n);
    }
}

/* At most ROW_GROUP rows, P neighbouring blocks. */
INLINE void many_rows_blocks(const int G, const int apart, const struct panels *p,
                             const struct form *form, const struct cell_rows *rows, size_t b,
                             size_t P)
{
    const size_t n = rows->n, next = (p->n_x + p->n_h + p->n_c) * G * UNITS;
    const float *w = p->weight + b * next, *x[ROW_GROUP], *from[ROW_GROUP];
    float totals[ROW_GROUP][4 * UNITS], *total[ROW_GROUP];
    struct unit unit[ROW_GROUP];
    for (size_t r = 0; r < n; r++) {
        x[r] = rows->x ? rows->x + r * rows->x_stride : NULL;
        from[r] = rows->total + r * rows->total_stride + b * G * UNITS;
        total[r] = totals[r];
    }
    const float *const *begin = from;
    if (rows->x && p->n_x) {
        many_rows(P, G, w, next, p->n_x, n, x, begin, total);
        begin = (const float *const *)total;
    }
    if (apart || (begin == from && !(rows->h && p->n_h) && !p->n_c)) {
        for (size_t r = 0; begin == from && r < n; r++)
            memcpy(totals[r], from[r], P * G * UNITS * sizeof *from[r]);
        begin = (const float *const *)total;
    }
    for (size_t r = 0; apart && r < n; r++) {
        float *last = totals[r] + (G - 1) * UNITS;
        memcpy(totals[r] + 3 * UNITS, last, UNITS * sizeof *last);
        memcpy(last, p->apart + b * UNITS, UNITS * sizeof *last);
    }
    if (rows->h && p->n_h) {
        many_rows(P, G, w + p->n_x * G * UNITS, next, p->n_h, n, rows->h, begin, total);
        begin = (const float *const *)total;
    }
    if (p->n_c)
        many_rows(P, G, w + (p->n_x + p->n_h) * G * UNITS, next, p->n_c, n, rows->k, begin, total);
    for (size_t i = 0; i < P; i++) {
        for (size_t r = 0; r < n; r++) {
            if (form->finish == FINISH_NONE) hand_out(G, rows, r, b + i, totals[r] + i * G * UNITS);
            else unit[r] = unit_of(form, rows, r, b + i, totals[r] + i * G * UNITS);
        }
        finish(form, n, unit);
    }
}

INLINE void many_rows_cell(const int G, const int apart, const struct panels *p,
                           const struct form *form, const struct cell_rows *rows)
{
    const size_t n_tiles = p->n_blocks / P_OF(G), left = p->n_blocks % P_OF(G);
    /* Blocks that make no tile stand at the end, from whichever side it goes. */
    for (size_t i = 0; rows->backward && i < left; i++)
        many_rows_blocks(G, apart, p, form, rows, p->n_blocks - 1 - i, 1);
    for (size_t i = 0; i < n_tiles; i++)
        many_rows_blocks(G, apart, p, form, rows, turn(i, n_tiles, rows->backward) * P_OF(G),
                         P_OF(G));
    for (size_t i = 0; !rows->backward && i < left; i++)
        many_rows_blocks(G, apart, p, form, rows, n_tiles * P_OF(G) + i, 1);
}

INLINE void forward(struct values *v, size_t r)
{
    if (v->at) v->at += r * v->stride;
}

/* Those from row r on, at most ROW_GROUP. */
INLINE struct cell_rows group_of(const struct cell_rows *rows, size_t r)
{
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
    return group;
}

/* One copy of each, with no more of a frame than it needs. */
#define CELL(NAME, G, APART)                                                                       \
    NOINLINE void cell_row_##NAME(const struct panels *p, const struct form *form,                 \
                                  const struct cell_rows *rows)                                    \
    {                                                                                              \
        one_row_cell(G, APART, p, form, rows);                                                     \
    }                                                                                              \
    NOINLINE void cell_rows_##NAME(const struct panels *p, const struct form *form,                \
                                   const struct cell_rows *rows)                                   \
    {                                                                                              \
        for (size_t r = 0; r < rows->n; r += ROW_GROUP) {                                          \
            const struct cell_rows group = group_of(rows, r);                                      \
            many_rows_cell(G, APART, p, form, &group);                                             \
        }                                                                                          \
    }
CELL(1, 1, 0)
CELL(2, 2, 0)
CELL(3, 3, 0)
CELL(apart, 3, 1)
CELL(4, 4, 0)
#undef CELL

static void cell(const struct panels *p, const struct form *form, const struct cell_rows *rows)
{
    const int one = rows->n == 1;
    switch (p->n_gates) {
    case 1: (one ? cell_row_1 : cell_rows_1)(p, form, rows); break;
    case 2: (one ? cell_row_2 : cell_rows_2)(p, form, rows); break;
    case 3:
        if (p->apart) (one ? cell_row_apart : cell_rows_apart)(p, form, rows);
        else (one ? cell_row_3 : cell_rows_3)(p, form, rows);
        break;
    default: (one ? cell_row_4 : cell_rows_4)(p, form, rows);
    }
    v_leave();
}
