// SPDX-License-Identifier: MIT
/* A certificate: a few inputs and the outputs that they must give, kept in the file, so that
 * weights read in a wrong order or by a broken build are never served. */
#include <math.h>
#include <string.h>

#include "model.h"
#include "status.h"

/* Far above what float32 and another engine's order of sums differ by, far below what a
 * swapped gate does. */
#define ABSOLUTE 1e-5
#define RELATIVE 1e-4
#define ROWS_MAX 256 /* it is recomputed at every load */
/* Values that its run may take beside those of the file. Joins of joins make a slot of 2^24
 * features out of 3 KB, and 256 rows of those would take a minute and 20 GB. */
#define VALUES_MAX ((uint64_t)1 << 23)

static int agree(float got, float expected)
{
    if (isnan(got) || isnan(expected)) return isnan(got) && isnan(expected);
    if (isinf(got) || isinf(expected)) return got == expected;
    return fabs((double)got - expected) <= ABSOLUTE + RELATIVE * fabs((double)expected);
}

/* x: float32 [T][B][input_size] or int64 [T][B]; y: float32 [T][B][output_size]. */
clstm_status clstm_model_verify(const clstm_model *m, const struct weights *w, char *err)
{
    if (!w->header->n_check) return CLSTM_OK;
    const struct tensor_record *x = &w->tensors[w->header->n_tensors - 2], *y = x + 1;
    const size_t n_steps = x->dims[0], n_batch = x->dims[1], n_in = m->widths[0];
    const size_t n_out = m->widths[m->n_ops];
    const int fits = n_in ? x->dtype == TENSOR_FLOAT32 && x->rank == 3 && x->dims[2] == n_in
                          : x->dtype == TENSOR_INT64 && x->rank == 2;
    if (!fits || y->dtype != TENSOR_FLOAT32 || y->rank != 3 || y->dims[0] != n_steps ||
        y->dims[1] != n_batch || y->dims[2] != n_out || n_steps > ROWS_MAX || n_batch > ROWS_MAX ||
        n_steps * n_batch > ROWS_MAX)
        return clstm_fail(err, CLSTM_BAD_FILE, "its certificate has a wrong shape");
    uint64_t row = 0; /* below 2^56 even of 2^32 ops */
    for (size_t i = 0; i <= m->n_ops; i++) row += m->widths[i];
    if (row > (VALUES_MAX + w->header->file_bytes / 2) / (n_steps * n_batch + 1))
        return clstm_fail(err, CLSTM_BAD_FILE,
                          "its certificate runs %zu rows of %llu values, too many for the file",
                          n_steps * n_batch, (unsigned long long)row);
    const size_t in_step = n_in ? n_in : 1, count = n_steps * n_batch * n_out;
    float *got = clstm_alloc(count * sizeof *got);
    if (!got) return clstm_fail(err, CLSTM_NO_MEMORY, "no memory for the certificate");
    const void *input = w->file + x->at;
    const float *expected = (const float *)(w->file + y->at);
    const clstm_batch batch = {.n_steps = n_steps,
                               .n_batch = n_batch,
                               .x = n_in ? input : NULL,
                               .tokens = n_in ? NULL : input,
                               .y = got,
                               .x_batch = in_step,
                               .x_step = n_batch * in_step,
                               .y_batch = n_out,
                               .y_step = n_batch * n_out};
    clstm_status status = clstm_sequence(m, &batch);
    if (status == CLSTM_NO_MEMORY) clstm_fail(err, status, "no memory for the certificate");
    for (size_t i = 0; status == CLSTM_OK && i < count; i++)
        if (!agree(got[i], expected[i]))
            status = clstm_fail(err, CLSTM_BAD_FILE,
                                "its certificate fails: output %zu is %.9g, expected %.9g", i,
                                (double)got[i], (double)expected[i]);
    clstm_free(got);
    return status;
}
