// SPDX-License-Identifier: MIT
/* Whole models against the oracle in double, each value within the bound carried to it.
 *
 *     check_models PACK [KERNEL ...]
 *
 * A model that streams is taught at every step: the oracle takes one step from the library's
 * own state, and from its bits. A bidirectional one is run over a few steps at once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clstm.h"
#include "oracle.h"

enum { STEPS = 4, BATCH = 2 };

struct trial {
    const unsigned char *image;
    const clstm_model *model;
    const char *kernel;
    size_t index, n_in, n_out, n_state, n_tokens;
    float *x, *y, *from, *to; /* [STEPS][n_in], [STEPS][n_out], [n_state] */
    int64_t tokens[STEPS];
    struct value *y_exact, *to_exact;
};

static long n_values, n_loose;

static void compare(const struct trial *t, const char *what, size_t n, const float *got,
                    const struct value *expected)
{
    for (size_t i = 0; i < n; i++) {
        n_values++;
        n_loose += expected[i].bound > 0x1p-10 * (1 + fabs(expected[i].exact));
        if (isinf(expected[i].bound)) continue; /* float32 may overflow on the way */
        check(within(got[i], expected[i]),
              "%s, model %zu: %s %.9g, not %.9g within %.3g (%zu of %zu)", t->kernel, t->index,
              what, (double)got[i], expected[i].exact, expected[i].bound, i, n);
    }
}

static void run_oracle(const struct trial *t, size_t n_steps, const float *x, const int64_t *tokens)
{
    oracle_run(t->image, n_steps, t->n_tokens ? NULL : x, t->n_tokens ? tokens : NULL, t->from,
               t->y_exact, t->to_exact);
}

static void by_step(struct trial *t)
{
    clstm_stream *s = NULL;
    if (!check(clstm_stream_create(t->model, &s) == CLSTM_OK, "no stream")) return;
    clstm_set_state(s, t->from);
    for (size_t i = 0; i < STEPS; i++) {
        const float *x = t->x + i * t->n_in;
        run_oracle(t, 1, x, t->tokens + i);
        if (t->n_tokens) clstm_step_token(s, t->tokens[i], t->y);
        else clstm_step(s, x, t->y);
        clstm_get_state(s, t->to);
        compare(t, "output", t->n_out, t->y, t->y_exact);
        compare(t, "state", t->n_state, t->to, t->to_exact);
        memcpy(t->from, t->to, t->n_state * sizeof *t->from);
    }
    clstm_stream_free(s);
}

static void at_once(struct trial *t, size_t n_steps)
{
    const clstm_batch batch = {.n_steps = n_steps,
                               .n_batch = 1,
                               .x = t->n_tokens ? NULL : t->x,
                               .tokens = t->n_tokens ? t->tokens : NULL,
                               .y = t->y,
                               .x_step = t->n_tokens ? 1 : t->n_in,
                               .y_step = t->n_out,
                               .state = t->from,
                               .state_out = t->to};
    run_oracle(t, n_steps, t->x, t->tokens);
    check(clstm_sequence(t->model, &batch) == CLSTM_OK, "clstm_sequence refused a sequence");
    compare(t, "output", n_steps * t->n_out, t->y, t->y_exact);
    compare(t, "state", t->n_state, t->to, t->to_exact);
}

static void check_model(const unsigned char *image, size_t size, size_t index, const char *kernel)
{
    const clstm_options options = {.size = sizeof options, .kernel = kernel, .gemm = "packed"};
    char err[256] = "";
    clstm_model *model = NULL;
    const clstm_status status = clstm_model_load_memory(image, size, &options, &model, err);
    if (!check(status == CLSTM_OK, "model %zu: %s", index, err)) return;
    struct trial t = {.image = image,
                      .model = model,
                      .kernel = kernel,
                      .index = index,
                      .n_in = clstm_input_size(model),
                      .n_out = clstm_output_size(model),
                      .n_state = clstm_state_size(model),
                      .n_tokens = clstm_vocabulary(model)};
    struct rng r = rng_seeded(index);
    t.x = calloc(STEPS * t.n_in + 1, sizeof *t.x);
    t.y = calloc(STEPS * t.n_out, sizeof *t.y);
    t.from = calloc(2 * t.n_state + 1, sizeof *t.from);
    t.to = t.from + t.n_state;
    t.y_exact = calloc(STEPS * t.n_out + t.n_state, sizeof *t.y_exact);
    t.to_exact = t.y_exact + STEPS * t.n_out;
    for (int round = 0; round < BATCH; round++) {
        rng_fill(&r, t.x, STEPS * t.n_in, round ? 4.0f : 1.0f);
        rng_fill(&r, t.from, t.n_state, 1.0f);
        for (size_t i = 0; i < STEPS && t.n_tokens; i++)
            t.tokens[i] = (int64_t)rng_below(&r, t.n_tokens);
        /* a number that is none, now and then: it stays none, and in its own row */
        if (t.n_in && rng_below(&r, 8) == 0) t.x[rng_below(&r, STEPS * t.n_in)] = NAN;
        if (clstm_streamable(model)) by_step(&t);
        else at_once(&t, 1 + rng_below(&r, STEPS));
    }
    free(t.x), free(t.y), free(t.from), free(t.y_exact);
    clstm_model_free(model);
}

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: check_models PACK [KERNEL ...]\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    for (size_t k = 0;; k++) {
        const char *kernel = argc > 2 ? argv[k + 2] : clstm_available_kernel(k);
        if (!kernel) break;
        for (size_t i = 0; i < pack.n; i++) {
            size_t size, rows;
            const unsigned char *image = pack_image(&pack, i, &size, &rows);
            check_model(image, size, i, kernel);
        }
        printf("%s: %zu models\n", kernel, pack.n);
    }
    free(pack.data);
    printf("%ld of %ld values with a loose bound\n", n_loose, n_values);
    check(n_loose * 10 < n_values, "the bounds say nothing");
    return check_report("check_models");
}
