// SPDX-License-Identifier: MIT
/* The time of tanh and sigmoid of each kernel set. A library with the core and probe.c, which
 * activations.py builds and calls. */
#define _POSIX_C_SOURCE 199309L
#include <string.h>
#include <time.h>

#include "../csrc/src/cpu.h"
#include "../csrc/src/kernels/kernels.h"

#define N 1024 /* in and out of them are 8 KiB: both stay in L1 */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Nanoseconds an element, the fastest of 200 groups of calls on values of -9 to 9; 0 for a set
 * that there is not. What is called takes the same time whatever the values are. */
double activation_ns(const char *kernel, int is_tanh)
{
    const struct kernels *const sets[] = {
        &clstm_kernels_scalar,
#if defined(__x86_64__)
        &clstm_kernels_avx2,
        &clstm_kernels_avx512,
#elif defined(__aarch64__)
        &clstm_kernels_neon,
#endif
    };
    static float x[N], y[N];
    const float none[2] = {0, 0};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(sets[i]->name, kernel) || !clstm_cpu_has(sets[i]->needs)) continue;
        for (int j = 0; j < N; j++) x[j] = (float)(j * 37 % N) / N * 18 - 9;
        double best = 1e30;
        for (int group = 0; group < 200; group++) {
            const double start = now();
            for (int call = 0; call < 20; call++)
                sets[i]->map(is_tanh ? MAP_TANH : MAP_SIGMOID, N, x, y, NULL, NULL, none);
            const double took = (now() - start) / (20.0 * N);
            if (took < best) best = took;
        }
        return best;
    }
    return 0;
}
