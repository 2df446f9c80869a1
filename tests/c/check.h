// SPDX-License-Identifier: MIT
/* What the test programs share: counting, random numbers, guarded buffers, files. No libm
 * and no float arithmetic that rounds: the programs must give the same inputs everywhere. */
#ifndef CHECK_H
#define CHECK_H

#undef malloc /* check_memory.c makes those of csrc/ fail, never the tests' own */
#undef free

#include <stddef.h>
#include <stdint.h>

/* ---- counting --------------------------------------------------------------------- */

extern long n_passed, n_failed;

/* Counts; prints the sentence of the first failures. Returns ok. */
int check(int ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "what: N passed, N failed", and the exit status of main. */
int check_report(const char *what);

/* ---- random numbers --------------------------------------------------------------- */

struct rng {
    uint64_t state;
};
struct rng rng_seeded(uint64_t seed);
uint32_t rng_next(struct rng *r);
size_t rng_below(struct rng *r, size_t n);                     /* 0 ... n - 1             */
size_t rng_between(struct rng *r, size_t low, size_t high);    /* both included        */
float rng_unit(struct rng *r);                                 /* [-1, 1) by steps 2^-20  */
float rng_special(struct rng *r);                              /* NaN, inf, denormal, ... */
void rng_fill(struct rng *r, float *x, size_t n, float scale); /* scale a power of 2 */

/* ---- floats ----------------------------------------------------------------------- */

float float_of(uint32_t bits);
uint32_t bits_of(float x);                                     /* every NaN as 0x7fc00000 */
int same_bits(const float *a, const float *b, size_t n);       /* -0 is not +0 */
uint64_t hash_floats(uint64_t hash, const float *x, size_t n); /* FNV-1a over bits_of */
uint64_t hash_u64(uint64_t hash, uint64_t word);
#define HASH_START 0xcbf29ce484222325u

/* ---- guarded buffers -------------------------------------------------------------- */

/* n floats, `offset` floats past a cache line, with canaries before and behind; filled with
 * signalling junk (a NaN), so that what is read before it is written shows. */
float *guarded(size_t n, size_t offset);
/* Are all canaries whole? Frees all guarded buffers. */
int guards_whole(void);

/* ---- files ------------------------------------------------------------------------ */

void *read_file(const char *path, size_t *size); /* exits with 2 where it cannot */

/* A pack: .clstm images one after the other, each behind 64 bytes that begin with its size
 * and the least number of rows to drive it with, 8 bytes each. */
struct pack {
    unsigned char *data;
    size_t size, n;
};
struct pack pack_read(const char *path);
const unsigned char *pack_image(const struct pack *p, size_t i, size_t *size, size_t *rows);

#endif
