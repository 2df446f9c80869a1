// SPDX-License-Identifier: MIT
/* The walk over the program: step, run, whole sequence and batch are this one loop. */
#include <math.h>
#include <string.h>

#include "fpmode.h"
#include "frame.h"
#include "parallel.h"
#include "stream.h"

static void embed(const struct embedding *e, size_t n, const int64_t *tokens, struct values out,
                  size_t width)
{
    for (size_t r = 0; r < n; r++) {
        float *to = out.at + r * out.stride;
        if (tokens[r] >= 0 && (uint64_t)tokens[r] < e->n)
            memcpy(to, e->table + (size_t)tokens[r] * out.stride, width * sizeof *to);
        else
            for (size_t i = 0; i < width; i++) to[i] = NAN;
    }
}

/* out = in of the first input, combined with the others from left to right. */
static void combine(const clstm_model *m, const struct op *op, const struct frame *f, size_t n,
                    struct values out)
{
    struct values in = f->slot[op->inputs[0]];
    const float none[2] = {0};
    for (size_t k = 1; k < op->n_inputs; k++) {
        const struct values other = f->slot[op->inputs[k]];
        for (size_t r = 0; r < n; r++)
            m->kernels->map(op->combine, out.stride, in.at + r * in.stride, out.at + r * out.stride,
                            other.at + r * other.stride, NULL, none);
        in = out;
    }
}

static void concatenate(const clstm_model *m, const struct op *op, const struct frame *f, size_t n,
                        struct values out)
{
    size_t at = 0;
    for (size_t k = 0; k < op->n_inputs; k++) {
        const struct values in = f->slot[op->inputs[k]];
        const size_t width = m->widths[op->inputs[k]];
        for (size_t r = 0; r < n; r++)
            memcpy(out.at + r * out.stride + at, in.at + r * in.stride, width * sizeof *in.at);
        at += width;
    }
}

/* Row r of each step is of the sequence of row r of the first. */
static void repeat_first(const struct frame *f, struct values in, struct values out, size_t width)
{
    for (size_t t = 0; t < f->n_steps; t++)
        for (size_t row = f->first[t]; row < f->first[t + 1]; row++)
            memcpy(out.at + row * out.stride, in.at + (row - f->first[t]) * in.stride,
                   width * sizeof *in.at);
}

void clstm_walk(const clstm_model *m, struct frame *f)
{
    const size_t n = f->first[f->n_steps];
    for (size_t i = 0; i < m->n_ops; i++) {
        const struct op *op = &m->ops[i];
        const struct values in = f->slot[op->inputs[0]], out = f->slot[i + 1];
        switch (op->action) {
        case RUN_ALIAS: break;
        case RUN_CELLS: clstm_recurrent_walk(m, &op->recurrent, f, in, out); break;
        case RUN_PRODUCT: clstm_run_product(m, &op->product, n, in.at, in.stride, out); break;
        case RUN_EMBEDDING: embed(&op->embedding, n, f->tokens, out, m->widths[i + 1]); break;
        case RUN_MAP:
            for (size_t r = 0; r < n; r++)
                m->kernels->map(op->map.kind, in.stride, in.at + r * in.stride,
                                out.at + r * out.stride, op->map.a, op->map.b, op->map.p);
            break;
        case RUN_NORM:
            for (size_t r = 0; r < n; r++)
                m->kernels->norm(op->norm.kind, m->widths[i + 1], in.at + r * in.stride,
                                 out.at + r * out.stride, op->norm.weight, op->norm.bias,
                                 op->norm.eps);
            break;
        case RUN_COMBINE: combine(m, op, f, n, out); break;
        case RUN_CONCAT: concatenate(m, op, f, n, out); break;
        case RUN_SLICE:
            for (size_t r = 0; r < n; r++)
                memcpy(out.at + r * out.stride, in.at + r * in.stride + op->start,
                       m->widths[i + 1] * sizeof *in.at);
            break;
        case RUN_FIRST: repeat_first(f, in, out, m->widths[i + 1]); break;
        }
    }
    f->turn += f->n_steps;
}

/* n steps of one stream, at most run_rows. */
static void take_steps(clstm_stream *s, size_t n, const float *x, const int64_t *tokens, float *y)
{
    const clstm_model *m = s->model;
    struct frame *f = &s->frame;
    const size_t n_in = m->widths[0], n_out = m->widths[m->n_ops];
    if (n_in ? !x : !tokens) { /* tokens for a model of numbers, or the reverse */
        for (size_t i = 0; i < n * n_out; i++) y[i] = NAN;
        return;
    }
    f->n_steps = n;
    f->tokens = tokens;
    for (size_t t = 0; t < n && n_in; t++)
        memcpy(f->slot[0].at + t * f->slot[0].stride, x + t * n_in, n_in * sizeof *x);
    clstm_walk(m, f);
    const struct values out = f->slot[m->n_ops];
    for (size_t t = 0; t < n; t++)
        memcpy(y + t * n_out, out.at + t * out.stride, n_out * sizeof *y);
}

static void run(clstm_stream *s, size_t n_steps, const float *x, const int64_t *tokens, float *y)
{
    const clstm_model *m = s->model;
    const struct fpmode mode = fpmode_enter();
    while (n_steps) {
        const size_t n = n_steps < m->run_rows ? n_steps : m->run_rows;
        take_steps(s, n, x, tokens, y);
        n_steps -= n;
        if (x) x += n * m->widths[0];
        if (tokens) tokens += n;
        y += n * m->widths[m->n_ops];
    }
    fpmode_leave(mode);
}

void clstm_step(clstm_stream *s, const float *x, float *y)
{
    const struct fpmode mode = fpmode_enter();
    take_steps(s, 1, x, NULL, y);
    fpmode_leave(mode);
}

void clstm_step_token(clstm_stream *s, int64_t token, float *y)
{
    const struct fpmode mode = fpmode_enter();
    take_steps(s, 1, NULL, &token, y);
    fpmode_leave(mode);
}

void clstm_run(clstm_stream *s, size_t n_steps, const float *x, float *y)
{
    run(s, n_steps, x, NULL, y);
}

void clstm_run_tokens(clstm_stream *s, size_t n_steps, const int64_t *tokens, float *y)
{
    run(s, n_steps, NULL, tokens, y);
}
