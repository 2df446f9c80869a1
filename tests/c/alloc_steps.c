// SPDX-License-Identifier: MIT
/* That the functions marked HOT in clstm.h ask for no memory, take no lock and make no system call.
 *
 *     LD_PRELOAD=count_alloc.so alloc_steps MODEL STEPS     prints what was counted
 *     alloc_steps MODEL STEPS sealed                        any system call kills it
 *     alloc_steps MODEL STEPS watched [2]                   for RealtimeSanitizer, which ends it
 *
 * A last word "broken" makes calls that each of these must notice; so does a 2 behind "watched": a
 * model of two threads, whose first step wakes the other. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clstm.h"

extern int count_alloc_armed __attribute__((weak)); /* there when preloaded */
extern long count_alloc_total __attribute__((weak)), count_lock_total __attribute__((weak));

#define AT_ONCE 100 /* steps of clstm_run */

struct run {
    clstm_stream *stream, *other;
    size_t n_in, n_tokens; /* one of them is 0 */
    float *x, *y, *state;
    int64_t tokens[AT_ONCE];
};

static void break_the_promise(void) CLSTM_HOT;

/* Every HOT function, those that do not fit the model's input too. */
static void work(struct run *r, long steps)
{
    for (long i = 0; i < steps; i++) {
        if (r->n_tokens) clstm_step_token(r->stream, i % (long)r->n_tokens, r->y);
        else {
            r->x[(size_t)i % r->n_in] = (float)(i % 7) * 0.25f - 0.75f;
            clstm_step(r->stream, r->x, r->y);
        }
        if (i % 1000) continue;
        if (r->n_tokens) clstm_run_tokens(r->stream, AT_ONCE, r->tokens, r->y);
        else clstm_run(r->stream, AT_ONCE, r->x, r->y);
        clstm_get_state(r->stream, r->state);
        clstm_stream_copy(r->other, r->stream);
        clstm_step_token(r->other, -1, r->y);
        clstm_step(r->other, r->x, r->y);
        clstm_reset(r->stream);
        clstm_set_state(r->stream, r->state);
    }
}

/* From here on every system call kills this process, but that which ends it. */
static int seal(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void break_the_promise(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    void *volatile memory = malloc(100);
    free(memory);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    syscall(SYS_getppid);
}

int main(int argc, char **argv)
{
    char err[256] = "";
    clstm_model *model = NULL;
    struct run r = {0};
    const int two = argc > 4 && !strcmp(argv[4], "2");
    const clstm_options options = {.size = sizeof options, .threads = 1 + two};
    if (argc < 3 || clstm_model_load(argv[1], &options, &model, err) != CLSTM_OK ||
        clstm_stream_create(model, &r.stream) != CLSTM_OK ||
        clstm_stream_create(model, &r.other) != CLSTM_OK)
        return fprintf(stderr, "alloc_steps: %s\n", err), 2;
    const long steps = atol(argv[2]);
    const int broken = !strcmp(argv[argc - 1], "broken");
    r.n_in = clstm_input_size(model);
    r.n_tokens = clstm_vocabulary(model);
    r.x = calloc(AT_ONCE * r.n_in + 1, sizeof(float));
    r.y = calloc(AT_ONCE * clstm_output_size(model), sizeof(float));
    r.state = calloc(clstm_state_size(model) + 1, sizeof(float));
    for (size_t i = 0; i < AT_ONCE && r.n_tokens; i++) r.tokens[i] = (int64_t)(i % r.n_tokens);
    if (argc > 3 && !strcmp(argv[3], "sealed")) {
        printf("%ld steps sealed\n", steps);
        fflush(stdout);
        if (seal()) return 77;
        work(&r, steps);
        if (broken) break_the_promise();
        syscall(SYS_exit_group, 0); /* the C library's exit asks for more */
    }
    const int counting = argc < 4 || strcmp(argv[3], "watched");
    if (counting && !&count_alloc_armed)
        return fprintf(stderr, "alloc_steps: count_alloc is not preloaded\n"), 2;
    if (two) usleep(100000); /* it sleeps */
    if (counting) count_alloc_armed = 1;
    work(&r, steps);
    if (broken) break_the_promise();
    if (counting) {
        count_alloc_armed = 0;
        printf("%ld steps: %ld allocations, %ld locks\n", steps, count_alloc_total,
               count_lock_total);
    } else printf("%ld steps\n", steps);
    clstm_stream_free(r.stream);
    clstm_stream_free(r.other);
    clstm_model_free(model);
    free(r.x), free(r.y), free(r.state);
    return 0;
}
