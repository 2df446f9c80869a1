// SPDX-License-Identifier: MIT
/* Whether the records of a file are a program, with a sentence for what is not. */
#include "weights.h"

#include <math.h>

#include "kernels/form.h"
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

#define LSTM_FLAGS                                                                                 \
    (FLAG_PEEPHOLE | FLAG_PEEPHOLE_FULL | FLAG_OUTPUT_NEW | FLAG_COUPLED_F | FLAG_COUPLED_I |      \
     FLAG_CELL_CLIP_STORED | FLAG_PROJ_BIAS | FLAG_LAYER_NORM | FLAG_LN_PER_GATE |                 \
     FLAG_LN_SEPARATE | FLAG_LN_CELL | FLAG_LN_CELL_STORED | FLAG_LN_BIAS | FLAG_LN_CELL_BIAS |    \
     FLAG_C0)
#define CELL_FLAGS                                                                                 \
    (FLAG_BATCH_FIRST | FLAG_BIDIRECTIONAL | FLAG_REVERSE | FLAG_CELL | FLAG_BIAS | FLAG_H0 |      \
     FLAG_ACTIVATIONS)

struct cell_shape clstm_cell_shape(const struct op_record *op)
{
    const int lstm = op->kind == OP_LSTM, coupled = op->flags & (FLAG_COUPLED_F | FLAG_COUPLED_I);
    const size_t directions = op->flags & FLAG_BIDIRECTIONAL ? 2 : 1, proj = op->dims[CELL_PROJ];
    return (struct cell_shape){.n_gates = lstm                 ? (coupled ? 3 : 4)
                                          : op->kind == OP_GRU ? 3
                                                               : 1,
                               .n_functions = lstm                 ? 3
                                              : op->kind == OP_GRU ? 2
                                                                   : 1,
                               .n_cells = op->dims[CELL_LAYERS] * directions,
                               .n_directions = directions,
                               .n_out = lstm && proj ? proj : op->dims[CELL_HIDDEN]};
}

/* Options that contradict each other, or that this kind does not have. */
static void check_options(struct check *c)
{
    const uint32_t f = c->op->flags;
    const double *p = c->op->params;
    const uint32_t known = CELL_FLAGS | (c->op->kind == OP_LSTM ? LSTM_FLAGS : 0) |
                           (c->op->kind == OP_GRU ? FLAG_RESET_BEFORE : 0);
    const uint32_t norm = FLAG_LN_PER_GATE | FLAG_LN_SEPARATE | FLAG_LN_CELL | FLAG_LN_BIAS;
    if (f & ~known) bad(c, "an option that its kind does not have");
    if (f & FLAG_PEEPHOLE && f & FLAG_PEEPHOLE_FULL) bad(c, "two peepholes");
    if (f & FLAG_OUTPUT_NEW && !(f & FLAG_PEEPHOLE_FULL)) bad(c, "an option of full peepholes");
    if (f & FLAG_COUPLED_F && f & FLAG_COUPLED_I) bad(c, "coupled both ways");
    if (f & norm && !(f & FLAG_LAYER_NORM)) bad(c, "an option of layer normalisation");
    if (f & (FLAG_LN_CELL_BIAS | FLAG_LN_CELL_STORED) && !(f & FLAG_LN_CELL))
        bad(c, "an option of the cell's normalisation");
    if (f & FLAG_LAYER_NORM && f & FLAG_PEEPHOLE_FULL)
        bad(c, "full peepholes with layer normalisation");
    if (f & FLAG_PROJ_BIAS && !c->op->dims[CELL_PROJ]) bad(c, "a bias without a projection");
    if (f & FLAG_BIDIRECTIONAL && f & FLAG_REVERSE) bad(c, "two directions and one");
    for (int i = PARAM_CLIP; i <= PARAM_PROJ_CLIP; i++)
        if (!(p[i] >= 0)) bad(c, "a clip below 0");
    if (isnan(p[PARAM_FORGET_BIAS])) bad(c, "forget_bias is not a number");
    for (int i = PARAM_ZONE_H; i <= PARAM_ZONE_C; i++)
        if (!(p[i] >= 0 && p[i] <= 1)) bad(c, "zoneout outside 0 ... 1");
    if ((p[PARAM_ZONE_H] > 0 || p[PARAM_ZONE_C] > 0) && c->op->dims[CELL_PROJ])
        bad(c, "zoneout with a projection");
    for (int i = c->op->kind == OP_LSTM ? PARAM_ZONE_C + 1 : PARAM_CELL_CLIP; i <= PARAM_ZONE_C;
         i++)
        if (p[i] != 0) bad(c, "a number that its kind does not have");
}

/* The tensors of one layer and direction. */
static void take_cell(struct check *c, size_t input, const struct cell_shape *shape)
{
    const uint32_t f = c->op->flags;
    const size_t hidden = c->op->dims[CELL_HIDDEN], rows = shape->n_gates * hidden;
    take(c, 2, rows, input);
    take(c, 2, rows, shape->n_out);
    if (f & FLAG_BIAS) {
        take(c, 1, rows, 0);
        take(c, 1, rows, 0);
    }
    if (c->op->dims[CELL_PROJ]) take(c, 2, shape->n_out, hidden);
    if (f & FLAG_PROJ_BIAS) take(c, 1, shape->n_out, 0);
    if (f & FLAG_PEEPHOLE) take(c, 1, 3 * hidden, 0);
    if (f & FLAG_PEEPHOLE_FULL) take(c, 2, rows, hidden);
    for (int norm = 0; f & FLAG_LAYER_NORM && norm < (f & FLAG_LN_SEPARATE ? 2 : 1); norm++) {
        take(c, 1, rows, 0);
        if (f & FLAG_LN_BIAS) take(c, 1, rows, 0);
    }
    if (f & FLAG_LN_CELL) take(c, 1, hidden, 0);
    if (f & FLAG_LN_CELL_BIAS) take(c, 1, hidden, 0);
}

/* Behind the tensors of all cells: numbers of the options, then the initial states. */
static void take_rest(struct check *c, const struct cell_shape *shape)
{
    const struct op_record *op = c->op;
    const size_t n_functions = shape->n_functions * shape->n_directions;
    if (op->flags & FLAG_LAYER_NORM) {
        take(c, 1, 1, 0);
        if (!fault(c) && !(*clstm_tensor(c->w, op, c->next - 1) >= 0)) bad(c, "eps below 0");
    }
    if (op->flags & FLAG_ACTIVATIONS) take(c, 2, n_functions, 2);
    uint32_t kinds = op->dims[CELL_FUNCTIONS];
    for (size_t i = 0; i < n_functions; i++, kinds >>= 5)
        if ((kinds & 31) >= GATE_FUNCTIONS) bad(c, "an unknown activation");
    if (kinds || (op->dims[CELL_FUNCTIONS] && !(op->flags & FLAG_ACTIVATIONS)))
        bad(c, "activations that it does not have");
    if (op->flags & FLAG_H0) take(c, 2, shape->n_cells, shape->n_out);
    if (op->flags & FLAG_C0) take(c, 2, shape->n_cells, op->dims[CELL_HIDDEN]);
}

static size_t check_recurrent(struct check *c, size_t width)
{
    const struct op_record *op = c->op;
    const size_t hidden = size_of(c, CELL_HIDDEN, 1), proj = size_of(c, CELL_PROJ, 0);
    const size_t layers = size_of(c, CELL_LAYERS, 1), input = size_of(c, CELL_INPUT, 1);
    const struct cell_shape shape = clstm_cell_shape(op);
    needs_width(c, width, input);
    if (layers > 1024) bad(c, "more than 1024 layers");
    if (proj && op->kind != OP_LSTM) bad(c, "only an LSTM has a projection");
    if (proj >= hidden && proj) bad(c, "proj_size must be smaller than hidden_size");
    if (op->flags & FLAG_CELL && (shape.n_cells > 1 || proj))
        bad(c, "a cell has one layer, one direction and no projection");
    check_options(c);
    for (size_t cell = 0; cell < shape.n_cells && !fault(c); cell++)
        take_cell(c, cell < shape.n_directions ? input : shape.n_out * shape.n_directions, &shape);
    take_rest(c, &shape);
    return shape.n_out * shape.n_directions;
}

/* Ops of several inputs: the sum of their widths, or the one that they share. */
static size_t check_several(struct check *c, const size_t *widths)
{
    size_t sum = 0, first = widths[c->op->inputs[0]];
    for (size_t i = 0; i < c->op->n_inputs; i++) {
        sum += widths[c->op->inputs[i]];
        if ((c->op->kind == OP_ADD || c->op->kind == OP_MUL) && widths[c->op->inputs[i]] != first)
            bad(c, "inputs of different widths");
    }
    if (sum > SIZE_LIMIT) bad(c, "a size out of range");
    for (size_t i = 0; c->op->kind == OP_OUTPUT && i < 4; i++)
        if (c->op->dims[i] != (i < c->op->n_inputs ? widths[c->op->inputs[i]] : 0))
            bad(c, "widths that are not those of its inputs");
    if (c->op->kind == OP_OUTPUT &&
        (c->op->dims[4] >> c->op->n_inputs || c->index + 1 != c->w->header->n_ops))
        bad(c, "outputs that are not the model's");
    for (size_t i = 0; c->op->kind == OP_OUTPUT && i < 32; i++)
        if (c->op->dims[5] >> i & 1 && (i >= 4 || c->op->dims[i] != 1))
            bad(c, "an axis of features left away that is not 1");
    if (c->op->kind == OP_OUTPUT && c->op->dims[6] & ~c->op->dims[4])
        bad(c, "an axis of time of no last step");
    return c->op->kind == OP_ADD || c->op->kind == OP_MUL ? first : sum;
}

static size_t check_op(struct check *c, const size_t *widths)
{
    const struct op_record *op = c->op;
    const size_t width = widths[op->inputs[0]];
    const double *p = op->params;
    size_t n;
    switch ((enum op_kind)op->kind) {
    case OP_LSTM:
    case OP_GRU:
    case OP_RNN: return check_recurrent(c, width);
    case OP_ADD:
    case OP_MUL:
    case OP_CONCAT:
    case OP_OUTPUT: return check_several(c, widths);
    case OP_SLICE:
        if (op->dims[0] >= op->dims[1] || op->dims[1] > width)
            bad(c, "features that are not there");
        return op->dims[1] - op->dims[0];
    case OP_LINEAR:
        needs_width(c, width, size_of(c, 0, 1));
        n = size_of(c, 1, 1);
        take(c, 2, n, width);
        if (op->flags & FLAG_BIAS) take(c, 1, n, 0);
        return n;
    case OP_EMBEDDING:
        n = size_of(c, 1, 1);
        if (width) bad(c, "its input is no tokens");
        for (size_t i = 0; i < c->index; i++)
            if (c->w->ops[i].kind == OP_EMBEDDING && c->w->ops[i].dims[0] != op->dims[0])
                bad(c, "tables of different sizes for the same tokens");
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
    case OP_FIRST:
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

/* Inputs of op i: each from a slot before it; none left over. */
static void check_inputs(struct check *c, const size_t *widths)
{
    const struct op_record *op = c->op;
    const int several =
        op->kind == OP_ADD || op->kind == OP_MUL || op->kind == OP_CONCAT || op->kind == OP_OUTPUT;
    if (op->n_inputs < 1 || op->n_inputs > (several ? 4 : 1)) bad(c, "a number of inputs");
    for (size_t i = 0; i < 4; i++)
        if (op->inputs[i] > (i < op->n_inputs ? c->index : 0))
            bad(c, "inputs that do not come before it");
    /* Tokens have no width; an identity may pass them on. */
    for (size_t i = 0; !fault(c) && i < op->n_inputs; i++)
        if (!widths[op->inputs[i]] && op->kind != OP_EMBEDDING && op->kind != OP_IDENTITY)
            bad(c, "an input of tokens");
}

clstm_status clstm_weights_check(const struct weights *w, size_t *widths, char *err)
{
    const size_t n_ops = w->header->n_ops;
    if (!n_ops) return clstm_fail(err, CLSTM_BAD_FILE, "a model without layers");
    if (w->header->input_size > SIZE_LIMIT)
        return clstm_fail(err, CLSTM_BAD_FILE, "an input size out of range");
    widths[0] = w->header->input_size;
    for (size_t i = 0; i < n_ops; i++) {
        const struct op_record *op = &w->ops[i];
        struct check c = {w, op, i, 0, CLSTM_OK, err};
        check_inputs(&c, widths);
        if (!fault(&c)) widths[i + 1] = check_op(&c, widths);
        if (!fault(&c) && c.next != op->n_tensors) bad(&c, "a tensor too many");
        if (fault(&c)) return c.status;
    }
    return widths[n_ops] ? CLSTM_OK : clstm_fail(err, CLSTM_BAD_FILE, "tokens as an output");
}
