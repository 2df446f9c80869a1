// SPDX-License-Identifier: MIT
/* Steps while signals come, some ten thousand a second, whose handler steps a stream of its own
 * of the same model and leaves vector registers and rounding as no caller would like them.
 *
 *     signals MODEL THREADS STEPS
 *
 * The bits must be those of the same steps in peace. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "check.h"
#include "clstm.h"

#define EVERY 100 /* microseconds */
#define INPUTS 64

static size_t n_in, n_out;
static float *x; /* [INPUTS][n_in] */
static clstm_stream *inner;
static float *inner_y;
static uint64_t inner_hash, inner_expected; /* of the handler's first step, done again */
static volatile sig_atomic_t n_signals, n_wrong;

static void handler(int number)
{
    (void)number;
    fesetround(FE_UPWARD); /* sigreturn brings back what was interrupted */
    clstm_reset(inner);
    clstm_step(inner, x, inner_y);
    inner_hash = hash_floats(HASH_START, inner_y, n_out);
    n_wrong += inner_hash != inner_expected;
    n_signals++;
}

static uint64_t run(clstm_stream *s, long steps, float *y)
{
    uint64_t hash = HASH_START;
    clstm_reset(s);
    for (long i = 0; i < steps; i++) {
        clstm_step(s, x + (size_t)i % INPUTS * n_in, y);
        hash = hash_floats(hash, y, n_out);
    }
    return hash;
}

static void set_timer(long microseconds)
{
    const struct timeval each = {0, microseconds};
    const struct itimerval timer = {each, each};
    setitimer(ITIMER_REAL, &timer, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 4) return fprintf(stderr, "usage: signals MODEL THREADS STEPS\n"), 2;
    const clstm_options options = {.size = sizeof options, .threads = atoi(argv[2])};
    const long steps = atol(argv[3]);
    char err[256] = "";
    clstm_model *model;
    clstm_stream *s;
    if (clstm_model_load(argv[1], &options, &model, err) || clstm_stream_create(model, &s) ||
        clstm_stream_create(model, &inner))
        return fprintf(stderr, "signals: %s\n", err), 2;
    n_in = clstm_input_size(model);
    n_out = clstm_output_size(model);
    x = calloc(INPUTS * n_in, sizeof *x);
    inner_y = calloc(n_out, sizeof *inner_y);
    float *y = calloc(n_out, sizeof *y);
    struct rng r = rng_seeded(3);
    rng_fill(&r, x, INPUTS * n_in, 1.0f);
    const uint64_t expected = run(s, steps, y);
    clstm_step(inner, x, inner_y);
    inner_expected = hash_floats(HASH_START, inner_y, n_out);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct timeval begin, end;
    gettimeofday(&begin, NULL);
    set_timer(EVERY);
    const uint64_t found = run(s, steps, y);
    set_timer(0);
    gettimeofday(&end, NULL);
    const double seconds =
        (double)(end.tv_sec - begin.tv_sec) + 1e-6 * (double)(end.tv_usec - begin.tv_usec);
    check(found == expected, "%d signals changed bits", (int)n_signals);
    check(n_wrong == 0, "%d steps inside the handler have other bits", (int)n_wrong);
    check(n_signals > 0, "no signal came");
    check(fegetround() == FE_TONEAREST, "the rounding is the handler's");
    printf("%ld steps, %d signals, %.0f a second\n", steps, (int)n_signals, n_signals / seconds);
    free(x), free(y), free(inner_y);
    clstm_stream_free(s);
    clstm_stream_free(inner);
    clstm_model_free(model);
    return check_report("signals");
}
