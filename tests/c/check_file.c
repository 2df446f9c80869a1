// SPDX-License-Identifier: MIT
/* Any bytes at all give a model or an error with a sentence; to be built with sanitizers.
 *
 *     check_file PACK MUTATIONS
 *
 * Each image is cut at every length; each of its bytes is changed in several ways, with the
 * checksum made right again, so that the checks behind it are reached; then MUTATIONS of its
 * records are changed at random. A model that loads is run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clstm.h"
#include "hostile.h"

static long n_loaded;

/* From memory of the very size, so that a sanitizer sees any read past it; at an odd address
 * every other time. */
static clstm_status load(const unsigned char *image, size_t size, const char *what, size_t at)
{
    char err[256] = "";
    clstm_model *model = NULL;
    const size_t odd = at % 2;
    unsigned char *copy = malloc(size + odd);
    memcpy(copy + odd, image, size);
    const clstm_status status = clstm_model_load_memory(copy + odd, size, NULL, &model, err);
    memset(copy, 0xa5, size + odd); /* nothing of it may be kept */
    free(copy);
    check((status == CLSTM_OK) == (model != NULL), "%s at %zu: status %d and model %p", what, at,
          status, (void *)model);
    check(status == CLSTM_OK || (*err && memchr(err, 0, sizeof err)), "%s at %zu: no sentence",
          what, at);
    if (model) {
        n_loaded++;
        check(use(model), "%s at %zu: a model that loaded does not run", what, at);
    }
    clstm_model_free(model);
    return status;
}

static void check_cuts(const unsigned char *image, size_t size)
{
    for (size_t n = 0; n < size; n++)
        check(load(image, n, "cut", n) == CLSTM_BAD_FILE, "cut at %zu of %zu: loads", n, size);
    unsigned char *longer = calloc(1, size + 64);
    memcpy(longer, image, size);
    for (size_t n = 1; n <= 64; n++)
        check(load(longer, size + n, "extended", n) == CLSTM_BAD_FILE, "%zu more bytes: loads", n);
    free(longer);
}

static void check_flips(const unsigned char *image, size_t size)
{
    static const unsigned char masks[] = {1, 2, 0x10, 0x80, 0xff};
    unsigned char *changed = malloc(size);
    for (size_t at = 0; at < size; at++)
        for (size_t m = 0; m < sizeof masks; m++) {
            memcpy(changed, image, size);
            changed[at] ^= masks[m];
            check(load(changed, size, "flip", at) == CLSTM_BAD_FILE,
                  "byte %zu changed, no one sees it", at);
            if (at >= CRC_AT && at < CRC_AT + 4) continue;
            seal(changed, size);
            load(changed, size, "sealed flip", at);
        }
    free(changed);
}

/* A 32-bit word at `at` becomes something that sizes and offsets go wrong with. */
static void spoil(unsigned char *image, size_t at, struct rng *r)
{
    static const uint32_t words[] = {0,  1,   2,          3,          4,         16,
                                     64, 255, 0x7fffffff, 0x80000000, 0xffffffff};
    uint32_t word;
    memcpy(&word, image + at, 4);
    switch (rng_below(r, 4)) {
    case 0: word = words[rng_below(r, sizeof words / sizeof *words)]; break;
    case 1: word += (uint32_t)rng_between(r, 0, 4) - 2; break;
    case 2: word = rng_next(r); break;
    default: word ^= 1u << rng_below(r, 32); break;
    }
    memcpy(image + at, &word, 4);
}

/* Every word of the value at `at` in the header and the layers becomes another, so that sizes
 * that must agree still do. */
static void spoil_alike(unsigned char *image, size_t end, size_t at, struct rng *r)
{
    unsigned char before[4];
    memcpy(before, image + at, 4);
    spoil(image, at, r);
    for (size_t i = 0; i < end; i += 4)
        if (!memcmp(image + i, before, 4)) memcpy(image + i, image + at, 4);
}

/* A shape of as many numbers, so that it is named in a sentence, and where that name is. */
static void spoil_shape_and_name(unsigned char *record, struct rng *r)
{
    unsigned char rows[4];
    memcpy(rows, record + 24, 4);
    memcpy(record + 24, record + 28, 4);
    memcpy(record + 28, rows, 4);
    spoil(record, 40, r);
}

/* A certificate that is not met. */
static void check_certificate(const unsigned char *image, size_t size)
{
    const size_t n_ops = image[24], n_tensors = image[28], n_check = image[40];
    if (!n_check) return;
    uint64_t y_at;
    memcpy(&y_at, image + 64 + n_ops * 128 + (n_tensors - 1) * 64, sizeof y_at);
    unsigned char *changed = malloc(size);
    memcpy(changed, image, size);
    changed[y_at + 2] ^= 0x20;
    seal(changed, size);
    check(load(changed, size, "certificate", 0) == CLSTM_BAD_FILE, "a wrong certificate is met");
    free(changed);
}

static void check_mutations(const unsigned char *image, size_t size, size_t count, struct rng *r)
{
    const size_t n_ops = image[24], n_tensors = image[28]; /* small images: one byte says it */
    const size_t records = 64 + n_ops * 128 + n_tensors * 64;
    unsigned char *changed = malloc(size);
    for (size_t i = 0; i < count; i++) {
        memcpy(changed, image, size);
        for (size_t n = rng_between(r, 1, 4); n; n--) {
            const size_t a = rng_below(r, records / 4) * 4, b = rng_below(r, records / 4) * 4;
            const size_t first = 64 + n_ops * 128,
                         tensor = first + rng_below(r, n_tensors + 1) * 64;
            switch (rng_below(r, 6)) {
            case 0: memcpy(changed + a, changed + b, 4); break; /* a number that fits elsewhere */
            case 1: spoil_alike(changed, first, 64 + rng_below(r, n_ops * 32) * 4, r); break;
            case 2: spoil_alike(changed, first, 36, r); break; /* the input size */
            case 3:
                if (tensor < records) spoil_shape_and_name(changed + tensor, r);
                break;
            default: spoil(changed, a, r);
            }
        }
        seal(changed, size);
        load(changed, size, "mutation", i);
    }
    free(changed);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: check_file PACK MUTATIONS\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    struct rng r = rng_seeded(3);
    for (size_t i = 0; i < pack.n; i++) {
        size_t size, rows;
        const unsigned char *image = pack_image(&pack, i, &size, &rows);
        check(load(image, size, "sound", 0) == CLSTM_OK, "image %zu does not load", i);
        check_cuts(image, size);
        check_flips(image, size);
        check_certificate(image, size);
        check_mutations(image, size, strtoull(argv[2], NULL, 10), &r);
    }
    printf("%zu images, %ld of the changed ones load\n", pack.n, n_loaded);
    free(pack.data);
    return check_report("check_file");
}
