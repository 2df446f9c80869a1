// SPDX-License-Identifier: MIT
/* Many threads on one model, each with a stream of its own, and forks in their midst.
 *
 *     many_callers MODEL THREADS CALLERS ROUNDS [FORKS]
 *
 * A model of one thread gives the bits that all others must have. CALLERS threads share a model
 * of THREADS threads; each takes ROUNDS rounds of step, run, copy, reset and sequence. With FORKS
 * they go on until so many children were made; a child starts its own callers all at once, for
 * whom the team is to be made anew, takes a round with each, and ends. One that takes longer than
 * LIMIT seconds is killed, and counts as hung. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clstm.h"

#define STEPS 12
#define LIMIT 30

static const clstm_model *model;
static size_t n_in, n_out, n_state;
static long rounds; /* of each caller; of -1 until told to stop */
static atomic_int stop, wrong;
static atomic_long done;
static pthread_barrier_t gate;

struct caller {
    float *x, *y, *state; /* [STEPS][n_in], and what a model of one thread made of it */
    float *got, *end;     /* room for the same */
};

static void allocate(struct caller *c, uint64_t seed)
{
    struct rng r = rng_seeded(seed);
    c->x = calloc(STEPS * n_in, sizeof(float));
    c->y = calloc(STEPS * n_out, sizeof(float));
    c->got = calloc(STEPS * n_out, sizeof(float));
    c->state = calloc(n_state, sizeof(float));
    c->end = calloc(n_state, sizeof(float));
    rng_fill(&r, c->x, STEPS * n_in, 1.0f);
}

static void compare(const struct caller *c)
{
    if (!same_bits(c->got, c->y, STEPS * n_out) || !same_bits(c->end, c->state, n_state))
        atomic_fetch_add(&wrong, 1);
    memset(c->got, 0, STEPS * n_out * sizeof(float));
}

static void by_sequence(const clstm_model *m, const struct caller *c, float *y, float *state)
{
    const clstm_batch b = {.n_steps = STEPS,
                           .n_batch = 1,
                           .x = c->x,
                           .x_step = n_in,
                           .y = y,
                           .y_step = n_out,
                           .state_out = state};
    if (clstm_sequence(m, &b) != CLSTM_OK) atomic_fetch_add(&wrong, 1);
}

static void take_round(const struct caller *c)
{
    clstm_stream *s, *other;
    if (clstm_stream_create(model, &s) || clstm_stream_create(model, &other)) exit(3);
    for (size_t t = 0; t < STEPS; t++) clstm_step(s, c->x + t * n_in, c->got + t * n_out);
    clstm_get_state(s, c->end);
    compare(c);
    clstm_reset(s);
    clstm_run(s, STEPS / 2, c->x, c->got);
    clstm_stream_copy(other, s);
    clstm_run(other, STEPS - STEPS / 2, c->x + STEPS / 2 * n_in, c->got + STEPS / 2 * n_out);
    clstm_get_state(other, c->end);
    compare(c);
    by_sequence(model, c, c->got, c->end);
    compare(c);
    clstm_stream_free(s);
    clstm_stream_free(other);
    atomic_fetch_add(&done, 1);
}

static void *call(void *argument)
{
    pthread_barrier_wait(&gate); /* all at once, so that the first jobs meet */
    for (long i = 0; i != rounds && !atomic_load(&stop); i++) take_round(argument);
    return NULL;
}

static void start(struct caller *callers, pthread_t *threads, int n)
{
    pthread_barrier_init(&gate, NULL, (unsigned)n);
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, call, &callers[i])) exit(3);
}

static void join(pthread_t *threads, int n)
{
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static clstm_model *load(const char *path, int threads)
{
    const clstm_options options = {.size = sizeof options, .threads = threads};
    char err[256] = "";
    clstm_model *m = NULL;
    if (clstm_model_load(path, &options, &m, err) != CLSTM_OK) {
        fprintf(stderr, "many_callers: %s\n", err);
        exit(2);
    }
    return m;
}

/* A child whose threads are its own alone: right bits, an end in time. */
static void be_child(struct caller *callers, pthread_t *threads, int n)
{
    alarm(LIMIT);
    rounds = 1;
    atomic_store(&stop, 0);
    atomic_store(&wrong, 0);
    start(callers, threads, n);
    join(threads, n);
    clstm_model_free((clstm_model *)model);
    _exit(atomic_load(&wrong) ? 1 : 0);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return fprintf(stderr, "usage: many_callers MODEL THREADS CALLERS ROUNDS [FORKS]\n"), 2;
    const int n = atoi(argv[3]);
    const long forks = argc > 5 ? atol(argv[5]) : 0;
    struct caller *callers = calloc((size_t)n, sizeof *callers);
    /* The callers of the children write to the same room: it is theirs by the fork. */
    pthread_t *threads = calloc((size_t)n, sizeof *threads),
              *later = calloc((size_t)n, sizeof *later);
    clstm_model *alone = load(argv[1], 1);
    n_in = clstm_input_size(alone);
    n_out = clstm_output_size(alone);
    n_state = clstm_state_size(alone);
    for (int i = 0; i < n; i++) {
        allocate(&callers[i], (uint64_t)i);
        by_sequence(alone, &callers[i], callers[i].y, callers[i].state);
    }
    clstm_model_free(alone);
    clstm_model *shared = load(argv[1], atoi(argv[2]));
    model = shared;
    rounds = forks ? -1 : atol(argv[4]);
    start(callers, threads, n);
    double slowest = 0;
    for (long i = 0; i < forks; i++) {
        const double begin = seconds();
        const pid_t child = fork();
        if (child == 0) be_child(callers, later, n);
        int status = -1;
        waitpid(child, &status, 0);
        check(status == 0, "child %ld: %s", i,
              WIFSIGNALED(status) ? "hung or crashed" : "other bits than alone");
        if (seconds() - begin > slowest) slowest = seconds() - begin;
    }
    if (forks) atomic_store(&stop, 1);
    join(threads, n);
    clstm_model_free(shared);
    for (int i = 0; i < n; i++)
        free(callers[i].x), free(callers[i].y), free(callers[i].state), free(callers[i].got),
            free(callers[i].end);
    free(callers), free(threads), free(later);
    check(atomic_load(&wrong) == 0, "%d of the rounds have other bits", atomic_load(&wrong));
    printf("%d callers, %s threads: %ld rounds", n, argv[2], atomic_load(&done));
    if (forks) printf("; %ld forks, the slowest %.0f ms", forks, 1000 * slowest);
    printf("\n");
    return check_report("many_callers");
}
