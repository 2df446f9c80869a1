// SPDX-License-Identifier: MIT
/* Promise 1: sigmoid and tanh of one kernel set over float inputs, against double.
 *
 *     sweep_activations KERNEL [STRIDE [FIRST [COUNT]]]
 *
 * The 2^32 floats in the order of their values, then the NaNs; every STRIDE-th of the COUNT from
 * FIRST on (1, 0 and the rest). Prints a line for each function: how many floats, the largest
 * error in ulp, where. Exit status 1 if a bound or a property fails: error, NaN, exactness at 0
 * and +-infinity, tanh odd, both monotone from one float that is taken to the next, the one
 * before FIRST included: parts of a sweep prove what the whole would.
 * tests/native/sweep.py runs it in parts, on several cores, and can be resumed. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../csrc/src/cpu.h"
#include "../../csrc/src/kernels/kernels.h"
#include "tolerances.h"

/* Written so that a compiler makes vectors of it, for each CPU its own: constant trip counts,
 * no calls, no branches, maxima of integers. A sweep is ten times as fast as with libm. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif
#if defined(__x86_64__) && defined(__gnu_linux__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#define BATCH 1024

#define FLOATS ((uint64_t)1 << 32)
#define FINITE 0x7f800001u /* +0 ... +inf */

static float x[BATCH], minus[BATCH], odd[BATCH];
static float y_from[1 + BATCH], *const y = y_from + 1; /* the y before the first stands in front */
static double exact[BATCH];
static int64_t error[BATCH]; /* the bits of doubles: positive ones are in the same order */

static int failures;
static void fail(const char *what, float at, float value)
{
    if (failures++ < 10) printf("FAIL %s: f(%a) = %a\n", what, (double)at, (double)value);
}

static inline float float_of(uint32_t bits)
{
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline double double_of(int64_t bits)
{
    double a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline int64_t bits_of(double a)
{
    int64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

/* -inf ... -0 +0 ... +inf, then the NaNs of both signs. */
static inline uint32_t nth(uint32_t i)
{
    const uint32_t nan = i - 2 * FINITE;
    const uint32_t past = nan < 0x7fffff ? 0x7f800001u + nan : 0xff800001u + (nan - 0x7fffff);
    return i < FINITE ? 0xff800000u - i : i < 2 * FINITE ? i - FINITE : past;
}

CLONES static void inputs(uint32_t first, uint32_t stride)
{
    for (uint32_t j = 0; j < BATCH; j++) {
        x[j] = float_of(nth(first + j * stride));
        minus[j] = -x[j];
    }
}

/* exp(a) = power (1 + t) for |a| <= 150, by a Taylor series to r^14: what is left out is below
 * 2^-58 of t. ln 2 in two parts, the first of 32 bits, so that k times it is exact. */
static inline double exp_parts(double a, double *power)
{
    const double magic = 0x1.8p52, shifted = a * 0x1.71547652b82fep0 + magic, k = shifted - magic;
    const double r = (a - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    *power = double_of((int64_t)((uint64_t)(bits_of(shifted) + 1023) << 52));
    double sum = 1.0 / 87178291200;
    sum = sum * r + 1.0 / 6227020800;
    sum = sum * r + 1.0 / 479001600;
    sum = sum * r + 1.0 / 39916800;
    sum = sum * r + 1.0 / 3628800;
    sum = sum * r + 1.0 / 362880;
    sum = sum * r + 1.0 / 40320;
    sum = sum * r + 1.0 / 5040;
    sum = sum * r + 1.0 / 720;
    sum = sum * r + 1.0 / 120;
    sum = sum * r + 1.0 / 24;
    sum = sum * r + 1.0 / 6;
    sum = sum * r + 0.5;
    return r + r * r * sum;
}

CLONES static void exact_tanh(void) /* E / (E + 2), E = exp(2|x|) - 1 */
{
    for (int j = 0; j < BATCH; j++) {
        const double a = fabs((double)x[j]), two = a < 25 ? 2 * a : 50;
        double power;
        const double t = exp_parts(two, &power), e = power * t + (power - 1);
        exact[j] = copysign(e / (e + 2), (double)x[j]);
    }
}

CLONES static void exact_sigmoid(void) /* 1 / (1 + e) or e / (1 + e), e = exp(-|x|) */
{
    for (int j = 0; j < BATCH; j++) {
        const double a = fabs((double)x[j]), least = a < 150 ? a : 150;
        double power;
        const double t = exp_parts(-least, &power), e = power * t + power;
        const double below = a > 150 ? 0 : e;
        exact[j] = (x[j] < 0 ? below : 1) / (1 + e);
    }
}

/* The errors in ulp of the exact value's binade, 2^-24 just below 1, at least 2^-149; returns the
 * largest, or a NaN, as bits. */
CLONES static int64_t errors(void)
{
    int64_t most = 0;
    for (int j = 0; j < BATCH; j++) {
        int64_t exponent = ((bits_of(exact[j]) >> 52) & 0x7ff) - 1023;
        exponent = exponent > -1 ? -1 : exponent < -126 ? -126 : exponent;
        const double per_ulp = double_of((int64_t)((uint64_t)(1023 + 23 - exponent) << 52));
        error[j] = bits_of(fabs((double)y[j] - exact[j]) * per_ulp);
        most = error[j] > most ? error[j] : most;
    }
    return most;
}

CLONES static int falls(void)
{
    int found = 0;
    for (int j = 0; j < BATCH; j++) found |= y[j] < y[j - 1];
    return found;
}

CLONES static int not_odd(void)
{
    uint32_t found = 0;
    for (int j = 0; j < BATCH; j++) {
        uint32_t a, b;
        memcpy(&a, &y[j], sizeof a);
        memcpy(&b, &odd[j], sizeof b);
        found |= a ^ b ^ 0x80000000u;
    }
    return found != 0;
}

/* The reference above against libm's, at one float. */
static void compare(enum map_kind kind, int j)
{
    const double a = (double)x[j], e = exp(-fabs(a));
    const double other = kind == MAP_TANH ? tanh(a) : (a < 0 ? e : 1) / (1 + e);
    if (!(fabs(exact[j] - other) <= REFERENCE * fabs(other))) {
        if (kind == MAP_SIGMOID && a < -150 && exact[j] == 0) return;
        fail("the reference is not libm's", x[j], (float)exact[j]);
    }
}

struct sweep {
    const struct kernels *k;
    enum map_kind kind;
    uint64_t n;
    double worst;
    float at;
};

static void numbers(struct sweep *s) /* one batch without NaNs */
{
    if (s->kind == MAP_TANH) exact_tanh();
    else exact_sigmoid();
    compare(s->kind, 0);
    const double most = double_of(errors());
    if (!(most <= s->worst)) {
        s->worst = most;
        for (int j = 0; j < BATCH; j++)
            if (error[j] == bits_of(most)) {
                s->at = x[j];
                compare(s->kind, j);
                break;
            }
    }
    for (int j = 0; falls() && j < BATCH; j++)
        if (y[j] < y[j - 1]) {
            fail("not monotone", x[j], y[j]);
            break;
        }
    for (int j = 0; s->kind == MAP_TANH && not_odd() && j < BATCH; j++)
        if (memcmp(&(float){-odd[j]}, &y[j], sizeof y[j])) {
            fail("not odd", x[j], y[j]);
            break;
        }
    y_from[0] = y[BATCH - 1];
}

static void sweep(struct sweep *s, uint64_t stride, uint64_t first, uint64_t count)
{
    const float none[2] = {0, 0};
    const uint64_t end = count < FLOATS - first ? first + count : FLOATS;
    y_from[0] = -2;
    if (first >= stride) {
        float before[UNITS] = {float_of(nth((uint32_t)(first - stride)))}, value[UNITS];
        s->k->map(s->kind, UNITS, before, value, NULL, NULL, none);
        y_from[0] = value[0];
    }
    for (uint64_t i = first; i < end; i += BATCH * stride) {
        const uint64_t left = (end - i + stride - 1) / stride;
        const int n = left < BATCH ? (int)left : BATCH;
        inputs((uint32_t)i, (uint32_t)stride);
        for (int j = n; j < BATCH; j++) x[j] = x[n - 1], minus[j] = minus[n - 1];
        s->n += (uint64_t)n;
        s->k->map(s->kind, BATCH, x, y, NULL, NULL, none);
        if (s->kind == MAP_TANH) s->k->map(s->kind, BATCH, minus, odd, NULL, NULL, none);
        const uint64_t numeric = i < 2ull * FINITE ? (2ull * FINITE - i + stride - 1) / stride : 0;
        for (int j = (int)(numeric < BATCH ? numeric : BATCH); j < BATCH; j++) {
            if (!isnan(y[j])) fail("NaN lost", x[j], y[j]);
            x[j] = INFINITY, y[j] = 1, odd[j] = -1; /* as the numbers end */
        }
        if (numeric) numbers(s);
    }
    const float special[UNITS] = {0.0f, -0.0f, INFINITY, -INFINITY};
    const float tanh_of[4] = {0.0f, -0.0f, 1.0f, -1.0f}, sigmoid_of[4] = {0.5f, 0.5f, 1.0f, 0.0f};
    s->k->map(s->kind, UNITS, special, y, NULL, NULL, none);
    if (memcmp(y, s->kind == MAP_TANH ? tanh_of : sigmoid_of, sizeof tanh_of))
        fail("not exact at 0 or infinity", y[0], y[2]);
    const double limit = s->kind == MAP_TANH ? TANH_ULPS : SIGMOID_ULPS;
    if (!(s->worst + REFERENCE * 0x1p24 <= limit)) fail("error", s->at, 0);
    printf("%s %s: %llu floats, %.6f ulp at %a\n", s->k->name,
           s->kind == MAP_TANH ? "tanh" : "sigmoid", (unsigned long long)s->n, s->worst,
           (double)s->at);
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
    uint64_t range[3] = {1, 0, FLOATS}; /* stride, first, count */
    for (int i = 2; i < argc && i < 5; i++) range[i - 2] = strtoull(argv[i], NULL, 10);
    if (argc < 2 || argc > 5 || !range[0] || range[0] > FLOATS / BATCH || range[1] >= FLOATS)
        return fprintf(stderr, "usage: sweep_activations KERNEL [STRIDE [FIRST [COUNT]]]\n"), 2;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(sets[i]->name, argv[1])) continue;
        if (!clstm_cpu_has(sets[i]->needs))
            return printf("%s: not run, no such CPU\n", argv[1]), 77;
        for (enum map_kind kind = MAP_TANH; kind <= MAP_SIGMOID; kind++) {
            struct sweep one = {sets[i], kind, 0, 0, 0};
            sweep(&one, range[0], range[1], range[2]);
        }
        printf("%.2f s of CPU\n", (double)clock() / CLOCKS_PER_SEC);
        return failures != 0;
    }
    return fprintf(stderr, "no kernel set %s\n", argv[1]), 2;
}
