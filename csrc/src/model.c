// SPDX-License-Identifier: MIT
/* Builds a model from checked weights: one op of the program for each record. */
#include "model.h"

#include <math.h>
#include <string.h>

#include "frame.h"
#include "pack.h"
#include "status.h"
#include "team.h"

#define THREADS_MAX 256

/* Two numbers a feature in double: y = x scale + shift. */
struct affine {
    double *scale, *shift;
};

/* BatchNorm1d in evaluation (x - mean) / sqrt(var + eps) weight + bias, or Affine as it is.
 * https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html */
static int affine_of(struct arena *memory, const struct weights *w, const struct op_record *op,
                     size_t width, struct affine *out)
{
    out->scale = clstm_arena_take(memory, width * sizeof(double));
    out->shift = clstm_arena_take(memory, width * sizeof(double));
    if (!out->scale || !out->shift) return 0;
    if (op->kind == OP_AFFINE) {
        const float *scale = clstm_tensor(w, op, 0), *shift = clstm_tensor(w, op, 1);
        const size_t first = op->first_tensor;
        for (size_t i = 0; i < width; i++) {
            out->scale[i] = scale[w->tensors[first].dims[0] == 1 ? 0 : i];
            out->shift[i] = shift[w->tensors[first + 1].dims[0] == 1 ? 0 : i];
        }
        return 1;
    }
    const float *mean = clstm_tensor(w, op, 0), *var = clstm_tensor(w, op, 1);
    size_t next = 2;
    const float *weight = op->flags & FLAG_WEIGHT ? clstm_tensor(w, op, next++) : NULL;
    const float *bias = op->flags & FLAG_BIAS ? clstm_tensor(w, op, next++) : NULL;
    for (size_t i = 0; i < width; i++) {
        out->scale[i] = (weight ? weight[i] : 1.0) / sqrt(var[i] + op->params[0]);
        out->shift[i] = fma(-mean[i], out->scale[i], bias ? bias[i] : 0.0);
    }
    return 1;
}

static int is_affine(const struct op_record *op)
{
    return op->kind == OP_AFFINE || op->kind == OP_BATCH_NORM;
}

/* The scaling right behind op i that can go into its weights: the only reader of its slot.
 * Folding into what follows is not done: with x near 400 and a mean of 400 the weights
 * would carry the difference, and float32 loses two digits of it. */
static const struct op_record *foldable(const struct weights *w, size_t i)
{
    const struct op_record *found = NULL;
    for (size_t j = i + 1; j < w->header->n_ops; j++)
        for (size_t k = 0; k < w->ops[j].n_inputs; k++) {
            if (w->ops[j].inputs[k] != i + 1) continue;
            if (found || !is_affine(&w->ops[j])) return NULL;
            found = &w->ops[j];
        }
    return found;
}

static clstm_status make_linear(struct clstm_model *m, const struct weights *w, size_t i,
                                struct panels *out)
{
    const struct op_record *rec = &w->ops[i], *after = foldable(w, i);
    struct matrix matrix = {.n_gates = 1,
                            .n_out = rec->dims[1],
                            .n_x = rec->dims[0],
                            .w = clstm_tensor(w, rec, 0),
                            .b1 = rec->flags & FLAG_BIAS ? clstm_tensor(w, rec, 1) : NULL};
    struct affine a = {0};
    if (after && !affine_of(&m->memory, w, after, matrix.n_out, &a)) return CLSTM_NO_MEMORY;
    matrix.scale = a.scale;
    matrix.shift = a.shift;
    return clstm_pack(&m->memory, &matrix, out) ? CLSTM_OK : CLSTM_NO_MEMORY;
}

static clstm_status make_affine(struct clstm_model *m, const struct weights *w,
                                const struct op_record *rec, size_t width, struct map *out)
{
    struct affine a;
    float *scale = clstm_arena_take(&m->memory, padded(width) * sizeof *scale);
    float *shift = clstm_arena_take(&m->memory, padded(width) * sizeof *shift);
    if (!scale || !shift || !affine_of(&m->memory, w, rec, width, &a)) return CLSTM_NO_MEMORY;
    for (size_t i = 0; i < width; i++) {
        scale[i] = (float)a.scale[i];
        shift[i] = (float)a.shift[i];
    }
    *out = (struct map){.kind = MAP_AFFINE, .a = scale, .b = shift};
    return CLSTM_OK;
}

static clstm_status make_leaky(struct clstm_model *m, const float *slope, size_t n, size_t width,
                               struct map *out)
{
    *out = (struct map){.kind = MAP_LEAKY, .a = clstm_pack_row(&m->memory, slope, n, width)};
    return out->a ? CLSTM_OK : CLSTM_NO_MEMORY;
}

static clstm_status make_layer_norm(struct clstm_model *m, const struct weights *w,
                                    const struct op_record *rec, size_t width, struct norm *out)
{
    *out = (struct norm){.kind = NORM_LAYER, .eps = (float)rec->params[0]};
    if (rec->flags & FLAG_WEIGHT &&
        !(out->weight = clstm_pack_row(&m->memory, clstm_tensor(w, rec, 0), width, width)))
        return CLSTM_NO_MEMORY;
    if (rec->flags & FLAG_BIAS &&
        !(out->bias = clstm_pack_row(&m->memory, clstm_tensor(w, rec, 1), width, width)))
        return CLSTM_NO_MEMORY;
    return CLSTM_OK;
}

static clstm_status make_embedding(struct clstm_model *m, const struct weights *w,
                                   const struct op_record *rec, struct embedding *out)
{
    const size_t n = rec->dims[0], width = rec->dims[1];
    const float *table = clstm_tensor(w, rec, 0);
    float *rows = clstm_arena_take(&m->memory, n * padded(width) * sizeof *rows);
    if (!rows) return CLSTM_NO_MEMORY;
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * padded(width), table + i * width, width * sizeof *rows);
    *out = (struct embedding){rows, n};
    m->n_tokens = n;
    return CLSTM_OK;
}

static clstm_status make_map(struct op *op, enum map_kind kind, float p0, float p1)
{
    op->action = RUN_MAP;
    op->map = (struct map){.kind = kind, .p = {p0, p1}};
    return CLSTM_OK;
}

static clstm_status make_op(struct clstm_model *m, const struct weights *w, size_t i)
{
    const struct op_record *rec = &w->ops[i];
    struct op *op = &m->ops[i];
    const size_t width = m->widths[rec->inputs[0]], before = rec->inputs[0];
    const float p0 = (float)rec->params[0], p1 = (float)rec->params[1];
    op->n_inputs = rec->n_inputs;
    for (size_t k = 0; k < rec->n_inputs; k++) op->inputs[k] = rec->inputs[k];
    switch ((enum op_kind)rec->kind) {
    case OP_LSTM:
    case OP_GRU:
    case OP_RNN: op->action = RUN_CELLS; return clstm_make_cells(m, w, rec, &op->recurrent);
    case OP_LINEAR: op->action = RUN_PRODUCT; return make_linear(m, w, i, &op->product);
    case OP_EMBEDDING: op->action = RUN_EMBEDDING; return make_embedding(m, w, rec, &op->embedding);
    case OP_LAYER_NORM: op->action = RUN_NORM; return make_layer_norm(m, w, rec, width, &op->norm);
    case OP_BATCH_NORM:
    case OP_AFFINE:
        if (before && w->ops[before - 1].kind == OP_LINEAR && foldable(w, before - 1) == rec) break;
        op->action = RUN_MAP;
        return make_affine(m, w, rec, width, &op->map);
    case OP_IDENTITY:
    case OP_DROPOUT: break;
    case OP_ADD:
    case OP_MUL:
        if (rec->n_inputs == 1) break;
        op->action = RUN_COMBINE;
        op->combine = rec->kind == OP_ADD ? MAP_ADD : MAP_MUL;
        return CLSTM_OK;
    case OP_CONCAT:
    case OP_OUTPUT: op->action = rec->n_inputs == 1 ? RUN_ALIAS : RUN_CONCAT; return CLSTM_OK;
    case OP_SLICE:
        op->action = RUN_SLICE;
        op->start = rec->dims[0];
        return CLSTM_OK;
    case OP_FIRST:
        op->action = RUN_FIRST;
        m->against_time = 1; /* a frame must begin where its sequences do */
        return CLSTM_OK;
    case OP_PRELU:
        op->action = RUN_MAP;
        return make_leaky(m, clstm_tensor(w, rec, 0), w->tensors[rec->first_tensor].dims[0], width,
                          &op->map);
    case OP_LEAKY_RELU: op->action = RUN_MAP; return make_leaky(m, &p0, 1, width, &op->map);
    case OP_RELU: return make_map(op, MAP_CLAMP, 0.0f, INFINITY);
    case OP_RELU6: return make_map(op, MAP_CLAMP, 0.0f, 6.0f);
    case OP_HARDTANH: return make_map(op, MAP_CLAMP, p0, p1);
    case OP_ELU: return make_map(op, MAP_ELU, p0, 0.0f);
    case OP_TANH: return make_map(op, MAP_TANH, 0.0f, 0.0f);
    case OP_SIGMOID: return make_map(op, MAP_SIGMOID, 0.0f, 0.0f);
    case OP_GELU: return make_map(op, MAP_GELU, 0.0f, 0.0f);
    case OP_GELU_TANH: return make_map(op, MAP_GELU_TANH, 0.0f, 0.0f);
    case OP_SILU: return make_map(op, MAP_SILU, 0.0f, 0.0f);
    case OP_SOFTPLUS: return make_map(op, MAP_SOFTPLUS, p0, p1);
    case OP_SOFTMAX:
    case OP_LOG_SOFTMAX:
        op->action = RUN_NORM;
        op->norm.kind = rec->kind == OP_SOFTMAX ? NORM_SOFTMAX : NORM_LOG_SOFTMAX;
        return CLSTM_OK;
    }
    op->action = RUN_ALIAS; /* nothing to do: its slot is its input's */
    return CLSTM_OK;
}

/* Learned initial states, where the layers bring them. */
static clstm_status make_initial(struct clstm_model *m, const struct weights *w)
{
    m->initial = clstm_arena_take(&m->memory, m->state_row * sizeof(float));
    if (!m->initial) return CLSTM_NO_MEMORY;
    for (size_t i = 0; i < m->n_ops; i++) {
        if (m->ops[i].action != RUN_CELLS) continue;
        const struct op_record *rec = &w->ops[i];
        const struct recurrent *l = &m->ops[i].recurrent;
        size_t next = rec->n_tensors;
        const float *c0 = rec->flags & FLAG_C0 ? clstm_tensor(w, rec, --next) : NULL;
        const float *h0 = rec->flags & FLAG_H0 ? clstm_tensor(w, rec, --next) : NULL;
        for (size_t j = 0; j < l->n_layers * l->n_directions; j++) {
            const struct cell *cell = &l->cells[j];
            if (h0) memcpy(m->initial + cell->h_at, h0 + j * cell->n_out, cell->n_out * sizeof *h0);
            if (c0)
                memcpy(m->initial + cell->c_at, c0 + j * cell->n_hidden,
                       cell->n_hidden * sizeof *c0);
        }
    }
    return CLSTM_OK;
}

/* A caller that was built with an older header passes fewer fields: the rest are defaults. */
static clstm_status check_options(const clstm_options *given, clstm_options *opt, char *err)
{
    *opt = (clstm_options){0};
    if (!given) return CLSTM_OK;
    if (given->size < sizeof given->size || given->size > sizeof *opt)
        return clstm_fail(err, CLSTM_BAD_ARGUMENT, "options.size is not sizeof(clstm_options)");
    memcpy(opt, given, given->size);
    if (opt->threads < 0) return clstm_fail(err, CLSTM_BAD_ARGUMENT, "threads below 0");
    if (opt->threads > THREADS_MAX)
        return clstm_fail(err, CLSTM_BAD_ARGUMENT, "threads=%d: at most %d", opt->threads,
                          THREADS_MAX);
    const char *word = opt->precision;
    if (!word || !strcmp(word, "float32")) return CLSTM_OK;
    if (!strcmp(word, "bfloat16") || !strcmp(word, "int8"))
        return clstm_fail(err, CLSTM_UNSUPPORTED, "precision %s comes with a later version", word);
    return clstm_fail(err, CLSTM_BAD_ARGUMENT, "precision \"%.32s\": expected float32", word);
}

static clstm_status build(struct clstm_model *m, const struct weights *w, char *err)
{
    m->n_ops = w->header->n_ops;
    m->ops = clstm_arena_take(&m->memory, m->n_ops * sizeof *m->ops);
    m->widths = clstm_arena_take(&m->memory, (m->n_ops + 1) * sizeof *m->widths);
    m->turn = clstm_arena_take(&m->memory, sizeof *m->turn);
    if (!m->ops || !m->widths || !m->turn) return CLSTM_NO_MEMORY;
    clstm_status status = clstm_weights_check(w, m->widths, err);
    for (size_t i = 0; status == CLSTM_OK && i < m->n_ops; i++) status = make_op(m, w, i);
    if (status == CLSTM_OK) status = make_initial(m, w);
    if (status == CLSTM_OK) m->run_rows = clstm_run_rows(m);
    return status;
}

clstm_status clstm_model_create(const struct weights *w, const clstm_options *given,
                                clstm_model **out, char *err)
{
    clstm_options opt;
    clstm_status status = check_options(given, &opt, err);
    const struct kernels *kernels = NULL;
    if (status == CLSTM_OK) status = clstm_choose_kernels(&opt, &kernels, err);
    if (status != CLSTM_OK) return status;
    struct clstm_model *m = clstm_alloc(sizeof *m);
    if (!m) return clstm_fail(err, CLSTM_NO_MEMORY, "no memory");
    m->kernels = kernels;
    status = clstm_blas_open(&opt, &m->memory, &m->blas, err);
    if (status == CLSTM_OK) status = clstm_team_create(opt.threads, &m->team);
    if (status == CLSTM_OK) status = build(m, w, err);
    if (status == CLSTM_NO_MEMORY) clstm_fail(err, status, "no memory for the packed weights");
    if (status == CLSTM_OK) *out = m;
    else clstm_model_free(m);
    return status;
}

void clstm_model_free(clstm_model *model)
{
    if (!model) return;
    clstm_team_free(model->team);
    clstm_arena_free(&model->memory);
    clstm_free(model);
}

size_t clstm_input_size(const clstm_model *m) { return m->widths[0]; }
size_t clstm_vocabulary(const clstm_model *m) { return m->n_tokens; }
size_t clstm_output_size(const clstm_model *m) { return m->widths[m->n_ops]; }
size_t clstm_state_size(const clstm_model *m) { return m->state_size; }
size_t clstm_model_bytes(const clstm_model *m) { return sizeof *m + m->memory.bytes; }
const char *clstm_kernel(const clstm_model *m) { return m->kernels->name; }
const char *clstm_gemm(const clstm_model *m) { return m->blas.sgemm ? "blas" : "packed"; }
const char *clstm_blas(const clstm_model *m) { return m->blas.path; }
int clstm_threads(const clstm_model *m) { return clstm_team_size(m->team); }
int clstm_streamable(const clstm_model *m) { return !m->against_time; }
