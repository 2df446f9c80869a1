// SPDX-License-Identifier: MIT
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)0)
#endif

#define SHOWN 20    /* failures that get a line */
#define ENOUGH 1000 /* and then it is known */

long n_passed, n_failed;

int check(int ok, const char *format, ...)
{
    if (ok) n_passed++;
    else if (n_failed++ < SHOWN) {
        va_list args;
        va_start(args, format);
        printf("FAIL ");
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
    if (n_failed >= ENOUGH) exit(check_report("given up"));
    return ok;
}

int check_report(const char *what)
{
    printf("%s: %ld passed, %ld failed\n", what, n_passed, n_failed);
    return n_failed || !n_passed;
}

struct rng rng_seeded(uint64_t seed)
{
    struct rng r = {seed * 0x9e3779b97f4a7c15u + 1};
    for (int i = 0; i < 4; i++) rng_next(&r);
    return r;
}

uint32_t rng_next(struct rng *r)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t x = r->state ^ r->state >> 29;
    return (uint32_t)((x * 0xbf58476d1ce4e5b9u) >> 32);
}

size_t rng_below(struct rng *r, size_t n) { return (size_t)((rng_next(r) * (uint64_t)n) >> 32); }

size_t rng_between(struct rng *r, size_t low, size_t high)
{
    return low + rng_below(r, high - low + 1);
}

float rng_unit(struct rng *r)
{
    return (float)((int32_t)(rng_next(r) >> 11) - (1 << 20)) * 0x1p-20f;
}

float rng_special(struct rng *r)
{
    static const uint32_t special[] = {
        0x7fc00000, 0xffc00001, 0x7f800000, 0xff800000, 0x00000000, 0x80000000, 0x00000001,
        0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x0d800000, 0x0d7fffff,
        0x8d7fffff, 0x3f800000, 0xbf800000, 0x42b00000, 0xc2b00000, 0x42d00000, 0xc2d00000};
    return float_of(special[rng_below(r, sizeof special / sizeof *special)]);
}

void rng_fill(struct rng *r, float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) x[i] = rng_unit(r) * scale;
}

float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : bits;
}

int same_bits(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bits_of(a[i]) != bits_of(b[i])) return 0;
    return 1;
}

static uint64_t hash_bytes(uint64_t hash, uint64_t word, int n_bits)
{
    for (int shift = 0; shift < n_bits; shift += 8)
        hash = (hash ^ (word >> shift & 255)) * 0x100000001b3u;
    return hash;
}

uint64_t hash_u64(uint64_t hash, uint64_t word) { return hash_bytes(hash, word, 64); }

uint64_t hash_floats(uint64_t hash, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = hash_bytes(hash, bits_of(x[i]), 32);
    return hash;
}

/* ---- guarded buffers -------------------------------------------------------------- */

#define GUARD 64 /* floats on each side: a vector or four past the end is seen */
#define CANARY 0x7fbadbadu
#define JUNK 0x7fa00001u

struct guard {
    struct guard *next;
    uint32_t *begin, *inside;
    size_t n;
};
static struct guard *guards;

float *guarded(size_t n, size_t offset)
{
    struct guard *g = malloc(sizeof *g);
    g->begin = malloc((n + 2 * GUARD + 32 + offset) * sizeof *g->begin);
    const uintptr_t line = ((uintptr_t)(g->begin + GUARD) + 63) / 64 * 64;
    g->inside = (uint32_t *)line + offset;
    g->n = n;
    g->next = guards;
    guards = g;
    for (size_t i = 0; i < GUARD; i++) g->inside[-(ptrdiff_t)i - 1] = g->inside[n + i] = CANARY;
    for (size_t i = 0; i < n; i++) g->inside[i] = JUNK;
    ASAN_POISON_MEMORY_REGION(g->inside - GUARD, GUARD * sizeof *g->inside); /* reads show too */
    ASAN_POISON_MEMORY_REGION(g->inside + n, GUARD * sizeof *g->inside);
    return (float *)(void *)g->inside;
}

int guards_whole(void)
{
    int whole = 1;
    while (guards) {
        struct guard *g = guards;
        guards = g->next;
        ASAN_UNPOISON_MEMORY_REGION(g->inside - GUARD, (g->n + 2 * GUARD) * sizeof *g->inside);
        for (size_t i = 0; i < GUARD; i++)
            whole &= g->inside[-(ptrdiff_t)i - 1] == CANARY && g->inside[g->n + i] == CANARY;
        free(g->begin);
        free(g);
    }
    return whole;
}

/* ---- files ------------------------------------------------------------------------ */

void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*size + 1);
    if (fread(data, 1, *size, file) != *size) {
        perror(path);
        exit(2);
    }
    fclose(file);
    return data;
}

struct pack pack_read(const char *path)
{
    struct pack p = {0};
    p.data = read_file(path, &p.size);
    for (size_t at = 0; at < p.size; p.n++) {
        uint64_t bytes;
        memcpy(&bytes, p.data + at, sizeof bytes);
        at += 64 + bytes;
    }
    return p;
}

const unsigned char *pack_image(const struct pack *p, size_t i, size_t *size, size_t *rows)
{
    size_t at = 0;
    for (;;) {
        uint64_t words[2];
        memcpy(words, p->data + at, sizeof words);
        at += 64;
        if (i-- == 0) {
            *size = (size_t)words[0];
            *rows = (size_t)words[1];
            return p->data + at;
        }
        at += (size_t)words[0];
    }
}
