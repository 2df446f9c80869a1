// SPDX-License-Identifier: MIT
/* The cell kernel: every kind of cell and of finish, one step, against the oracle; each gate
 * function alone; and the same bits from every set, from one row and from many, from totals
 * that the product left and from the bias. Layer normalisation and projection are kernels of
 * their own, called around this one: check_models.c has them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_kernels.h"

enum what { PLAIN_LSTM, LSTM, LSTM_NEW_OUTPUT, GRU, GRU_RESET, RNN, N_WHATS };

struct cell_case {
    enum what what;
    struct oracle_cell cell;
    struct form form, late_form;
    struct panels panels, late; /* late: no blocks without */
    size_t n, x_stride, h_stride, n_padded;
    int backward;
    const float *x, **h; /* h: [n] rows that lie anywhere */
    const float *c;      /* [n][n_padded] before the step */
    const float *squash; /* [n][n_padded] what goes through h's function instead of c, or NULL */
};

/* ---- one cell --------------------------------------------------------------------- */

static const double numbers[GATE_FUNCTIONS][2] = {[GATE_HARD_SIGMOID] = {0.25, 0.375},
                                                  [GATE_HARD_TANH] = {-0.75, 1.25},
                                                  [GATE_ELU] = {0.5, 0},
                                                  [GATE_LEAKY] = {0.125, 0},
                                                  [GATE_THRESHOLDED] = {0.0625, 0},
                                                  [GATE_SCALED_TANH] = {1.5, 0.625},
                                                  [GATE_AFFINE] = {0.5, 0.25}};

static void choose_gate(struct rng *r, int usual, int plain, struct gate *gate,
                        struct gate_function *function)
{
    const size_t kind = plain || rng_below(r, 2) ? (size_t)usual : rng_below(r, GATE_FUNCTIONS);
    gate->kind = (enum gate_kind)kind;
    function->kind = (enum gate_function_kind)kind;
    for (int k = 0; k < 2; k++) gate->p[k] = numbers[kind][k];
    function->alpha = (float)numbers[kind][0];
    function->beta = (float)numbers[kind][1];
}

static void choose_lstm(struct rng *r, struct cell_case *t)
{
    struct oracle_cell *cell = &t->cell;
    const size_t n = cell->n_hidden;
    t->form.finish = FINISH_LSTM;
    if (t->what == PLAIN_LSTM) return;
    cell->coupled = (enum coupling)rng_below(r, 3);
    const size_t peephole = t->what == LSTM_NEW_OUTPUT ? 2 : rng_below(r, 3);
    if (peephole == 1) cell->diagonal = some(r, 3 * n, 1);
    if (peephole == 2) cell->full = some(r, oracle_n_gates(cell) * n * n, weight_scale(n));
    cell->output_new = t->what == LSTM_NEW_OUTPUT;
    if (rng_below(r, 3) == 0) cell->cell_clip = 0.25;
    cell->cell_clip_stored = cell->cell_clip > 0 && rng_below(r, 2);
    if (cell->n_h == n && rng_below(r, 2)) cell->zone_h = rng_below(r, 2) ? 0.125 : 0;
    if (cell->n_h == n && rng_below(r, 2)) cell->zone_c = rng_below(r, 2) ? 0.25 : 1;
}

static struct form form_of(const struct cell_case *t, struct form form)
{
    static const struct gate_places places[] = {{0, 1, 2, 3}, {0, -1, 1, 2}, {-1, 0, 1, 2}};
    const struct oracle_cell *cell = &t->cell;
    form.at = places[cell->coupled];
    form.clip = cell->clip > 0 ? (float)cell->clip : INFINITY;
    form.cell_clip = cell->cell_clip > 0 ? (float)cell->cell_clip : INFINITY;
    form.cell_clip_stored = cell->cell_clip_stored;
    form.zone_h = (float)cell->zone_h, form.fresh_h = (float)(1 - cell->zone_h);
    form.zone_c = (float)cell->zone_c, form.fresh_c = (float)(1 - cell->zone_c);
    return form;
}

static void pack(struct arena *memory, struct cell_case *t)
{
    static const int gates[] = {0, 1, 2, 3};
    const struct oracle_cell *cell = &t->cell;
    const size_t G = oracle_n_gates(cell);
    const int waits = t->what == GRU_RESET || t->what == LSTM_NEW_OUTPUT;
    struct matrix m = {.n_gates = G - (size_t)waits,
                       .n_out = cell->n_hidden,
                       .n_x = cell->n_x,
                       .n_h = cell->n_h,
                       .n_c = cell->full ? cell->n_hidden : 0,
                       .w = cell->w,
                       .u = cell->u,
                       .k = cell->full,
                       .b1 = cell->b1,
                       .b2 = cell->b2,
                       .apart = t->what == GRU};
    int ok = clstm_pack(memory, &m, &t->panels);
    t->late_form = t->form;
    if (waits) {
        m.n_gates = 1;
        m.gate = gates + G - 1;
        ok &= clstm_pack(memory, &m, &t->late);
        t->form.finish = t->what == GRU_RESET ? FINISH_GRU_RESET : FINISH_LSTM_CELL;
        t->late_form.finish = t->what == GRU_RESET ? FINISH_GRU_NEW : FINISH_LSTM_OUT;
        t->late_form.at.o = 0;
    }
    if (cell->diagonal)
        t->form.peephole = clstm_pack_units(memory, cell->diagonal, 3, cell->n_hidden);
    check(ok && (!cell->diagonal || t->form.peephole), "no memory");
}

static struct cell_case some_cell(struct rng *r, struct arena *memory, enum what what, size_t n_x,
                                  size_t n_h, size_t n_hidden)
{
    const float scale = weight_scale(n_x + n_h);
    struct cell_case t = {.what = what};
    struct oracle_cell *cell = &t.cell;
    *cell = (struct oracle_cell){.n_x = n_x, .n_h = n_h, .n_hidden = n_hidden};
    cell->kind = what < GRU ? CELL_LSTM : what < RNN ? CELL_GRU : CELL_RNN;
    cell->reset_before = what == GRU_RESET;
    if (cell->kind == CELL_LSTM) choose_lstm(r, &t);
    else t.form.finish = cell->kind == CELL_GRU ? FINISH_GRU : FINISH_RNN;
    const size_t rows = oracle_n_gates(cell) * n_hidden;
    cell->w = some(r, rows * n_x, scale);
    cell->u = some(r, rows * n_h, scale);
    if (rng_below(r, 3)) {
        cell->b1 = some(r, rows, 1);
        cell->b2 = some(r, rows, 1);
    }
    const int bare = cell->coupled == NOT_COUPLED && !cell->diagonal && cell->cell_clip == 0 &&
                     cell->zone_h == 0 && cell->zone_c == 0;
    t.form.plain = what == PLAIN_LSTM || (bare && rng_below(r, 3) == 0);
    if (!t.form.plain && rng_below(r, 3) == 0) cell->clip = 0.5;
    const int rnn = cell->kind == CELL_RNN;
    choose_gate(r, rnn ? GATE_TANH : GATE_SIGMOID, t.form.plain, &cell->gate[0], &t.form.f);
    choose_gate(r, GATE_TANH, t.form.plain, &cell->gate[1], &t.form.g);
    choose_gate(r, GATE_TANH, t.form.plain, &cell->gate[2], &t.form.h);
    t.form = form_of(&t, t.form);
    pack(memory, &t);
    return t;
}

/* ---- one step by one kernel set --------------------------------------------------- */

/* Room of a step: rows of n_padded floats. */
struct room {
    float *c_old, *c_new, *z, *reset;
    const float **k;
    float **c;
};

static float *copied(const struct cell_case *t, size_t n, float *const *c, const float **k)
{
    float *to = guarded(n * t->n_padded, 0);
    for (size_t i = 0; i < n; i++) {
        memcpy(to + i * t->n_padded, c[i], t->n_padded * sizeof *to);
        k[i] = to + i * t->n_padded;
    }
    return to;
}

static void late_step(const struct cell_case *t, const struct kernels *k, struct cell_rows rows,
                      struct values out, struct values z, const float **seen)
{
    rows.total = t->late.bias;
    rows.total_stride = 0;
    if (z.at) {
        k->product(&t->late, rows.n, t->x + (rows.h - t->h) * (ptrdiff_t)t->x_stride, t->x_stride,
                   z);
        rows.total = z.at;
        rows.total_stride = z.stride;
    }
    if (t->what == GRU_RESET) { /* its h is r * h */
        for (size_t i = 0; i < rows.n; i++) seen[i] = rows.out.at + i * rows.out.stride;
        rows.h = seen;
    } else {
        copied(t, rows.n, rows.c, seen);
        rows.k = seen;
    }
    rows.out = out;
    k->cell(&t->late, &t->late_form, &rows);
}

/* Rows first ... first + n - 1: their new h and c, the latter in [n][n_padded]. */
static void step(const struct cell_case *t, const struct kernels *k, int from_product, size_t first,
                 size_t n, float *c_next, struct values h_next)
{
    float **c = malloc(n * sizeof *c);
    const float **seen = malloc(n * sizeof *seen);
    for (size_t i = 0; i < n && t->c; i++) { /* not in the order of the rows */
        c[i] = c_next + (first + n - 1 - i) * t->n_padded;
        memcpy(c[i], t->c + (first + i) * t->n_padded, t->n_padded * sizeof **c);
    }
    struct cell_rows rows = {.n = n,
                             .total = t->panels.bias,
                             .x = t->x + first * t->x_stride,
                             .x_stride = t->x_stride,
                             .h = t->h + first,
                             .old = t->h + first,
                             .c = t->c ? c : NULL,
                             .out = h_next,
                             .backward = t->backward ^ (first & 1)};
    rows.out.at += first * h_next.stride;
    const struct values out = rows.out, wide = {NULL, t->n_padded};
    struct values z = {NULL, t->panels.n_blocks * t->panels.n_gates * UNITS}, late_z = wide;
    if (from_product) {
        z.at = guarded(n * z.stride, 1);
        late_z.at = guarded(n * late_z.stride, 2);
        k->product(&t->panels, n, rows.x, t->x_stride, z);
        rows.total = z.at;
        rows.total_stride = z.stride;
        rows.x = NULL;
    }
    if (t->c) {
        rows.c_old = (struct values){copied(t, n, c, seen), t->n_padded};
        rows.k = seen;
    }
    if (t->squash)
        rows.squash = (struct values){(float *)t->squash + first * t->n_padded, t->n_padded};
    if (t->what == GRU_RESET) {
        rows.z = (struct values){guarded(n * t->n_padded, 3), t->n_padded};
        rows.out = (struct values){guarded(n * t->n_padded, 4), t->n_padded};
    }
    k->cell(&t->panels, &t->form, &rows);
    if (t->late.n_blocks) late_step(t, k, rows, out, late_z, seen);
    for (size_t i = 0; i < n / 2 && t->c; i++) /* back into the order of the rows */
        for (size_t j = 0; j < t->n_padded; j++) {
            const float swap = c[i][j];
            c[i][j] = c[n - 1 - i][j];
            c[n - 1 - i][j] = swap;
        }
    free(c);
    free(seen);
}

/* ---- and what must come of it ----------------------------------------------------- */

static int is_flushed(float x) { return x == 0 || !(fabsf(x) < 0x1p-100f); }

static void compare(const struct cell_case *t, const char *what, size_t n, const float *got,
                    const struct value *expected)
{
    for (size_t j = 0; j < n; j++) {
        check(is_flushed(got[j]), "cell %d: %s below 2^-100 is not 0", t->what, what);
        if (isinf(expected[j].bound)) continue; /* float32 may overflow on the way */
        check(within(got[j], expected[j]),
              "cell %d: %s %.9g, not %.9g within %.3g (%zu, %zu -> %zu)", t->what, what,
              (double)got[j], expected[j].exact, expected[j].bound, t->cell.n_x, t->cell.n_h,
              t->cell.n_hidden);
    }
}

static void check_against_oracle(const struct cell_case *t, const float *c, struct values h)
{
    struct oracle_cell unprojected = t->cell; /* h is wider than what it is fed */
    const size_t n = t->cell.n_hidden, n_x = t->cell.n_x, n_h = t->cell.n_h;
    struct value *x = malloc((n_x + n_h + 3 * n) * sizeof *x);
    struct value *old = x + n_x, *c_old = old + n_h, *h_next = c_old + n, *c_next = h_next + n;
    for (size_t i = 0; i < t->n; i++) {
        for (size_t k = 0; k < n_x; k++) x[k] = v_exactly(t->x[i * t->x_stride + k]);
        for (size_t k = 0; k < n_h; k++) old[k] = v_exactly(t->h[i][k]);
        for (size_t k = 0; k < n && t->c; k++) c_old[k] = v_exactly(t->c[i * t->n_padded + k]);
        oracle_step(&unprojected, x, old, c_old, h_next, c_next);
        if (t->c) compare(t, "c", n, c + i * t->n_padded, c_next);
        compare(t, "h", n, h.at + i * h.stride, h_next);
    }
    free(x);
}

/* By every set from the bias and from the product's totals, together and each row alone: the
 * first to the oracle, the rest to the first. One row and many are different code. */
static void check_ways(const struct cell_case *t, struct rng *r)
{
    const size_t n = t->cell.n_hidden, stride = t->n_padded + rng_below(r, 9);
    float *first_c = NULL;
    struct values first_h = {0};
    for (size_t way = 0; way < 4 * n_sets; way++) {
        const struct kernels *k = sets[way / 4];
        const int from_product = way & 1, alone = (way & 2) > 0;
        float *c = guarded(t->n * t->n_padded, rng_below(r, 16));
        const struct values h = {guarded(t->n * stride, rng_below(r, 16)), stride};
        if (!alone) step(t, k, from_product, 0, t->n, c, h);
        for (size_t i = 0; alone && i < t->n; i++) step(t, k, from_product, i, 1, c, h);
        if (way == 0) {
            if (!t->squash) check_against_oracle(t, c, h); /* check_models.c has the norm of c */
            first_c = c;
            first_h = h;
        }
        for (size_t i = 0; i < t->n; i++)
            check((!t->c || same_bits(c + i * t->n_padded, first_c + i * t->n_padded, n)) &&
                      same_bits(h.at + i * stride, first_h.at + i * stride, n),
                  "%s cell %d: %s, %s: not the first bits (row %zu of %zu, %zu, %zu -> %zu)",
                  k->name, t->what, from_product ? "from totals" : "from the bias",
                  alone ? "alone" : "together", i, t->n, t->cell.n_x, t->cell.n_h, n);
    }
}

static void check_cell(struct rng *r, enum what what, size_t n, size_t n_x, size_t n_h,
                       size_t n_hidden)
{
    struct arena memory = {0};
    if (what >= GRU) n_h = n_hidden; /* no projection */
    struct cell_case t = some_cell(r, &memory, what, n_x, n_h, n_hidden);
    t.n = n;
    t.n_padded = padded(n_hidden);
    t.x_stride = n_x + rng_below(r, 20);
    t.h_stride = padded(n_h) + rng_below(r, 20);
    t.backward = (int)rng_below(r, 2);
    float *x = some_rows(r, n, n_x, t.x_stride, 2), *h = some_rows(r, n, n_h, t.h_stride, 1);
    float *c = t.cell.kind == CELL_LSTM ? some_rows(r, n, n_hidden, t.n_padded, 1) : NULL;
    t.h = malloc(n * sizeof *t.h);
    for (size_t i = 0; i < n; i++) t.h[i] = h + (n - 1 - i) * t.h_stride;
    const size_t row = rng_below(r, n);
    switch (rng_below(r, 6)) { /* one thing rare at a time: two may cancel to either side */
    case 0: x[row * t.x_stride + rng_below(r, n_x)] = rare(r); break;
    case 1: h[row * t.h_stride + rng_below(r, n_h)] = rare(r); break;
    case 2:
        if (c) c[row * t.n_padded + rng_below(r, n_hidden)] = rare(r);
        break;
    default: break;
    }
    t.x = x;
    t.c = c;
    if (what == LSTM && !t.form.plain && rng_below(r, 4) == 0)
        t.squash = some_rows(r, n, n_hidden, t.n_padded, 1);
    check_ways(&t, r);
    check(guards_whole(), "cell wrote outside its rows");
    free(t.h);
    clstm_arena_free(&memory);
}

/* ---- gate functions, and sums that are given -------------------------------------- */

/* An RNN without inputs: f of its totals. */
static void check_function(struct rng *r, enum gate_function_kind kind, size_t blocks, float scale,
                           float clip)
{
    const size_t n = blocks * UNITS;
    const struct panels none = {.n_gates = 1, .n_blocks = blocks};
    const float alpha = (float)numbers[kind][0], beta = (float)numbers[kind][1];
    const struct form form = {.finish = FINISH_RNN, .f = {kind, alpha, beta}, .clip = clip};
    const struct gate gate = {(enum gate_kind)kind, {alpha, beta}};
    float *x = some(r, n, scale), *first = NULL;
    for (size_t i = 0; i < n; i++)
        if (rng_below(r, 8) == 0) x[i] = rng_below(r, 4) ? rare(r) : alpha;
    for (size_t s = 0; s < n_sets; s++) {
        float *y = guarded(n, rng_below(r, 16));
        const struct cell_rows rows = {.n = 1, .total = x, .out = {y, n}};
        sets[s]->cell(&none, &form, &rows);
        if (s == 0) first = y;
        check(same_bits(y, first, n), "%s gate function %d: not the bits of %s", sets[s]->name,
              kind, sets[0]->name);
    }
    for (size_t i = 0; i < n; i++) {
        const struct value z = v_clamped(v_exactly(x[i]), -clip, clip);
        const struct value v = v_flushed(v_gate(&gate, z));
        check(is_flushed(first[i]), "gate function %d: below 2^-100 is not 0", kind);
        check(within(first[i], v), "gate function %d of %.9g = %.9g, not %.9g within %.3g", kind,
              (double)x[i], (double)first[i], v.exact, v.bound);
    }
    check(guards_whole(), "gate function wrote outside its row");
}

/* Totals of an LSTM that nothing is added to: what no input gives is reached too. */
static void check_given_totals(struct rng *r, size_t n, size_t n_hidden)
{
    const size_t blocks = padded(n_hidden) / UNITS, wide = blocks * 4 * UNITS, m = blocks * UNITS;
    const struct panels none = {.n_gates = 4, .n_blocks = blocks};
    const struct form form = {.finish = FINISH_LSTM, .plain = 1, .at = {0, 1, 2, 3}};
    float *total = some_rows(r, n, wide, wide + UNITS, 8), *c = some_rows(r, n, m, m, 1);
    const size_t row = rng_below(r, n), at = rng_below(r, m);
    float *sum = total + row * (wide + UNITS) + at / UNITS * 4 * UNITS + at % UNITS;
    if (rng_below(r, 2)) sum[rng_below(r, 4) * UNITS] = rare(r);
    else { /* c decays past 2^-100 with nothing added: g is 0 */ c[row * m + at] = -0x1.8p-100f;
        sum[UNITS] = 0.5f;
        sum[2 * UNITS] = 0.0f;
    }
    float *first_c = NULL, *first_h = NULL;
    struct value *z = malloc(6 * m * sizeof *z), *c_next = z + 4 * m, *h_next = z + 5 * m;
    for (size_t s = 0; s < n_sets; s++) {
        float *c_new = guarded(n * m, 1), *h = guarded(n * m, 2),
              **rows_c = malloc(n * sizeof *rows_c);
        memcpy(c_new, c, n * m * sizeof *c);
        for (size_t i = 0; i < n; i++) rows_c[i] = c_new + i * m;
        const struct cell_rows rows = {
            .n = n, .total = total, .total_stride = wide + UNITS, .c = rows_c, .out = {h, m}};
        sets[s]->cell(&none, &form, &rows);
        if (s == 0) first_c = c_new, first_h = h;
        check(same_bits(c_new, first_c, n * m) && same_bits(h, first_h, n * m),
              "%s cell: given totals: not the bits of %s", sets[s]->name, sets[0]->name);
        free(rows_c);
    }
    const struct cell_case t = {.what = PLAIN_LSTM, .cell = {.n_hidden = n_hidden}};
    for (size_t i = 0; i < n; i++) {
        for (size_t g = 0; g < 4; g++)
            for (size_t j = 0; j < m; j++)
                z[g * m + j] = v_exactly(
                    total[i * (wide + UNITS) + j / UNITS * 4 * UNITS + g * UNITS + j % UNITS]);
        oracle_finish(m, z, c + i * m, c_next, h_next);
        compare(&t, "c of given totals", m, first_c + i * m, c_next);
        compare(&t, "h of given totals", m, first_h + i * m, h_next);
    }
    free(z);
    check(guards_whole(), "cell wrote outside its rows");
}

void check_cells(struct rng *r)
{
    for (size_t n = 1; n <= 70; n++) /* edges of row groups */
        for (size_t k = 0; k < 2; k++) {
            const size_t n_hidden = n % 5 ? 18 : 70;
            check_cell(r, (enum what)((n + 3 * k) % N_WHATS), n, n % 7 ? 5 : 65, n_hidden,
                       n_hidden);
        }
    for (size_t i = 0; i < N_EDGES; i++)
        for (enum what what = PLAIN_LSTM; what < N_WHATS; what++) {
            const size_t n_hidden = edges[(i * 4 + 1) % N_EDGES];
            check_cell(r, what, 1 + i % 3, edges[i], n_hidden, n_hidden);
            if (what == PLAIN_LSTM) /* a projection: h is narrower than c */
                check_cell(r, i % 2 ? LSTM : what, 1 + i % 2 * 6, 3, edges[i], 130);
        }
    for (size_t i = 0; i < 20 * N_WHATS; i++) /* more rows than a group has, of each kind */
        check_cell(r, (enum what)(i % N_WHATS), ROW_GROUP + 1 + i % 9, 5, 18, 18);
    for (size_t i = 0; i < 400; i++) {
        const size_t n_hidden = i % 4 ? rng_between(r, 1, 40) : some_size(r);
        const size_t n_h = rng_below(r, 3) ? n_hidden : rng_between(r, 1, n_hidden);
        const size_t n_x = i % 4 ? rng_between(r, 1, 40) : some_size(r), n = rng_between(r, 1, 8);
        check_cell(r, (enum what)(i % N_WHATS), n, n_x, n_h, n_hidden);
    }
    for (int kind = 0; kind < GATE_FUNCTIONS; kind++)
        for (size_t blocks = 1; blocks <= 20; blocks++)
            for (int e = -4; e <= 7; e++)
                check_function(r, (enum gate_function_kind)kind, blocks, ldexpf(1, e),
                               e % 3 ? INFINITY : 0.75f);
    for (size_t n = 1; n <= 60; n++) check_given_totals(r, n, 1 + n * 7 % 65);
}
