// SPDX-License-Identifier: MIT
#include "parallel.h"

#include "team.h"

/* Multiply-adds below which handing a share over costs more than it saves: about 2 us. */
#define WORTH (256 * 1024)

struct job {
    const clstm_model *model;
    const struct panels *panels;
    const struct form *form;
    const struct cell_rows *rows; /* of a cell, or NULL: a product */
    size_t n, x_stride;
    const float *x;
    struct values y;
};

static int worth(const struct panels *p, size_t n)
{
    const size_t n_k = p->n_x + p->n_h + p->n_c;
    return p->n_blocks > 1 && n * n_k * p->n_blocks * p->n_gates * UNITS >= WORTH;
}

/* Blocks begin ... end - 1 of all. */
static struct panels part_of(const struct panels *p, size_t begin, size_t end)
{
    struct panels part = *p;
    const size_t n_k = p->n_x + p->n_h + p->n_c, block = p->n_gates * UNITS;
    part.n_blocks = end - begin;
    part.weight += begin * n_k * block;
    part.bias += begin * block;
    if (part.apart) part.apart += begin * UNITS;
    return part;
}

static void share(const void *argument, size_t i, size_t n)
{
    const struct job *job = argument;
    const struct kernels *k = job->model->kernels;
    const size_t n_blocks = job->panels->n_blocks;
    const size_t begin = n_blocks * i / n, end = n_blocks * (i + 1) / n;
    const size_t at = begin * job->panels->n_gates * UNITS;
    const struct panels part = part_of(job->panels, begin, end);
    if (begin == end) return;
    if (!job->rows) {
        k->product(&part, job->n, job->x, job->x_stride,
                   (struct values){job->y.at + at, job->y.stride});
        return;
    }
    struct cell_rows rows = *job->rows;
    rows.first = begin;
    rows.total += at;
    k->cell(&part, job->form, &rows);
}

void clstm_share_cell(const clstm_model *m, const struct panels *p, const struct form *form,
                      const struct cell_rows *rows)
{
    const struct job job = {.model = m, .panels = p, .form = form, .rows = rows};
    if (!worth(p, rows->n) || !clstm_team_run(m->team, share, &job))
        m->kernels->cell(p, form, rows);
}

void clstm_share_product(const clstm_model *m, const struct panels *p, size_t n, const float *x,
                         size_t x_stride, struct values y)
{
    const struct job job = {.model = m, .panels = p, .n = n, .x = x, .x_stride = x_stride, .y = y};
    if (!worth(p, n) || !clstm_team_run(m->team, share, &job))
        m->kernels->product(p, n, x, x_stride, y);
}
