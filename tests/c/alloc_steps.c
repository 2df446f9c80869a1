// SPDX-License-Identifier: MIT
/* That the functions marked HOT in clstm.h ask for no memory and make no system call.
 *
 *     LD_PRELOAD=count_alloc.so alloc_steps MODEL STEPS     prints what was counted
 *     alloc_steps MODEL STEPS sealed                        any system call kills it
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clstm.h"

extern int count_alloc_armed __attribute__((weak)); /* there when preloaded */
extern long count_alloc_total __attribute__((weak));

struct buffers {
    float *x, *y, *state;
};

/* Every HOT function that a model of floats has. */
static void work(clstm_stream *s, clstm_stream *other, const struct buffers *b, size_t n_in,
                 long steps)
{
    for (long i = 0; i < steps; i++) {
        b->x[(size_t)i % n_in] = (float)(i % 7) * 0.25f - 0.75f;
        clstm_step(s, b->x, b->y);
        if (i % 1000) continue;
        clstm_run(s, 100, b->x, b->y);
        clstm_get_state(s, b->state);
        clstm_stream_copy(other, s);
        clstm_reset(s);
        clstm_set_state(s, b->state);
    }
}

int main(int argc, char **argv)
{
    char err[256] = "";
    clstm_model *model = NULL;
    clstm_stream *s = NULL, *other = NULL;
    if (argc < 3 || clstm_model_load(argv[1], NULL, &model, err) != CLSTM_OK ||
        clstm_stream_create(model, &s) != CLSTM_OK ||
        clstm_stream_create(model, &other) != CLSTM_OK)
        return fprintf(stderr, "alloc_steps: %s\n", err), 2;
    const size_t n_in = clstm_input_size(model);
    const struct buffers b = {calloc(100 * n_in, sizeof(float)),
                              calloc(100 * clstm_output_size(model), sizeof(float)),
                              calloc(clstm_state_size(model) + 1, sizeof(float))};
    const long steps = atol(argv[2]);
    if (argc > 3 && !strcmp(argv[3], "sealed")) {
        printf("sealed\n");
        fflush(stdout);
        if (prctl(PR_SET_SECCOMP, 1 /* read, write and exit alone */, 0, 0, 0)) return 77;
        work(s, other, &b, n_in, steps);
        syscall(SYS_exit, 0); /* the C library's exit asks for more */
    }
    if (!&count_alloc_armed)
        return fprintf(stderr, "alloc_steps: count_alloc is not preloaded\n"), 2;
    count_alloc_armed = 1;
    void *volatile memory = malloc(100); /* that the counter counts; volatile, or it is removed */
    free(memory);
    const long one = count_alloc_total;
    work(s, other, &b, n_in, steps);
    count_alloc_armed = 0;
    printf("%ld steps: %ld allocations (and %ld of our own)\n", steps, count_alloc_total - one,
           one);
    clstm_stream_free(s);
    clstm_stream_free(other);
    clstm_model_free(model);
    free(b.x), free(b.y), free(b.state);
    return 0;
}
