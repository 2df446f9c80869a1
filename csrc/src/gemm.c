// SPDX-License-Identifier: MIT
/* The only file that knows of a BLAS. It is found at run time and opened by its path with
 * its symbols kept to itself, so that nothing is linked, nothing is captured from another
 * copy in the process, and a model that does not ask pays nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_DEEPBIND */
#endif
#include "gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111 };

typedef void (*sgemm32)(int, int, int, int32_t, int32_t, int32_t, float, const float *, int32_t,
                        const float *, int32_t, float, float *, int32_t);
typedef void (*sgemm64)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t,
                        const float *, int64_t, float, float *, int64_t);

#if !defined(_WIN32)
static const struct {
    const char *sgemm, *set_threads;
    int wide;
} spellings[] = {
    {"scipy_cblas_sgemm64_", "scipy_openblas_set_num_threads64_", 1},
    {"cblas_sgemm64_", "openblas_set_num_threads64_", 1},
    {"cblas_sgemm_64", NULL, 1}, /* MKL */
    {"cblas_sgemm$NEWLAPACK$ILP64", NULL, 1},
    {"scipy_cblas_sgemm", "scipy_openblas_set_num_threads", 0},
    {"cblas_sgemm$NEWLAPACK", NULL, 0},
    {"cblas_sgemm", "openblas_set_num_threads", 0},
};

static const char *const system_places[] = {
#if defined(__APPLE__)
    "/System/Library/Frameworks/Accelerate.framework/Accelerate",
    "libopenblas.dylib",
#else
    "libopenblas.so.0", "libopenblas.so", "libcblas.so.3", "libblis.so.4", "libmkl_rt.so.2",
#endif
};

static int open_at(const char *path, struct blas *out)
{
    int flags = RTLD_NOW | RTLD_LOCAL;
#if defined(RTLD_DEEPBIND) && !defined(__SANITIZE_ADDRESS__)
    flags |= RTLD_DEEPBIND; /* or a copy that was loaded globally captures its insides */
#endif
    void *present = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    void *library = present ? present : dlopen(path, flags);
    if (!library) return 0;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        void *sgemm = dlsym(library, spellings[i].sgemm);
        if (!sgemm) continue;
        /* A library that the process already has keeps its threads: they are not ours. */
        if (!present && spellings[i].set_threads) {
            void (*set)(int);
            void *symbol = dlsym(library, spellings[i].set_threads);
            memcpy(&set, &symbol, sizeof set);
            if (set) set(1);
        }
        out->sgemm = sgemm;
        out->wide = spellings[i].wide;
        return 1; /* never closed again: its threads may outlive any model */
    }
    dlclose(library);
    return 0;
}
#endif

static int try_place(const char *path, size_t length, struct arena *memory, struct blas *out)
{
#if defined(_WIN32)
    (void)path, (void)length, (void)memory, (void)out;
    return 0;
#else
    char *copy = length ? clstm_arena_take(memory, length + 1) : NULL;
    if (!copy) return 0;
    memcpy(copy, path, length);
    if (!open_at(copy, out)) return 0;
    out->path = copy;
    return 1;
#endif
}

clstm_status clstm_blas_open(const clstm_options *opt, struct arena *memory, struct blas *out,
                             char *err)
{
    const char *word = opt->gemm;
    if (!word) word = getenv("CLSTM_GEMM");
    if (!word || !*word || !strcmp(word, "auto") || !strcmp(word, "packed")) return CLSTM_OK;
    if (strcmp(word, "blas"))
        return clstm_fail(err, CLSTM_BAD_ARGUMENT, "gemm \"%.32s\": expected auto, packed or blas",
                          word);
    const char *asked = getenv("CLSTM_BLAS");
    if (asked && *asked) { /* a path that was asked for is not silently another */
        if (try_place(asked, strlen(asked), memory, out)) return CLSTM_OK;
        return clstm_fail(err, CLSTM_UNSUPPORTED, "no CBLAS found; tried CLSTM_BLAS=%s", asked);
    }
    char tried[ERR_BYTES] = "";
    const char *line = opt->blas ? opt->blas : "";
    while (*line) {
        const size_t length = strcspn(line, "\n");
        if (try_place(line, length, memory, out)) return CLSTM_OK;
        snprintf(tried + strlen(tried), sizeof tried - strlen(tried), "%.*s ", (int)length, line);
        line += length + (line[length] == '\n');
    }
#if !defined(_WIN32)
    for (size_t i = 0; i < sizeof system_places / sizeof *system_places; i++) {
        if (try_place(system_places[i], strlen(system_places[i]), memory, out)) return CLSTM_OK;
        snprintf(tried + strlen(tried), sizeof tried - strlen(tried), "%s ", system_places[i]);
    }
#endif
    return clstm_fail(err, CLSTM_UNSUPPORTED, "no CBLAS found (set CLSTM_BLAS); tried %s", tried);
}

int clstm_blas_pack(struct arena *memory, const struct panels *p, struct blas_panels *out)
{
    const size_t width = p->n_gates * UNITS, n_k = p->n_x + p->n_h + p->n_c,
                 n = p->n_blocks * width;
    float *matrix = clstm_arena_take(memory, n_k * n * sizeof *matrix);
    if (!matrix) return 0;
    for (size_t b = 0; b < p->n_blocks; b++)
        for (size_t k = 0; k < n_k; k++)
            memcpy(matrix + k * n + b * width, p->weight + (b * n_k + k) * width,
                   width * sizeof *matrix);
    *out = (struct blas_panels){.n_columns = n, .x = matrix, .h = matrix + p->n_x * n};
    return 1;
}

void clstm_blas_product(const struct blas *blas, const float *matrix, size_t n_columns, size_t n_k,
                        size_t n, const float *x, size_t x_stride, struct values total)
{
    if (blas->wide) {
        sgemm64 f;
        memcpy(&f, &blas->sgemm, sizeof f);
        f(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, (int64_t)n, (int64_t)n_columns, (int64_t)n_k, 1.0f,
          x, (int64_t)x_stride, matrix, (int64_t)n_columns, 1.0f, total.at, (int64_t)total.stride);
    } else {
        sgemm32 f;
        memcpy(&f, &blas->sgemm, sizeof f);
        f(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, (int32_t)n, (int32_t)n_columns, (int32_t)n_k, 1.0f,
          x, (int32_t)x_stride, matrix, (int32_t)n_columns, 1.0f, total.at, (int32_t)total.stride);
    }
}
