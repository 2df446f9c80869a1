// SPDX-License-Identifier: MIT
/* Promise 1: sigmoid and tanh of one kernel set over float inputs, against libm in double.
 *
 *     sweep_activations KERNEL STRIDE [PHASE]
 *
 * takes every STRIDE-th of the 2^32 floats from PHASE on (STRIDE 1 is exhaustive; about
 * three minutes a set), in the order of their values, and prints the largest error in ulp.
 * Exit status 1 if a bound or a property fails: error, NaN, exactness at 0 and +-infinity,
 * tanh odd, both monotone. Neighbours are compared only at STRIDE 1; a stride compares
 * the floats that it takes. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/src/cpu.h"
#include "../../csrc/src/kernels/kernels.h"

#define BATCH 4096
#define TANH_ULP 1.5
#define SIGMOID_ULP 2.0

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double ulp(double exact)
{
    int e;
    if (exact == 0) return 0x1p-149;
    frexp(exact, &e);
    return ldexp(1.0, e - 24 < -149 ? -149 : e - 24);
}

static double exact_sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

static int failures;
static void fail(const char *what, float x, float y)
{
    if (failures++ < 10) printf("FAIL %s: f(%a) = %a\n", what, x, y);
}

/* The floats in ascending order: -inf ... -0 +0 ... +inf, then the NaNs of both signs. */
static uint32_t nth(uint64_t i)
{
    const uint64_t finite = 0x7f800001u; /* +0 ... +inf */
    if (i < finite) return (uint32_t)(0xff800000u - i);
    if (i < 2 * finite) return (uint32_t)(i - finite);
    i -= 2 * finite;
    return i < 0x7fffff ? (uint32_t)(0x7f800001u + i) : (uint32_t)(0xff800001u + (i - 0x7fffff));
}

static double sweep(const struct kernels *k, enum map_kind kind, uint64_t stride, uint64_t phase)
{
    static float x[BATCH], y[BATCH], minus[BATCH], odd[BATCH];
    const float none[2] = {0, 0};
    double worst = 0;
    float at = 0, last = -2;
    for (uint64_t i = phase; i < (1ull << 32); i += BATCH * stride) {
        for (int j = 0; j < BATCH; j++) {
            const uint64_t n = i + j * stride;
            x[j] = float_of(nth(n < (1ull << 32) ? n : (1ull << 32) - 1));
            minus[j] = -x[j];
        }
        k->map(kind, BATCH, x, y, NULL, NULL, none);
        if (kind == MAP_TANH) k->map(kind, BATCH, minus, odd, NULL, NULL, none);
        for (int j = 0; j < BATCH; j++) {
            if (isnan(x[j])) {
                if (!isnan(y[j])) fail("NaN lost", x[j], y[j]);
                continue;
            }
            const double exact = kind == MAP_TANH ? tanh(x[j]) : exact_sigmoid(x[j]);
            const double error = fabs(y[j] - exact) / ulp(exact);
            if (!(error <= worst)) worst = error, at = x[j];
            if (y[j] < last) fail("not monotone", x[j], y[j]);
            last = y[j];
            if (kind == MAP_TANH && memcmp(&(float){-odd[j]}, &y[j], 4))
                fail("not odd", x[j], y[j]);
        }
    }
    printf("%s %s: %.4f ulp at %a\n", k->name, kind == MAP_TANH ? "tanh" : "sigmoid", worst, at);
    const float special[UNITS] = {0.0f, -0.0f, INFINITY, -INFINITY};
    k->map(kind, UNITS, special, y, NULL, NULL, none);
    const float tanh_of[4] = {0.0f, -0.0f, 1.0f, -1.0f}, sigmoid_of[4] = {0.5f, 0.5f, 1.0f, 0.0f};
    if (memcmp(y, kind == MAP_TANH ? tanh_of : sigmoid_of, sizeof tanh_of))
        fail("not exact at 0 or infinity", y[0], y[2]);
    return worst;
}

int main(int argc, char **argv)
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
    if (argc < 3) return fprintf(stderr, "usage: sweep_activations KERNEL STRIDE [PHASE]\n"), 2;
    const uint64_t stride = strtoull(argv[2], NULL, 10),
                   phase = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(sets[i]->name, argv[1])) continue;
        if (!clstm_cpu_has(sets[i]->needs))
            return printf("%s: not run, no such CPU\n", argv[1]), 77;
        if (sweep(sets[i], MAP_TANH, stride, phase) > TANH_ULP) failures++;
        if (sweep(sets[i], MAP_SIGMOID, stride, phase) > SIGMOID_ULP) failures++;
        return failures != 0;
    }
    return fprintf(stderr, "no kernel set %s\n", argv[1]), 2;
}
