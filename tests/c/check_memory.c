// SPDX-License-Identifier: MIT
/* What happens when there is no memory, and what wrong arguments are told.
 *
 *     check_memory PACK FILE
 *
 * csrc is built with -Dmalloc=check_malloc -Dfree=check_free, so the N-th request can fail:
 * for every N each function must say CLSTM_NO_MEMORY, write no result and leak nothing. */
#include "check.h" /* before any other: it takes the two names back */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clstm.h"

void *check_malloc(size_t n);
void check_free(void *memory);

static long n_requests, fail_at, n_live;

void *check_malloc(size_t n)
{
    void *memory = ++n_requests == fail_at ? NULL : malloc(n);
    n_live += memory != NULL;
    return memory;
}

void check_free(void *memory)
{
    n_live -= memory != NULL;
    free(memory);
}

static void begin(long n)
{
    n_requests = 0;
    fail_at = n;
}

/* Did the call run out of memory, as it should if it made fail_at requests? */
static int judge(const char *what, clstm_status status, const void *result, long live)
{
    const int failed = n_requests >= fail_at;
    check(status == (failed ? CLSTM_NO_MEMORY : CLSTM_OK), "%s: status %d at request %ld", what,
          status, fail_at);
    if (failed) {
        check(!result, "%s: a result in spite of request %ld", what, fail_at);
        check(n_live == live, "%s: %ld blocks leak at request %ld", what, n_live - live, fail_at);
    }
    return failed;
}

static void check_load(const unsigned char *image, size_t size, size_t odd)
{
    unsigned char *copy = malloc(size + odd);
    memcpy(copy + odd, image, size);
    for (long n = 1;; n++) {
        char err[256] = "";
        clstm_model *model = NULL;
        begin(n);
        const clstm_status status = clstm_model_load_memory(copy + odd, size, NULL, &model, err);
        const int failed = judge("load", status, model, 0);
        check(!failed || strstr(err, "memory"), "load: \"%s\" at request %ld", err, n);
        clstm_model_free(model);
        check(n_live == 0, "load: %ld blocks left", n_live);
        if (!failed) break;
    }
    free(copy);
}

static void check_path(const char *path)
{
    for (long n = 1;; n++) {
        clstm_model *model = NULL;
        begin(n);
        const int failed =
            judge("load of a path", clstm_model_load(path, NULL, &model, NULL), model, 0);
        clstm_model_free(model);
        if (!failed) break;
    }
    check(n_live == 0, "load of a path: %ld blocks left", n_live);
}

static void check_use(const unsigned char *image, size_t size)
{
    clstm_model *model = NULL;
    begin(0);
    fail_at = -1;
    if (!check(clstm_model_load_memory(image, size, NULL, &model, NULL) == CLSTM_OK, "no model"))
        return;
    const long live = n_live;
    for (long n = 1; clstm_streamable(model); n++) {
        clstm_stream *s = NULL;
        begin(n);
        const int failed = judge("stream", clstm_stream_create(model, &s), s, live);
        clstm_stream_free(s);
        if (!failed) break;
    }
    const size_t n_in = clstm_input_size(model), n_out = clstm_output_size(model);
    float *x = calloc(6 * (n_in + 1), sizeof *x), *y = calloc(6 * n_out, sizeof *y);
    const int64_t tokens[6] = {0};
    clstm_batch b = {.n_steps = 3,
                     .n_batch = 2,
                     .x = n_in ? x : NULL,
                     .tokens = n_in ? NULL : tokens,
                     .y = y,
                     .x_batch = n_in ? n_in : 1,
                     .x_step = 2 * (n_in ? n_in : 1),
                     .y_batch = n_out,
                     .y_step = 2 * n_out};
    for (long n = 1;; n++) {
        begin(n);
        if (!judge("sequence", clstm_sequence(model, &b), NULL, live)) break;
    }
    check(n_live == live, "%ld blocks left after use", n_live - live);

    fail_at = -1; /* wrong arguments */
    size_t lengths[2] = {1, 4};
    b.lengths = lengths;
    check(clstm_sequence(model, &b) == CLSTM_BAD_ARGUMENT, "a length past n_steps");
    lengths[1] = 3;
    check(clstm_sequence(model, &b) == CLSTM_OK, "lengths that fit");
    b.y = NULL;
    check(clstm_sequence(model, &b) == CLSTM_BAD_ARGUMENT, "no y");
    b.y = y, b.x = NULL, b.tokens = NULL;
    check(clstm_sequence(model, &b) == CLSTM_BAD_ARGUMENT, "no x");
    b.n_steps = 0, b.lengths = NULL;
    check(clstm_sequence(model, &b) == CLSTM_OK, "no steps need no x");
    b.n_batch = 0;
    check(clstm_sequence(model, &b) == CLSTM_OK, "no batch");
    clstm_stream *s = NULL;
    const clstm_status expected = clstm_streamable(model) ? CLSTM_BAD_ARGUMENT : CLSTM_UNSUPPORTED;
    const size_t bytes = clstm_stream_bytes(model);
    char *memory = malloc(bytes);
    check(clstm_stream_init(memory, bytes - 1, model, &s) == expected && !s, "a byte too few");
    check(clstm_stream_init(NULL, bytes, model, &s) == expected && !s, "no memory given");
    check((clstm_stream_init(memory, bytes, model, &s) == CLSTM_OK) == (s != NULL),
          "the right size");
    clstm_stream_free(s); /* the caller's memory: frees nothing */
    if (!clstm_streamable(model))
        check(clstm_stream_create(model, &s) == CLSTM_UNSUPPORTED && !s, "a stream against time");
    check(n_live == live, "a stream in the caller's memory was freed");
    free(memory), free(x), free(y);
    clstm_model_free(model);
    check(n_live == 0, "%ld blocks left", n_live);
}

static void check_options(const unsigned char *image, size_t size)
{
    const clstm_options fine = {.size = sizeof fine};
    const struct {
        clstm_options options;
        clstm_status expected;
    } cases[] = {
        {fine, CLSTM_OK},
        {{.size = sizeof fine,
          .kernel = "scalar",
          .gemm = "auto",
          .precision = "float32",
          .threads = 1},
         CLSTM_OK},
        {{.size = sizeof(size_t) - 1}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine + 1}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine, .kernel = "sse9"}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine, .gemm = "fast"}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine, .precision = "float31"}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine, .precision = "int8"}, CLSTM_UNSUPPORTED},
        {{.size = sizeof fine, .threads = 2}, CLSTM_OK},
        {{.size = sizeof fine, .threads = -1}, CLSTM_BAD_ARGUMENT},
        {{.size = sizeof fine, .threads = 257}, CLSTM_BAD_ARGUMENT},
#if defined(__x86_64__)
        {{.size = sizeof fine, .kernel = "neon"}, CLSTM_UNSUPPORTED},
#else
        {{.size = sizeof fine, .kernel = "avx2"}, CLSTM_UNSUPPORTED},
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        clstm_model *model = NULL;
        const clstm_status status =
            clstm_model_load_memory(image, size, &cases[i].options, &model, err);
        check(status == cases[i].expected, "options %zu: status %d (%s)", i, status, err);
        check(status == CLSTM_OK || (*err && !model), "options %zu: no sentence", i);
        const int threads = cases[i].options.threads;
        if (model)
            check(clstm_threads(model) == (threads ? threads : 1), "options %zu: threads", i);
        clstm_model_free(model);
    }
}

static void check_paths(void)
{
    const char *const paths[] = {"/nowhere/at.all", "/", "/dev/null"};
    for (size_t i = 0; i < 3; i++) {
        char err[256] = "";
        clstm_model *model = NULL;
        const clstm_status status = clstm_model_load(paths[i], NULL, &model, err);
        check(status == (i < 2 ? CLSTM_IO : CLSTM_BAD_FILE) && *err && !model,
              "%s: status %d, \"%s\"", paths[i], status, err);
    }
    char err[256] = "";
    clstm_model *model = NULL;
    check(clstm_model_load_memory(NULL, 0, NULL, &model, err) == CLSTM_BAD_FILE && *err,
          "no bytes");
    check(clstm_model_load_memory(NULL, 10, NULL, &model, err) == CLSTM_BAD_ARGUMENT && *err,
          "no data");
    clstm_model_free(NULL);
    clstm_stream_free(NULL);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: check_memory PACK FILE\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    for (size_t i = 0; i < pack.n; i++) {
        size_t size, rows;
        const unsigned char *image = pack_image(&pack, i, &size, &rows);
        check_load(image, size, i % 2);
        check_use(image, size);
        fail_at = -1;
        check_options(image, size);
    }
    check_path(argv[2]);
    fail_at = -1;
    check_paths();
    check(n_live == 0, "%ld blocks left at the end", n_live);
    free(pack.data);
    return check_report("check_memory");
}
