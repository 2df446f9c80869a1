// SPDX-License-Identifier: MIT
/* The time of clstm_step from C, without Python. CORE is as in csrc/README.md:
 *
 *     cc -O2 -Icsrc/include CORE benchmarks/c_step.c -o c_step -lm
 *     c_step MODEL.clstm...
 *
 * A line of JSON a model: microseconds a step. best, median and p99 are of groups of so many steps
 * that the clock's own time does not count; alone is the median of steps that are timed one by
 * one, the clock's time with them. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clstm.h"

#define FRAMES 64
#define GROUPS 2000

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void take(clstm_stream *stream, const float *x, size_t n_in, float *y, size_t n)
{
    for (size_t k = 0; k < n; k++) clstm_step(stream, x + k % FRAMES * n_in, y);
}

/* Microseconds a step of groups of n steps, sorted. */
static void time_groups(clstm_stream *stream, const float *x, size_t n_in, float *y, size_t n,
                        double *took, size_t groups)
{
    for (size_t i = 0; i < groups; i++) {
        const double start = now();
        take(stream, x, n_in, y, n);
        took[i] = (now() - start) / (double)n;
    }
    qsort(took, groups, sizeof *took, by_value);
}

static int measure(const char *path)
{
    static double took[GROUPS];
    char err[256];
    clstm_model *model;
    clstm_stream *stream;
    if (clstm_model_load(path, NULL, &model, err) || clstm_stream_create(model, &stream)) {
        fprintf(stderr, "%s: %s\n", path, err);
        return 1;
    }
    const size_t n_in = clstm_input_size(model), n_out = clstm_output_size(model);
    float *x = malloc(FRAMES * n_in * sizeof *x), *y = malloc(n_out * sizeof *y);
    if (!x || !y) return 1;
    for (size_t i = 0; i < FRAMES * n_in; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    take(stream, x, n_in, y, 200);
    double start = now();
    take(stream, x, n_in, y, 100);
    const double guess = (now() - start) / 100;
    const size_t n = guess < 5 ? (size_t)(5 / guess) + 1 : 1; /* 5 us and more a group */
    const size_t groups = guess > 250 ? 400 : GROUPS;
    take(stream, x, n_in, y, n * 200);
    time_groups(stream, x, n_in, y, n, took, groups);
    const double best = took[0], median = took[groups / 2], p99 = took[groups * 99 / 100];
    time_groups(stream, x, n_in, y, 1, took, groups);
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    printf("{\"model\": \"%.*s\", \"kernel\": \"%s\", \"bytes\": %zu, \"best\": %.4f, "
           "\"median\": %.4f, \"p99\": %.4f, \"alone\": %.4f}\n",
           (int)strcspn(name, "."), name, clstm_kernel(model), clstm_model_bytes(model), best,
           median, p99, took[groups / 2]);
    free(x), free(y);
    clstm_stream_free(stream);
    clstm_model_free(model);
    return 0;
}

int main(int n, char **paths)
{
    for (int i = 1; i < n; i++)
        if (measure(paths[i])) return 1;
    return n < 2;
}
