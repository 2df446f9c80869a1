// SPDX-License-Identifier: MIT
/* The first job of a team in a forked child, by two callers at once: one of them makes the workers
 * anew, once, and the other goes alone meanwhile.
 *
 *     first_jobs MODEL MODELS FORKS
 *
 * A child has as many first jobs as there are models, each of which the callers begin together.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "clstm.h"

#define CALLERS 2
#define STEPS 150 /* some milliseconds */
#define LIMIT 30  /* seconds; a child that takes longer is killed, and counts as hung */

static clstm_model **models;
static clstm_stream **streams; /* [n_models][CALLERS] */
static size_t n_models, n_in, n_out;
static float *x, *y; /* the last of STEPS steps, before any fork */
static atomic_size_t arrived;
static atomic_int wrong;

/* In place of the C library's: a millisecond, in which others come. */
int pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes)
{
    (void)attributes;
    usleep(1000);
    *lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    return 0;
}

static void *call(void *argument)
{
    const size_t c = *(const size_t *)argument;
    float *got = calloc(n_out, sizeof *got);
    for (size_t i = 0; i < n_models; i++) {
        atomic_fetch_add(&arrived, 1);
        while (atomic_load(&arrived) < (i + 1) * CALLERS) {} /* spinning: both are awake */
        for (int t = 0; t < STEPS; t++) clstm_step(streams[i * CALLERS + c], x, got);
        if (!same_bits(got, y, n_out)) atomic_fetch_add(&wrong, 1);
    }
    free(got);
    return NULL;
}

/* Threads of this process, from /proc; 0 where there is none. */
static size_t n_tasks(void)
{
    size_t n = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && readdir(tasks)) n++;
    if (tasks) closedir(tasks);
    return n ? n - 2 : 0; /* . and .. */
}

static void be_child(void)
{
    const size_t me[CALLERS] = {0, 1};
    pthread_t threads[CALLERS];
    alarm(LIMIT);
    for (size_t c = 0; c < CALLERS; c++)
        if (pthread_create(&threads[c], NULL, call, (void *)&me[c])) _exit(3);
    for (size_t c = 0; c < CALLERS; c++) pthread_join(threads[c], NULL);
    const size_t n = n_tasks(); /* mine, and one worker of each model */
    if (n && n != 1 + n_models) _exit(2);
    for (size_t i = 0; i < n_models; i++) clstm_model_free(models[i]);
    _exit(atomic_load(&wrong) ? 1 : 0);
}

int main(int argc, char **argv)
{
    if (argc < 4) return fprintf(stderr, "usage: first_jobs MODEL MODELS FORKS\n"), 2;
    const clstm_options options = {.size = sizeof options, .threads = 2};
    char err[256] = "";
    n_models = strtoull(argv[2], NULL, 10);
    models = calloc(n_models, sizeof *models);
    streams = calloc(n_models * CALLERS, sizeof *streams);
    for (size_t i = 0; i < n_models; i++) {
        if (clstm_model_load(argv[1], &options, &models[i], err) != CLSTM_OK)
            return fprintf(stderr, "first_jobs: %s\n", err), 2;
        for (size_t c = 0; c < CALLERS; c++)
            if (clstm_stream_create(models[i], &streams[i * CALLERS + c])) return 2;
    }
    n_in = clstm_input_size(models[0]);
    n_out = clstm_output_size(models[0]);
    x = calloc(n_in, sizeof *x);
    y = calloc(n_out, sizeof *y);
    struct rng r = rng_seeded(1);
    rng_fill(&r, x, n_in, 1.0f);
    for (int t = 0; t < STEPS; t++) clstm_step(streams[0], x, y);
    clstm_reset(streams[0]);
    for (long i = 0; i < atol(argv[3]); i++) {
        const pid_t child = fork();
        if (child == 0) be_child();
        int status = -1;
        waitpid(child, &status, 0);
        check(status == 0, "child %ld: %s", i,
              WIFSIGNALED(status)        ? "hung or crashed"
              : WEXITSTATUS(status) == 2 ? "other workers than one for each model"
                                         : "other bits than its parent");
    }
    for (size_t i = 0; i < n_models; i++) {
        for (size_t c = 0; c < CALLERS; c++) clstm_stream_free(streams[i * CALLERS + c]);
        clstm_model_free(models[i]);
    }
    free(models), free(streams), free(x), free(y);
    return check_report("first_jobs");
}
