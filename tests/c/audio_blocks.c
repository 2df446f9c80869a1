// SPDX-License-Identifier: MIT
/* That the callback of examples/audio asks for no memory and makes no system call, contains a NaN
 * and starts anew when told to.
 *
 *     LD_PRELOAD=count_alloc.so audio_blocks MODEL     prints what was counted
 *     audio_blocks MODEL sealed                        any system call kills it
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define main effect_main
#include "../../examples/audio/effect.c"
#undef main
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCKS = 10000 };

extern int count_alloc_armed __attribute__((weak)); /* there when preloaded */
extern long count_alloc_total __attribute__((weak));

static float in[BLOCK], out[BLOCK], first[BLOCK];

static int same_as_first(void) { return !memcmp(out, first, sizeof out); }

/* 0, or the number of the check that failed. */
static int work(struct effect *effect)
{
    process(BLOCK, in, first, effect);
    process(BLOCK, in, out, effect);
    if (same_as_first()) return 1; /* the state went on */
    atomic_store(&effect->restart, 1);
    process(BLOCK, in, out, effect);
    if (!same_as_first() || atomic_load(&effect->restart)) return 2;
    const float kept = in[BLOCK / 2];
    in[BLOCK / 2] = NAN;
    process(BLOCK, in, out, effect);
    for (int i = 0; i < BLOCK; i++)
        if (out[i] != 0) return 3;
    in[BLOCK / 2] = kept;
    process(BLOCK, in, out, effect);
    if (!same_as_first()) return 4;
    for (int i = 0; i < BLOCKS; i++) process((unsigned)(i % BLOCK), in, out, effect);
    return 0;
}

int main(int argc, char **argv)
{
    clstm_model *model = NULL;
    struct effect effect = {NULL, 0};
    if (argc < 2 || clstm_model_load(argv[1], NULL, &model, NULL) != CLSTM_OK ||
        clstm_stream_create(model, &effect.stream) != CLSTM_OK)
        return 2;
    for (int i = 0; i < BLOCK; i++) in[i] = (float)(i % 9) / 4 - 1;
    if (argc > 2) {
        if (prctl(PR_SET_SECCOMP, 1 /* read, write and exit alone */, 0, 0, 0)) return 77;
        syscall(SYS_exit, work(&effect)); /* the C library's exit asks for more */
    }
    if (!&count_alloc_armed) return fprintf(stderr, "count_alloc is not preloaded\n"), 2;
    count_alloc_armed = 1;
    const int failed = work(&effect);
    count_alloc_armed = 0;
    printf("check %d, %ld allocations\n", failed, count_alloc_total);
    return failed;
}
