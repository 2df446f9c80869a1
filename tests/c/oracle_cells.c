// SPDX-License-Identifier: MIT
/* One step of one cell. LSTM, GRU and RNN: https://docs.pytorch.org/docs/stable/nn.html;
 * gate functions, clip, peepholes and reset_before: https://onnx.ai/onnx/operators/; what
 * neither has (layer normalisation in the cell, zoneout, full peepholes, coupling both ways)
 * as the docstrings of clstm/nn.py say it. */
#include <math.h>
#include <stdlib.h>

#include "oracle.h"
#include "tolerances.h"

/* ---- gate functions --------------------------------------------------------------- */

static double f_relu(double x, const double p[2]) { return (void)p, x < 0 ? 0 : x; }
static double f_linear(double x, const double p[2]) { return p[0] * x + p[1]; }
static double f_hard_sigmoid(double x, const double p[2])
{
    const double y = f_linear(x, p);
    return y < 0 ? 0 : y > 1 ? 1 : y;
}
static double f_hard_tanh(double x, const double p[2])
{
    return x < p[0] ? p[0] : x > p[1] ? p[1] : x;
}
static double f_softsign(double x, const double p[2])
{
    (void)p;
    return isinf(x) ? copysign(1, x) : x / (1 + fabs(x));
}
static double f_softplus(double x, const double p[2])
{
    (void)p;
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}
static double f_elu(double x, const double p[2]) { return x < 0 ? p[0] * expm1(x) : x; }
static double f_leaky(double x, const double p[2]) { return x < 0 ? p[0] * x : x; }
static double f_thresholded(double x, const double p[2]) { return x > p[0] ? x : 0; }

/* Those of sigmoid, tanh and the elementary functions are promised or were measured; the
 * others are of one or two roundings. */
static const struct curve curves[G_KINDS] = {
    [G_SIGMOID] = {f_sigmoid, NAN, 2.0},
    [G_TANH] = {f_tanh, NAN, 1.5},
    [G_RELU] = {f_relu, 0, 0},
    [G_HARD_SIGMOID] = {f_hard_sigmoid, NAN, 1},
    [G_HARD_TANH] = {f_hard_tanh, NAN, 0},
    [G_SOFTSIGN] = {f_softsign, NAN, 2},
    [G_SOFTPLUS] = {f_softplus, NAN, 3},
    [G_ELU] = {f_elu, 0, 2.5},
    [G_LEAKY_RELU] = {f_leaky, 0, 0.5},
    [G_THRESHOLDED_RELU] = {f_thresholded, 0, 0},
    [G_SCALED_TANH] = {f_tanh, NAN, 1.5},
    [G_AFFINE] = {f_linear, NAN, 1},
};

struct value v_gate(const struct gate *g, struct value z)
{
    struct curve curve = curves[g->kind];
    const double *p = g->p;
    if (g->kind == G_THRESHOLDED_RELU) curve.turn = p[0];
    if (g->kind == G_SCALED_TANH) {
        const struct value inside = v_rounded(v_times(v_exactly(p[1]), z));
        return v_rounded(v_times(v_exactly(p[0]), v_curve(&curve, p, inside)));
    }
    struct value y = v_curve(&curve, p, z);
    if ((g->kind == G_HARD_SIGMOID || g->kind == G_AFFINE) && isfinite(z.exact)) /* cancellation */
        y.bound += 2 * U * (fabs(p[0]) * (fabs(z.exact) + z.bound) + fabs(p[1]));
    return y;
}

/* ---- parts of a cell -------------------------------------------------------------- */

size_t oracle_n_gates(const struct oracle_cell *cell)
{
    if (cell->kind != CELL_LSTM) return cell->kind == CELL_GRU ? 3 : 1;
    return cell->coupled ? 3 : 4;
}

static struct value clipped(struct value v, double clip)
{
    return clip > 0 ? v_clamped(v, -clip, clip) : v;
}

static void add_biases(const struct oracle_cell *cell, size_t row, struct sum *s)
{
    if (cell->b1) sum_add(s, v_exactly(cell->b1[row]));
    if (cell->b2) sum_add(s, v_exactly(cell->b2[row]));
}

static void add_x(const struct oracle_cell *cell, size_t row, const struct value *x, struct sum *s)
{
    sum_products(s, cell->n_x, cell->w + row * cell->n_x, x);
}

static void add_h(const struct oracle_cell *cell, size_t row, const struct value *h, struct sum *s)
{
    sum_products(s, cell->n_h, cell->u + row * cell->n_h, h);
}

static struct value mix(double p, struct value old, struct value new)
{
    const struct value a = v_rounded(v_times(v_exactly(p), old));
    const struct value b = v_times(v_exactly(1 - p), new);
    struct value both = v_rounded(v_plus(a, v_rounded(b)));
    both.bound += U * (fabs(old.exact) + fabs(new.exact)); /* 1 - p and the other forms */
    return both;
}

/* ---- LSTM ------------------------------------------------------------------------- */

enum lstm_gate { INPUT, FORGET, CANDIDATE, OUTPUT };

/* The rows of a gate among those that the tensors have; SIZE_MAX for a derived one. */
static size_t place(const struct oracle_cell *cell, enum lstm_gate gate)
{
    static const size_t places[3][4] = {{0, 1, 2, 3}, {0, SIZE_MAX, 1, 2}, {SIZE_MAX, 0, 1, 2}};
    return places[cell->coupled][gate];
}

struct lstm_step {
    const struct oracle_cell *cell;
    const struct value *x, *h;
};

/* What the peepholes add to a gate's unit; c is the state that it may see. */
static void add_peephole(const struct oracle_cell *cell, enum lstm_gate gate, size_t unit,
                         const struct value *c, struct sum *s)
{
    static const size_t rows[] = {0, 1, SIZE_MAX, 2}; /* i f o */
    if (cell->diagonal && gate != CANDIDATE) {
        const float *p = cell->diagonal + rows[gate] * cell->n_hidden + unit;
        sum_add(s, v_times(v_exactly(*p), c[unit]));
    }
    if (cell->full) {
        const size_t row = place(cell, gate) * cell->n_hidden + unit;
        sum_products(s, cell->n_hidden, cell->full + row * cell->n_hidden, c);
    }
}

static int peephole_inside(const struct oracle_cell *cell)
{
    return cell->per_gate && !cell->ln[1] && cell->diagonal;
}

/* LN(W x + U h) or LN(W x) + LN(U h) of one gate's units. */
static void normalised(const struct lstm_step *t, enum lstm_gate gate, const struct value *c,
                       struct value *out)
{
    const struct oracle_cell *cell = t->cell;
    const size_t n = cell->n_hidden, at = place(cell, gate) * n;
    const size_t all = cell->per_gate ? n : oracle_n_gates(cell) * n;
    const size_t first = cell->per_gate ? at : 0;
    struct value *v = malloc(2 * all * sizeof *v), *w = v + all;
    for (size_t i = 0; i < n; i++) out[i] = v_exactly(0);
    for (int part = 0; part < 2 && cell->ln[part]; part++) {
        for (size_t i = 0; i < all; i++) {
            const size_t row = first + i;
            struct sum s = {0};
            if (part == 0) add_x(cell, row, t->x, &s);
            if (part == 1 || !cell->ln[1]) add_h(cell, row, t->h, &s);
            if (peephole_inside(cell)) add_peephole(cell, gate, i, c, &s);
            v[i] = sum_value(&s);
        }
        const float *bias = cell->ln_bias[part] ? cell->ln_bias[part] + first : NULL;
        v_layer_norm(all, v, cell->ln[part] + first, bias, cell->eps, w);
        for (size_t i = 0; i < n; i++) out[i] = v_plus(out[i], w[at - first + i]);
    }
    free(v);
}

/* The pre-activations of one gate, c being what its peephole sees. */
static void pre_activations(const struct lstm_step *t, enum lstm_gate gate, const struct value *c,
                            struct value *z)
{
    const struct oracle_cell *cell = t->cell;
    const size_t n = cell->n_hidden, at = place(cell, gate) * n;
    if (cell->ln[0]) normalised(t, gate, c, z);
    for (size_t i = 0; i < n; i++) {
        struct sum s = {0};
        if (cell->ln[0]) sum_add(&s, z[i]);
        else {
            add_x(cell, at + i, t->x, &s);
            add_h(cell, at + i, t->h, &s);
        }
        add_biases(cell, at + i, &s);
        if (gate == FORGET && cell->forget_bias != 0) sum_add(&s, v_exactly(cell->forget_bias));
        if (!cell->ln[0] || !peephole_inside(cell)) add_peephole(cell, gate, i, c, &s);
        z[i] = clipped(sum_value(&s), cell->clip);
    }
}

static struct value one_minus(struct value v)
{
    v.exact = 1 - v.exact;
    return v_rounded(v);
}

static void project(const struct oracle_cell *cell, const struct value *h, struct value *out)
{
    for (size_t row = 0; row < cell->n_h; row++) {
        struct sum s = {0};
        sum_products(&s, cell->n_hidden, cell->project + row * cell->n_hidden, h);
        if (cell->b_project) sum_add(&s, v_exactly(cell->b_project[row]));
        out[row] = v_flushed(clipped(sum_value(&s), cell->proj_clip));
    }
}

static void lstm(const struct lstm_step *t, const struct value *c, struct value *h_next,
                 struct value *c_next)
{
    const struct oracle_cell *cell = t->cell;
    const size_t n = cell->n_hidden;
    const struct gate *gate = cell->gate;
    struct value *z[4], *all = malloc(6 * n * sizeof *all), *seen = all + 4 * n, *h = all + 5 * n;
    for (size_t g = 0; g < 4; g++) z[g] = all + g * n;
    for (enum lstm_gate g = INPUT; g <= CANDIDATE; g++)
        if (place(cell, g) != SIZE_MAX) pre_activations(t, g, c, z[g]);
    for (size_t j = 0; j < n; j++) {
        struct value i = {0, 0}, f = {0, 0};
        if (cell->coupled != I_FROM_F) i = v_gate(&gate[0], z[INPUT][j]);
        if (cell->coupled != F_FROM_I) f = v_gate(&gate[0], z[FORGET][j]);
        if (cell->coupled == I_FROM_F) i = one_minus(f);
        if (cell->coupled == F_FROM_I) f = one_minus(i);
        const struct value g = v_gate(&gate[1], z[CANDIDATE][j]);
        struct value next = v_rounded(v_plus(v_rounded(v_times(i, g)), v_times(f, c[j])));
        if (cell->cell_clip_stored) next = clipped(next, cell->cell_clip);
        c_next[j] = next;
    }
    if (cell->ln_cell && cell->ln_cell_stored)
        v_layer_norm(n, c_next, cell->ln_cell, cell->ln_cell_bias, cell->eps, c_next);
    for (size_t j = 0; j < n; j++) seen[j] = c_next[j] = v_flushed(c_next[j]);
    if (cell->ln_cell && !cell->ln_cell_stored)
        v_layer_norm(n, c_next, cell->ln_cell, cell->ln_cell_bias, cell->eps, seen);
    pre_activations(t, OUTPUT, cell->full && !cell->output_new ? c : c_next, z[OUTPUT]);
    for (size_t j = 0; j < n; j++) {
        const struct value s = cell->cell_clip_stored ? seen[j] : clipped(seen[j], cell->cell_clip);
        h[j] = v_rounded(v_times(v_gate(&gate[0], z[OUTPUT][j]), v_gate(&gate[2], s)));
        h[j] = v_flushed(h[j]);
    }
    if (cell->project) project(cell, h, h_next);
    else
        for (size_t j = 0; j < n; j++)
            h_next[j] = v_flushed(cell->zone_h > 0 ? mix(cell->zone_h, t->h[j], h[j]) : h[j]);
    for (size_t j = 0; j < n && cell->zone_c > 0; j++)
        c_next[j] = v_flushed(mix(cell->zone_c, c[j], c_next[j]));
    free(all);
}

/* ---- GRU and RNN ------------------------------------------------------------------ */

/* Row `row` of W x + b1 + b2 + U h. */
static struct value row_sum(const struct oracle_cell *cell, size_t row, const struct value *x,
                            const struct value *h)
{
    struct sum s = {0};
    add_biases(cell, row, &s);
    add_x(cell, row, x, &s);
    add_h(cell, row, h, &s);
    return sum_value(&s);
}

/* The argument of n's function. */
static struct value candidate(const struct oracle_cell *cell, size_t j, const struct value *x,
                              const struct value *h, const struct value *r)
{
    const size_t row = 2 * cell->n_hidden + j;
    struct sum s = {0}, recurrent = {0};
    if (cell->reset_before) { /* h is r h already */
        return row_sum(cell, row, x, h);
    }
    add_x(cell, row, x, &s);
    if (cell->b1) sum_add(&s, v_exactly(cell->b1[row]));
    if (cell->b2) sum_add(&recurrent, v_exactly(cell->b2[row]));
    add_h(cell, row, h, &recurrent);
    sum_add(&s, v_rounded(v_times(r[j], sum_value(&recurrent))));
    return sum_value(&s);
}

static void gru(const struct oracle_cell *cell, const struct value *x, const struct value *h,
                struct value *h_next)
{
    const size_t n = cell->n_hidden;
    struct value *r = malloc(2 * n * sizeof *r), *reset = r + n;
    for (size_t j = 0; j < n; j++) {
        r[j] = v_gate(&cell->gate[0], clipped(row_sum(cell, j, x, h), cell->clip));
        reset[j] = v_rounded(v_times(r[j], h[j]));
    }
    for (size_t j = 0; j < n; j++) {
        const struct value z =
            v_gate(&cell->gate[0], clipped(row_sum(cell, n + j, x, h), cell->clip));
        const struct value a = candidate(cell, j, x, cell->reset_before ? reset : h, r);
        const struct value c = v_gate(&cell->gate[1], clipped(a, cell->clip));
        /* (1 - z) c + z h, however it is written */
        const double apart = fabs(h[j].exact - c.exact), size = fabs(h[j].exact) + fabs(c.exact);
        struct value next = {(1 - z.exact) * c.exact + z.exact * h[j].exact, 0};
        next.bound = fabs(1 - z.exact) * c.bound + fabs(z.exact) * h[j].bound + z.bound * apart +
                     z.bound * (c.bound + h[j].bound) +
                     4 * U * (1 + fabs(z.exact) + z.bound) * (size + c.bound + h[j].bound);
        if (!isfinite(next.exact)) next.bound = 0;
        /* Only a function without a limit gives an infinity; the forms differ from there on. */
        if (isinf(z.exact) || isinf(c.exact)) next = (struct value){0, INFINITY};
        h_next[j] = v_flushed(v_rounded(next));
    }
    free(r);
}

void oracle_step(const struct oracle_cell *cell, const struct value *x, const struct value *h,
                 const struct value *c, struct value *h_next, struct value *c_next)
{
    const struct lstm_step t = {.cell = cell, .x = x, .h = h};
    switch (cell->kind) {
    case CELL_LSTM: lstm(&t, c, h_next, c_next); return;
    case CELL_GRU: gru(cell, x, h, h_next); return;
    case CELL_RNN:
        for (size_t j = 0; j < cell->n_hidden; j++)
            h_next[j] =
                v_flushed(v_gate(&cell->gate[0], clipped(row_sum(cell, j, x, h), cell->clip)));
        return;
    }
}
