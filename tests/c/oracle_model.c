// SPDX-License-Identifier: MIT
/* A whole model in double: the records of a sound .clstm image (docs/format.md), walked op by
 * op over all steps. Offsets and numbers are written out here, not taken from csrc/. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "tolerances.h"

enum {
    HEADER_BYTES = 64,
    OP_BYTES = 128,
    TENSOR_BYTES = 64,
    BIDIRECTIONAL = 1 << 1,
    BIAS = 1 << 3,
    WEIGHT = 1 << 4,
    PEEPHOLE = 1 << 7,
    PEEPHOLE_FULL = 1 << 8,
    OUTPUT_NEW = 1 << 9,
    COUPLED_F = 1 << 10,
    COUPLED_I = 1 << 11,
    CELL_CLIP_STORED = 1 << 12,
    PROJ_BIAS = 1 << 13,
    LAYER_NORM = 1 << 14,
    LN_PER_GATE = 1 << 15,
    LN_SEPARATE = 1 << 16,
    LN_CELL = 1 << 17,
    LN_CELL_STORED = 1 << 18,
    LN_BIAS = 1 << 19,
    LN_CELL_BIAS = 1 << 20,
    ACTIVATIONS = 1 << 21,
    RESET_BEFORE = 1 << 22,
    REVERSE = 1 << 23
};

struct record {
    uint32_t kind, flags, n_inputs, inputs[4], first_tensor, dims[8];
    double params[6];
};

static uint32_t word(const unsigned char *at)
{
    uint32_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

static uint32_t n_ops(const unsigned char *image) { return word(image + 24); }

static struct record record_at(const unsigned char *image, size_t i)
{
    const unsigned char *at = image + HEADER_BYTES + i * OP_BYTES;
    struct record r = {word(at), word(at + 4), word(at + 8), {0}, word(at + 32), {0}, {0}};
    for (size_t k = 0; k < 4; k++) r.inputs[k] = word(at + 12 + 4 * k);
    for (size_t k = 0; k < 8; k++) r.dims[k] = word(at + 48 + 4 * k);
    memcpy(r.params, at + 80, sizeof r.params);
    return r;
}

static const float *tensor_at(const unsigned char *image, size_t i, uint32_t *n)
{
    const unsigned char *at =
        image + HEADER_BYTES + (size_t)n_ops(image) * OP_BYTES + i * TENSOR_BYTES;
    uint64_t offset;
    memcpy(&offset, at, sizeof offset);
    if (n) *n = word(at + 24);
    return (const float *)(const void *)(image + offset);
}

/* Steps of one width, side by side. */
struct slot {
    size_t width;
    struct value *at; /* [n_steps][width] */
};

struct walk {
    const unsigned char *image;
    size_t n_steps;
    struct slot *slots;
    struct value *state; /* the whole of it, in the order of clstm_get_state; left as the next */
};

/* ---- recurrent layers ------------------------------------------------------------- */

static void gates_of(const struct record *r, size_t direction, const float *numbers,
                     struct oracle_cell *cell)
{
    const size_t n = cell->kind == CELL_LSTM ? 3 : cell->kind == CELL_GRU ? 2 : 1;
    static const enum gate_kind usual[3][3] = {
        {G_SIGMOID, G_TANH, G_TANH}, {G_SIGMOID, G_TANH, 0}, {G_TANH, 0, 0}};
    for (size_t i = 0; i < n; i++) {
        const size_t at = direction * n + i;
        cell->gate[i].kind = numbers ? (enum gate_kind)(r->dims[4] >> 5 * at & 31)
                                     : usual[cell->kind - CELL_LSTM][i];
        for (size_t k = 0; numbers && k < 2; k++) cell->gate[i].p[k] = numbers[2 * at + k];
    }
}

/* All cells of a layer, [num_layers][n_directions]. */
static struct oracle_cell *cells_of(const unsigned char *image, const struct record *r,
                                    size_t *count)
{
    const uint32_t f = r->flags;
    const size_t n_directions = f & BIDIRECTIONAL ? 2 : 1, n_hidden = r->dims[1];
    const size_t n_h = r->dims[2] ? r->dims[2] : n_hidden, n = r->dims[3] * n_directions;
    struct oracle_cell *cells = calloc(n, sizeof *cells);
    size_t next = r->first_tensor;
#define TAKE(condition) ((condition) ? tensor_at(image, next++, NULL) : NULL)
    for (size_t i = 0; i < n; i++) {
        struct oracle_cell *c = &cells[i];
        c->kind = (enum cell_kind)r->kind;
        c->n_x = i < n_directions ? r->dims[0] : n_h * n_directions;
        c->n_h = n_h;
        c->n_hidden = n_hidden;
        c->w = TAKE(1);
        c->u = TAKE(1);
        c->b1 = TAKE(f & BIAS);
        c->b2 = TAKE(f & BIAS);
        c->project = TAKE(r->dims[2]);
        c->b_project = TAKE(f & PROJ_BIAS);
        c->diagonal = TAKE(f & PEEPHOLE);
        c->full = TAKE(f & PEEPHOLE_FULL);
        for (int part = 0; part < (f & LN_SEPARATE ? 2 : 1); part++) {
            c->ln[part] = TAKE(f & LAYER_NORM);
            c->ln_bias[part] = TAKE(f & LN_BIAS);
        }
        c->ln_cell = TAKE(f & LN_CELL);
        c->ln_cell_bias = TAKE(f & LN_CELL_BIAS);
        c->output_new = (f & OUTPUT_NEW) != 0;
        c->coupled = f & COUPLED_F ? F_FROM_I : f & COUPLED_I ? I_FROM_F : NOT_COUPLED;
        c->per_gate = (f & LN_PER_GATE) != 0;
        c->cell_clip_stored = (f & CELL_CLIP_STORED) != 0;
        c->ln_cell_stored = (f & LN_CELL_STORED) != 0;
        c->reset_before = (f & RESET_BEFORE) != 0;
        c->clip = r->params[0];
        c->cell_clip = r->params[1];
        c->proj_clip = r->params[2];
        c->forget_bias = r->params[3];
        c->zone_h = r->params[4];
        c->zone_c = r->params[5];
    }
    const float *eps = TAKE(f & LAYER_NORM), *numbers = TAKE(f & ACTIVATIONS);
#undef TAKE
    for (size_t i = 0; i < n; i++) {
        cells[i].eps = eps ? *eps : 0;
        gates_of(r, i % n_directions, numbers, &cells[i]);
    }
    *count = n;
    return cells;
}

/* One cell over all steps; its outputs are features at ... at + n_h - 1 of rows of `width`. */
static void run_cell(const struct walk *w, const struct oracle_cell *cell, int backward,
                     struct slot in, struct value *h, struct value *c, struct value *out,
                     size_t width)
{
    struct value *h_next = malloc((cell->n_h + cell->n_hidden) * sizeof *h_next);
    struct value *c_next = h_next + cell->n_h;
    for (size_t i = 0; i < w->n_steps; i++) {
        const size_t t = backward ? w->n_steps - 1 - i : i;
        oracle_step(cell, in.at + t * in.width, h, c, h_next, c_next);
        memcpy(h, h_next, cell->n_h * sizeof *h);
        if (cell->kind == CELL_LSTM) memcpy(c, c_next, cell->n_hidden * sizeof *c);
        memcpy(out + t * width, h, cell->n_h * sizeof *out);
    }
    free(h_next);
}

static struct slot recurrent(struct walk *w, const struct record *r, struct slot in)
{
    size_t n;
    struct oracle_cell *cells = cells_of(w->image, r, &n);
    const size_t n_directions = r->flags & BIDIRECTIONAL ? 2 : 1;
    struct value *h = w->state, *c = h + n * cells->n_h;
    struct slot x = in;
    for (size_t i = 0; i < n; i += n_directions) {
        const size_t width = cells->n_h * n_directions;
        struct slot y = {width, calloc(w->n_steps * width, sizeof *y.at)};
        for (size_t d = 0; d < n_directions; d++) {
            run_cell(w, &cells[i + d], d || r->flags & REVERSE, x, h, c, y.at + d * cells->n_h,
                     width);
            h += cells->n_h;
            if (cells->kind == CELL_LSTM) c += cells->n_hidden;
        }
        if (i) free(x.at);
        x = y;
    }
    w->state = cells->kind == CELL_LSTM ? c : h;
    free(cells);
    return x;
}

/* ---- layers without state --------------------------------------------------------- */

enum { LINEAR = 16, EMBEDDING, NORM, BATCH_NORM, AFFINE, ADD, MUL, CONCAT, SLICE, OUTPUT };
enum {
    IDENTITY = 32,
    DROPOUT,
    RELU,
    RELU6,
    LEAKY_RELU,
    PRELU,
    ELU,
    TANH,
    HARDTANH,
    SIGMOID,
    GELU,
    GELU_TANH,
    SILU,
    SOFTPLUS,
    SOFTMAX,
    LOG_SOFTMAX
};

static void linear(const struct walk *w, const struct record *r, const struct value *x,
                   struct value *y)
{
    const float *weight = tensor_at(w->image, r->first_tensor, NULL);
    const float *bias = r->flags & BIAS ? tensor_at(w->image, r->first_tensor + 1, NULL) : NULL;
    for (size_t row = 0; row < r->dims[1]; row++) {
        struct sum s = {0};
        if (bias) sum_add(&s, v_exactly(bias[row]));
        sum_products(&s, r->dims[0], weight + row * r->dims[0], x);
        y[row] = sum_value(&s);
    }
}

/* x * scale + shift, however it is folded into what stands before it. */
static struct value moved(struct value x, double scale, double shift)
{
    struct value y = v_plus(v_times(x, v_exactly(scale)), v_exactly(shift));
    y.bound += 0x1p-20 * (fabs(x.exact * scale) + fabs(shift));
    return isfinite(y.exact) ? y : v_exactly(y.exact);
}

static void batch_norm(const struct walk *w, const struct record *r, size_t n,
                       const struct value *x, struct value *y)
{
    const float *t[4] = {0};
    for (uint32_t i = 0, at = r->first_tensor; i < 4; i++)
        if (i < 2 || r->flags & (i == 2 ? WEIGHT : BIAS)) t[i] = tensor_at(w->image, at++, NULL);
    for (size_t i = 0; i < n; i++) {
        const double scale = (t[2] ? t[2][i] : 1) / sqrt(t[1][i] + r->params[0]);
        y[i] = moved(x[i], scale, (t[3] ? t[3][i] : 0) - t[0][i] * scale);
        y[i].bound += 0x1p-20 * fabs(t[0][i] * scale);
    }
}

/* The elementwise layers; those that no cell has are steep nowhere: |f'| <= steep. */
static struct value element(const struct record *r, struct value x, float a)
{
    const float p[2] = {(float)r->params[0], (float)r->params[1]};
    enum map_kind kind;
    double steep = 1.2;
    switch (r->kind) {
    case RELU: return v_clamped(x, 0, INFINITY);
    case RELU6: return v_clamped(x, 0, 6);
    case HARDTANH: return v_clamped(x, p[0], p[1]);
    case LEAKY_RELU: return v_gate(&(struct gate){G_LEAKY_RELU, {p[0], 0}}, x);
    case PRELU: return v_gate(&(struct gate){G_LEAKY_RELU, {a, 0}}, x);
    case ELU: return v_gate(&(struct gate){G_ELU, {p[0], 0}}, x);
    case TANH: return v_gate(&(struct gate){G_TANH, {0, 0}}, x);
    case SIGMOID: return v_gate(&(struct gate){G_SIGMOID, {0, 0}}, x);
    case GELU: kind = MAP_GELU; break;
    case GELU_TANH: kind = MAP_GELU_TANH; break;
    case SILU: kind = MAP_SILU; break;
    default: /* softplus: where it becomes x it jumps by what it lacked */
        kind = MAP_SOFTPLUS;
        if (fabs(p[0] * x.exact - p[1]) <= p[0] * x.bound)
            steep += exp(-(double)p[1]) / p[0] / x.bound;
    }
    struct value y = oracle_map(kind, (float)x.exact, 0, 0, p);
    y.bound += steep * (x.bound + U * fabs(x.exact)); /* and of the cast */
    return isfinite(y.exact) ? y : v_exactly(y.exact);
}

static void softmax(int logarithm, size_t n, const struct value *x, struct value *y)
{
    double top = -INFINITY, sum = 0, apart = 0;
    for (size_t i = 0; i < n; i++) top = x[i].exact > top ? x[i].exact : top;
    for (size_t i = 0; i < n; i++) {
        sum += exp(x[i].exact - top);
        apart = fmax(apart, x[i].bound);
    }
    for (size_t i = 0; i < n; i++) {
        const double d = x[i].exact - top - log(sum);
        const double exact = logarithm ? d : exp(d);
        y[i] = (struct value){exact, logarithm ? 2 * apart : exact * expm1(2 * apart)};
        y[i].bound += fmax(HEAD_ULPS * 2 * U * fabs(exact), HEAD_FLOOR) + 2 * U * fabs(d);
        if (!isfinite(exact)) y[i].bound = 0;
    }
}

static size_t width_of(const struct walk *w, const struct record *r)
{
    size_t sum = 0;
    switch (r->kind) {
    case LINEAR:
    case EMBEDDING: return r->dims[1];
    case SLICE: return r->dims[1] - r->dims[0];
    case CONCAT:
    case OUTPUT:
        for (size_t i = 0; i < r->n_inputs; i++) sum += w->slots[r->inputs[i]].width;
        return sum;
    default: return w->slots[r->inputs[0]].width;
    }
}

/* One row of an op without state; x[i] are those of its inputs. */
static void row(const struct walk *w, const struct record *r, size_t n, struct value *const *x,
                struct value *y)
{
    const size_t n_x = w->slots[r->inputs[0]].width;
    const float *a = NULL, *b = NULL;
    uint32_t n_a = 0, n_b = 0;
    switch (r->kind) {
    case LINEAR: linear(w, r, x[0], y); return;
    case NORM:
        if (r->flags & WEIGHT) a = tensor_at(w->image, r->first_tensor, NULL);
        if (r->flags & BIAS) b = tensor_at(w->image, r->first_tensor + 1, NULL);
        v_layer_norm(n, x[0], a, b, (float)r->params[0], y);
        return;
    case BATCH_NORM: batch_norm(w, r, n, x[0], y); return;
    case AFFINE:
    case PRELU:
        a = tensor_at(w->image, r->first_tensor, &n_a);
        if (r->kind == AFFINE) b = tensor_at(w->image, r->first_tensor + 1, &n_b);
        for (size_t i = 0; i < n; i++) {
            const float first = a[n_a == 1 ? 0 : i];
            y[i] = b ? moved(x[0][i], first, b[n_b == 1 ? 0 : i]) : element(r, x[0][i], first);
        }
        return;
    case ADD:
    case MUL:
        memcpy(y, x[0], n * sizeof *y);
        for (size_t k = 1; k < r->n_inputs; k++)
            for (size_t i = 0; i < n; i++)
                y[i] = v_rounded(r->kind == ADD ? v_plus(y[i], x[k][i]) : v_times(y[i], x[k][i]));
        return;
    case CONCAT:
    case OUTPUT:
        for (size_t k = 0; k < r->n_inputs; k++) {
            memcpy(y, x[k], w->slots[r->inputs[k]].width * sizeof *y);
            y += w->slots[r->inputs[k]].width;
        }
        return;
    case SLICE: memcpy(y, x[0] + r->dims[0], n * sizeof *y); return;
    case IDENTITY:
    case DROPOUT: memcpy(y, x[0], n_x * sizeof *y); return;
    case SOFTMAX:
    case LOG_SOFTMAX: softmax(r->kind == LOG_SOFTMAX, n, x[0], y); return;
    default:
        for (size_t i = 0; i < n; i++) y[i] = element(r, x[0][i], 0);
    }
}

static struct slot stateless(const struct walk *w, const struct record *r, const int64_t *tokens)
{
    struct slot out = {width_of(w, r), NULL};
    out.at = calloc(w->n_steps * out.width + 1, sizeof *out.at);
    for (size_t t = 0; t < w->n_steps; t++) {
        struct value *x[4] = {0}, *y = out.at + t * out.width;
        for (size_t k = 0; k < r->n_inputs; k++) {
            const struct slot in = w->slots[r->inputs[k]];
            x[k] = in.at + t * in.width;
        }
        if (r->kind == EMBEDDING) {
            const float *table = tensor_at(w->image, r->first_tensor, NULL);
            for (size_t i = 0; i < out.width; i++)
                y[i] = v_exactly(table[(size_t)tokens[t] * out.width + i]);
        } else row(w, r, out.width, x, y);
    }
    return out;
}

/* ---- the walk --------------------------------------------------------------------- */

static size_t state_size(const unsigned char *image)
{
    size_t sum = 0;
    for (size_t i = 0; i < n_ops(image); i++) {
        const struct record r = record_at(image, i);
        if (r.kind > CELL_RNN) continue;
        const size_t n_cells = r.dims[3] * (r.flags & BIDIRECTIONAL ? 2 : 1);
        sum += n_cells * (r.dims[2] ? r.dims[2] : r.dims[1]);
        if (r.kind == CELL_LSTM) sum += n_cells * r.dims[1];
    }
    return sum;
}

void oracle_run(const unsigned char *image, size_t n_steps, const float *x, const int64_t *tokens,
                const float *state, struct value *y, struct value *state_out)
{
    const size_t n = n_ops(image), n_state = state_size(image);
    struct walk w = {image, n_steps, calloc(n + 1, sizeof *w.slots), state_out};
    for (size_t i = 0; i < n_state; i++) state_out[i] = v_exactly(state[i]);
    const size_t n_in = x ? word(image + 36) : 0;
    w.slots[0] = (struct slot){n_in, calloc(n_steps * n_in + 1, sizeof *w.slots->at)};
    for (size_t i = 0; i < n_steps * n_in; i++) w.slots[0].at[i] = v_exactly(x[i]);
    for (size_t i = 0; i < n; i++) {
        const struct record r = record_at(image, i);
        w.slots[i + 1] = r.kind <= CELL_RNN ? recurrent(&w, &r, w.slots[r.inputs[0]])
                                            : stateless(&w, &r, tokens);
    }
    memcpy(y, w.slots[n].at, n_steps * w.slots[n].width * sizeof *y);
    for (size_t i = 0; i <= n; i++) free(w.slots[i].at);
    free(w.slots);
}
