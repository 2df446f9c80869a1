// SPDX-License-Identifier: MIT
/* Whether the records of a file are a program, with a sentence for what is not. */
#include "weights.h"

#include <math.h>

#include "status.h"

#define SIZE_LIMIT (1u << 24) /* of any layer: products of two stay far below 2^63 */

const float *clstm_tensor(const struct weights *w, const struct op_record *op, size_t i)
{
    return (const float *)(w->file + w->tensors[op->first_tensor + i].at);
}

/* The check of one op: a cursor over its tensors, the first fault kept. */
struct check {
    const struct weights *w;
    const struct op_record *op;
    size_t index, next;
    clstm_status status;
    char *err;
};

static int fault(struct check *c) { return c->status != CLSTM_OK; }

static void bad(struct check *c, const char *what)
{
    if (fault(c)) return;
    c->status = clstm_fail(c->err, CLSTM_BAD_FILE, "layer %zu (%.*s): %s", c->index,
                           (int)(c->op->name_bytes < 64 ? c->op->name_bytes : 64),
                           c->w->text + c->op->name_at, what);
}

static void take(struct check *c, uint32_t rank, size_t rows, size_t columns)
{
    if (fault(c)) return;
    if (c->next >= c->op->n_tensors) {
        bad(c, "a tensor is missing");
        return;
    }
    const struct tensor_record *t = &c->w->tensors[c->op->first_tensor + c->next++];
    if (t->dtype != TENSOR_FLOAT32 || t->rank != rank || t->dims[0] != rows ||
        (rank == 2 && t->dims[1] != columns))
        c->status = clstm_fail(c->err, CLSTM_BAD_FILE,
                               "%.*s: expected float32 of shape (%zu, %zu), rank %u",
                               (int)(t->name_bytes < 64 ? t->name_bytes : 64),
                               c->w->text + t->name_at, rows, columns, rank);
}

/* One value a feature, or one for all. */
static void take_feature(struct check *c, size_t width)
{
    if (!fault(c) && c->next < c->op->n_tensors &&
        c->w->tensors[c->op->first_tensor + c->next].dims[0] == 1)
        width = 1;
    take(c, 1, width, 0);
}

static size_t size_of(struct check *c, int dim, size_t least)
{
    const size_t n = c->op->dims[dim];
    if (n < least || n > SIZE_LIMIT) bad(c, "a size out of range");
    return n;
}

static void needs_width(struct check *c, size_t width, size_t expected)
{
    if (width != expected) bad(c, "its input has another width than its tensors");
}

static size_t check_lstm(struct check *c, size_t width)
{
    const struct op_record *op = c->op;
    const size_t hidden = size_of(c, LSTM_HIDDEN, 1), proj = size_of(c, LSTM_PROJ, 0);
    const size_t layers = size_of(c, LSTM_LAYERS, 1);
    const size_t directions = op->flags & FLAG_BIDIRECTIONAL ? 2 : 1, out = proj ? proj : hidden;
    size_t input = size_of(c, LSTM_INPUT, 1);
    needs_width(c, width, input);
    if (layers > 1024) bad(c, "more than 1024 layers");
    if (proj >= hidden && proj) bad(c, "proj_size must be smaller than hidden_size");
    if (op->flags & FLAG_CELL && (layers > 1 || directions > 1 || proj))
        bad(c, "a cell has one layer, one direction and no projection");
    for (size_t cell = 0; cell < layers * directions && !fault(c); cell++) {
        if (cell == directions) input = out * directions;
        take(c, 2, 4 * hidden, input);
        take(c, 2, 4 * hidden, out);
        if (op->flags & FLAG_BIAS) {
            take(c, 1, 4 * hidden, 0);
            take(c, 1, 4 * hidden, 0);
        }
        if (proj) take(c, 2, proj, hidden);
    }
    if (op->flags & FLAG_H0) take(c, 2, layers * directions, out);
    if (op->flags & FLAG_C0) take(c, 2, layers * directions, hidden);
    return out * directions;
}

static size_t check_op(struct check *c, size_t width)
{
    const struct op_record *op = c->op;
    const double *p = op->params;
    size_t n;
    switch ((enum op_kind)op->kind) {
    case OP_LSTM: return check_lstm(c, width);
    case OP_LINEAR:
        needs_width(c, width, size_of(c, 0, 1));
        n = size_of(c, 1, 1);
        take(c, 2, n, width);
        if (op->flags & FLAG_BIAS) take(c, 1, n, 0);
        return n;
    case OP_EMBEDDING:
        n = size_of(c, 1, 1);
        if (c->index != 0 || op->inputs[0] != 0) bad(c, "tokens come first or not at all");
        take(c, 2, size_of(c, 0, 1), n);
        return n;
    case OP_LAYER_NORM:
        if (op->flags & FLAG_WEIGHT) take(c, 1, width, 0);
        if (op->flags & FLAG_BIAS) take(c, 1, width, 0);
        if (op->flags & FLAG_BIAS && !(op->flags & FLAG_WEIGHT)) bad(c, "a bias without a weight");
        if (!(p[0] >= 0)) bad(c, "eps below 0");
        return width;
    case OP_BATCH_NORM:
        take(c, 1, width, 0);
        take(c, 1, width, 0);
        if (op->flags & FLAG_WEIGHT) take(c, 1, width, 0);
        if (op->flags & FLAG_BIAS) take(c, 1, width, 0);
        if (!(p[0] >= 0)) bad(c, "eps below 0");
        return width;
    case OP_AFFINE:
        take_feature(c, width);
        take_feature(c, width);
        return width;
    case OP_PRELU: take_feature(c, width); return width;
    case OP_HARDTANH:
        if (!(p[0] <= p[1])) bad(c, "min_val above max_val");
        return width;
    case OP_SOFTPLUS:
        if (!(p[0] > 0) || isnan(p[1])) bad(c, "beta must be positive");
        return width;
    case OP_IDENTITY:
    case OP_DROPOUT:
    case OP_RELU:
    case OP_RELU6:
    case OP_LEAKY_RELU:
    case OP_ELU:
    case OP_TANH:
    case OP_SIGMOID:
    case OP_GELU:
    case OP_GELU_TANH:
    case OP_SILU:
    case OP_SOFTMAX:
    case OP_LOG_SOFTMAX: return width;
    }
    c->status =
        clstm_fail(c->err, CLSTM_UNSUPPORTED,
                   "layer %zu is of kind %u, which this version does not know", c->index, op->kind);
    return 0;
}

clstm_status clstm_weights_check(const struct weights *w, size_t *widths, char *err)
{
    const size_t n_ops = w->header->n_ops;
    if (!n_ops) return clstm_fail(err, CLSTM_BAD_FILE, "a model without layers");
    if (w->header->input_size > SIZE_LIMIT ||
        (w->header->input_size == 0) != (w->ops[0].kind == OP_EMBEDDING))
        return clstm_fail(err, CLSTM_BAD_FILE, "an input size that does not fit the first layer");
    widths[0] = w->header->input_size;
    for (size_t i = 0; i < n_ops; i++) {
        const struct op_record *op = &w->ops[i];
        struct check c = {w, op, i, 0, CLSTM_OK, err};
        if (op->n_inputs != 1 || op->inputs[0] > i || op->inputs[1] || op->inputs[2] ||
            op->inputs[3] || (i > 0 && op->inputs[0] == 0 && widths[0] == 0))
            bad(&c, "inputs that do not come before it");
        else widths[i + 1] = check_op(&c, widths[op->inputs[0]]);
        if (!fault(&c) && c.next != op->n_tensors) bad(&c, "a tensor too many");
        if (fault(&c)) return c.status;
    }
    return CLSTM_OK;
}
