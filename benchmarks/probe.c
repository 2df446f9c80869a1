// SPDX-License-Identifier: MIT
/* What this core can do, measured: its clock, its rate of fused multiply-adds, the bandwidth at
 * which it reads a buffer over and over. A library that harness/probe.py builds and calls.
 * Every figure is the fastest of several tries or forms: a limit that is measured too low would
 * flatter what is compared with it. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/mman.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define FORMS 3

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Additions that wait for each other take one cycle each. Two registers: an immediate is folded
 * away by some CPUs. */
double probe_clock_ghz(void)
{
    const long rounds = 20000;
    double best = 1e30;
    for (int try = 0; try < 5; try++) {
        uint64_t a = 1, one = 1;
        const double start = now();
#if defined(__x86_64__)
#define ADD "add %1, %0\n\t"
#elif defined(__aarch64__)
#define ADD "add %0, %0, %1\n\t"
#endif
#if defined(ADD)
#define ADD_10 ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD
        for (long i = 0; i < rounds; i++)
            __asm__ volatile(ADD_10 ADD_10 ADD_10 ADD_10 ADD_10 : "+r"(a) : "r"(one));
#endif
        const double took = now() - start;
        if (took < best) best = took;
    }
    return (double)rounds * 50 / best;
}

void *probe_buffer(size_t bytes)
{
    const size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
    char *raw = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    char *at = raw + (HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE) % HUGE_PAGE;
#if defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE / 2)
        madvise(at, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    memset(at, 1, bytes);
    return at; /* never given back: a few a run */
}

#if defined(__x86_64__)
/* FMA instructions with 12 independent totals. */
#define FMA_LOOP(NAME, TARGET, V, SET, FMA, ADD_, STORE, LANES)                                    \
    __attribute__((target(TARGET))) static double NAME(void)                                       \
    {                                                                                              \
        const long rounds = 20000;                                                                 \
        double best = 1e30;                                                                        \
        static volatile float sink;                                                                \
        for (int try = 0; try < 8; try++) {                                                        \
            V a = SET(0.999f), b = SET(1e-6f);                                                     \
            V s0 = b, s1 = b, s2 = b, s3 = b, s4 = b, s5 = b, s6 = b, s7 = b, s8 = b, s9 = b;      \
            V s10 = b, s11 = b;                                                                    \
            const double start = now();                                                            \
            for (long i = 0; i < rounds; i++) {                                                    \
                s0 = FMA(s0, a, b), s1 = FMA(s1, a, b), s2 = FMA(s2, a, b);                        \
                s3 = FMA(s3, a, b), s4 = FMA(s4, a, b), s5 = FMA(s5, a, b);                        \
                s6 = FMA(s6, a, b), s7 = FMA(s7, a, b), s8 = FMA(s8, a, b);                        \
                s9 = FMA(s9, a, b), s10 = FMA(s10, a, b), s11 = FMA(s11, a, b);                    \
                /* Equal chains are one to the compiler, were they not hidden here. */             \
                __asm__ volatile(""                                                                \
                                 : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "+x"(s4), "+x"(s5),     \
                                   "+x"(s6), "+x"(s7), "+x"(s8), "+x"(s9), "+x"(s10), "+x"(s11));  \
            }                                                                                      \
            const double took = now() - start;                                                     \
            s0 = ADD_(ADD_(ADD_(s0, s1), ADD_(s2, s3)), ADD_(ADD_(s4, s5), ADD_(s6, s7)));         \
            s0 = ADD_(s0, ADD_(ADD_(s8, s9), ADD_(s10, s11)));                                     \
            float out[LANES];                                                                      \
            STORE(out, s0);                                                                        \
            sink = out[0];                                                                         \
            if (took < best) best = took;                                                          \
        }                                                                                          \
        return (double)rounds * 12 * LANES * 2 / best;                                             \
    }
FMA_LOOP(fma_512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps,
         _mm512_storeu_ps, 16)
FMA_LOOP(fma_256, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps,
         _mm256_storeu_ps, 8)

/* One pass over n bytes, whole rounds of 8 vectors. Or-ing takes a cycle, so that only the loads
 * decide. `quarters`: four quarters side by side, as the kernels read four blocks. Otherwise in
 * order, or from the last round to the first. */
#define READ_LOOP(NAME, TARGET, V, ZERO, LOAD, OR, STORE, BYTES)                                   \
    __attribute__((target(TARGET))) static uint64_t NAME(const char *p, size_t n, int quarters,    \
                                                         int backward)                             \
    {                                                                                              \
        V s0 = ZERO(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;              \
        const size_t rounds = n / (8 * BYTES), apart = quarters ? n / 4 : 2 * BYTES;               \
        const size_t ahead = quarters ? 2 * BYTES : 8 * BYTES;                                     \
        const char *at = backward ? p + (rounds - 1) * ahead : p;                                  \
        for (size_t i = 0; i < rounds; i++) {                                                      \
            const char *q = at, *r = at + 2 * apart;                                               \
            s0 = OR(s0, LOAD((void *)q)), s1 = OR(s1, LOAD((void *)(q + BYTES)));                  \
            s2 = OR(s2, LOAD((void *)(q + apart)));                                                \
            s3 = OR(s3, LOAD((void *)(q + apart + BYTES)));                                        \
            s4 = OR(s4, LOAD((void *)r)), s5 = OR(s5, LOAD((void *)(r + BYTES)));                  \
            s6 = OR(s6, LOAD((void *)(r + apart)));                                                \
            s7 = OR(s7, LOAD((void *)(r + apart + BYTES)));                                        \
            at = backward ? at - ahead : at + ahead;                                               \
        }                                                                                          \
        s0 = OR(OR(OR(s0, s1), OR(s2, s3)), OR(OR(s4, s5), OR(s6, s7)));                           \
        uint64_t out[BYTES / 8];                                                                   \
        STORE((void *)out, s0);                                                                    \
        return out[0];                                                                             \
    }
READ_LOOP(read_512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_load_si512, _mm512_or_si512,
          _mm512_storeu_si512, 64)
READ_LOOP(read_256, "avx2", __m256i, _mm256_setzero_si256, _mm256_load_si256, _mm256_or_si256,
          _mm256_storeu_si256, 32)

double probe_gflops(int width) { return width == 512 ? fma_512() : fma_256(); }
#else
double probe_gflops(int width) { return (void)width, 0; }
#endif

/* By the compiler: SSE or NEON, four streams of whole words. */
static uint64_t read_plain(const char *p, size_t n)
{
    const uint64_t *w = (const uint64_t *)(const void *)p;
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n / 8; i += 4)
        s0 |= w[i], s1 |= w[i + 1], s2 |= w[i + 2], s3 |= w[i + 3];
    return s0 | s1 | s2 | s3;
}

/* Form 0: in order. Form 1: four quarters side by side. Form 2: to and fro, so that a pass begins
 * with what the last one left in the cache. */
static uint64_t read_once(const char *p, size_t n, int width, int form)
{
    static __thread int backward;
    backward = form == 2 && !backward;
#if defined(__x86_64__)
    if (width == 512) return read_512(p, n, form == 1, backward);
    if (width == 256) return read_256(p, n, form == 1, backward);
#endif
    return (void)width, read_plain(p, n);
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* GB/s of one form: the median of 21 groups of passes, each long enough for the clock, behind two
 * passes that bring the buffer into its cache. */
double probe_read_gbs(const char *p, size_t bytes, int width, int form)
{
    static volatile uint64_t sink;
    const size_t n = bytes / 2048 * 2048; /* what every form divides into */
    double group[21];
    if (!n) return 0;
    size_t passes = 4000000 / n + 1; /* 20 to 100 us */
    if (n > 1000000) passes = 1;
    for (int i = -2; i < 21; i++) {
        const double start = now();
        for (size_t k = 0; k < passes; k++) sink = read_once(p, n, width, form);
        if (i >= 0) group[i] = (now() - start) / (double)passes;
    }
    qsort(group, 21, sizeof *group, by_value);
    return (double)n / group[10];
}

int probe_forms(void) { return FORMS; }
