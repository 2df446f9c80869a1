// SPDX-License-Identifier: MIT
#include "drive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is run: sequence b starts from state[b] and has length[b] of at most n_steps steps.
 * y and end are what one step after the other gives (of a bidirectional model: what the
 * sequence alone gives); everything else is compared with them. */
struct trial {
    const struct drive *d;
    const clstm_model *model;
    struct rng rng;
    size_t n_in, n_out, n_state, n_tokens, n_steps, n_batch;
    size_t *length;         /* [n_batch] */
    float *x;               /* [n_batch][n_steps][n_in]; NULL for tokens */
    int64_t *tokens;        /* [n_batch][n_steps]; NULL for floats */
    float *state, *end, *y; /* [n_batch][n_state], the same, [n_batch][n_steps][n_out] */
};

#define CALL(t, call)                                                                              \
    do {                                                                                           \
        if ((t)->d->enter) (t)->d->enter((t)->d->context);                                         \
        call;                                                                                      \
        if ((t)->d->leave) (t)->d->leave((t)->d->context);                                         \
    } while (0)

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Few rows of a large model, many of a small one: enough to pass the limits within frames
 * (64 rows a group, 48 steps a run, 512 rows a sequence) where that is cheap. By the bytes of
 * the file: a number that no version of the library changes. */
static void choose_sizes(struct trial *t, size_t bytes)
{
    const size_t cost = bytes / sizeof(float), rows = t->d->work / cost;
    const size_t many = least(rows < 4 ? 4 : rows, 700),
                 widest = many < t->d->rows ? t->d->rows : many;
    t->n_batch = rng_between(&t->rng, 2, least(widest / 2, 100));
    t->n_steps = widest / t->n_batch;
    if (rng_below(&t->rng, 4) == 0) { /* long and narrow */
        t->n_batch = 2;
        t->n_steps = widest / 2;
    }
    if (!t->d->rows) t->n_steps = rng_between(&t->rng, 1, t->n_steps);
}

static void make_inputs(struct trial *t)
{
    struct rng *r = &t->rng;
    const size_t n = t->n_batch * t->n_steps;
    t->length = malloc(t->n_batch * sizeof *t->length);
    t->state = malloc((t->n_batch * t->n_state + 1) * sizeof *t->state);
    t->end = malloc((t->n_batch * t->n_state + 1) * sizeof *t->end);
    t->y = calloc(n * t->n_out + 1, sizeof *t->y);
    if (t->n_tokens) t->tokens = malloc((n + 1) * sizeof *t->tokens);
    else t->x = malloc((n * t->n_in + 1) * sizeof *t->x);
    for (size_t b = 0; b < t->n_batch; b++)
        t->length[b] = b == 0 ? t->n_steps : rng_between(r, 0, t->n_steps);
    rng_fill(r, t->state, t->n_batch * t->n_state, 0.5f);
    for (size_t i = 0; t->tokens && i < n; i++) t->tokens[i] = (int64_t)rng_below(r, t->n_tokens);
    if (t->x) rng_fill(r, t->x, n * t->n_in, rng_below(r, 4) ? 1.0f : 8.0f);
    /* A token out of range and special values: in some sequences, never in the first. */
    for (size_t b = 1; b < t->n_batch; b++) {
        if (rng_below(r, 6)) continue;
        /* One call of the generator a statement: C does not order them within one. */
        const size_t at = b * t->n_steps + rng_below(r, t->n_steps);
        if (t->tokens) t->tokens[at] = rng_below(r, 2) ? -1 : (int64_t)t->n_tokens;
        else {
            float *to = t->x + at * t->n_in + rng_below(r, t->n_in);
            *to = rng_special(r);
        }
        if (t->n_state && rng_below(r, 2)) {
            float *to = t->state + b * t->n_state + rng_below(r, t->n_state);
            *to = rng_special(r);
        }
    }
}

static const float *x_at(const struct trial *t, size_t b, size_t step)
{
    return t->x + (b * t->n_steps + step) * t->n_in;
}

static float *y_at(const struct trial *t, size_t b, size_t step)
{
    return t->y + (b * t->n_steps + step) * t->n_out;
}

static clstm_status sequence(const struct trial *t, const clstm_batch *batch)
{
    clstm_status status;
    CALL(t, status = clstm_sequence(t->model, batch));
    return status;
}

/* Sequence b as a call of its own, features side by side, at odd addresses. */
static void alone(struct trial *t, size_t b, float *y, float *end)
{
    const size_t n = t->length[b], x_step = t->n_tokens ? 1 : t->n_in;
    clstm_batch batch = {.n_steps = n, .n_batch = 1, .x_step = x_step, .y_step = t->n_out};
    float *x = guarded(n * x_step, 3), *out = guarded(n * t->n_out, 5);
    float *state = guarded(t->n_state, 1);
    if (t->n_tokens) batch.tokens = t->tokens + b * t->n_steps;
    else batch.x = memcpy(x, x_at(t, b, 0), n * t->n_in * sizeof *x);
    memcpy(state, t->state + b * t->n_state, t->n_state * sizeof *state);
    batch.y = out;
    batch.state = batch.state_out = state;
    check(sequence(t, &batch) == CLSTM_OK, "clstm_sequence refused one sequence");
    memcpy(y, out, n * t->n_out * sizeof *y);
    memcpy(end, state, t->n_state * sizeof *end);
    check(guards_whole(), "clstm_sequence wrote outside its buffers");
}

static void step_by_step(struct trial *t, clstm_stream *s, size_t b)
{
    float *x = guarded(t->n_in, 7), *y = guarded(t->n_out, 9);
    CALL(t, clstm_set_state(s, t->state + b * t->n_state));
    for (size_t i = 0; i < t->length[b]; i++) {
        if (t->n_tokens) CALL(t, clstm_step_token(s, t->tokens[b * t->n_steps + i], y));
        else {
            memcpy(x, x_at(t, b, i), t->n_in * sizeof *x);
            CALL(t, clstm_step(s, x, y));
        }
        memcpy(y_at(t, b, i), y, t->n_out * sizeof *y);
        const int64_t token = t->n_tokens ? t->tokens[b * t->n_steps + i] : 0;
        if (token < 0 || (t->n_tokens && token >= (int64_t)t->n_tokens))
            check(isnan(y[0]), "%s: token %lld gives no NaN", t->d->kernel, (long long)token);
    }
    CALL(t, clstm_get_state(s, t->end + b * t->n_state));
    int flushed = 1; /* promise 4; no step, no flush */
    for (size_t i = 0; t->length[b] && i < t->n_state; i++) {
        const uint32_t magnitude = bits_of(t->end[b * t->n_state + i]) & 0x7fffffff;
        flushed &= magnitude == 0 || magnitude >= 0x0d800000; /* 2^-100 */
    }
    check(flushed, "%s: a state below 2^-100 is not 0", t->d->kernel);
    check(guards_whole(), "clstm_step wrote outside its buffers");
}

static void compare(const struct trial *t, const char *way, size_t b, const float *y,
                    const float *end)
{
    check(same_bits(y, y_at(t, b, 0), t->length[b] * t->n_out), "%s %s: other outputs (seed %llu)",
          t->d->kernel, way, (unsigned long long)t->d->seed);
    check(same_bits(end, t->end + b * t->n_state, t->n_state), "%s %s: another state (seed %llu)",
          t->d->kernel, way, (unsigned long long)t->d->seed);
}

/* clstm_run in random chunks, on to a copy of the stream half the time. */
static void in_chunks(struct trial *t, clstm_stream *s, clstm_stream *other, size_t b)
{
    const size_t n = t->length[b], x_step = t->n_tokens ? 1 : t->n_in;
    float *y = guarded(n * t->n_out, 1), *end = guarded(t->n_state, 2);
    float *x = guarded(n * x_step, 11);
    if (!t->n_tokens) memcpy(x, x_at(t, b, 0), n * t->n_in * sizeof *x);
    CALL(t, clstm_set_state(s, t->state + b * t->n_state));
    for (size_t done = 0; done < n;) {
        const size_t count = rng_between(&t->rng, 0, n - done);
        if (t->n_tokens)
            CALL(t, clstm_run_tokens(s, count, t->tokens + b * t->n_steps + done,
                                     y + done * t->n_out));
        else CALL(t, clstm_run(s, count, x + done * t->n_in, y + done * t->n_out));
        done += count;
        if (rng_below(&t->rng, 2)) {
            CALL(t, clstm_stream_copy(other, s));
            clstm_stream *next = other;
            other = s;
            s = next;
        }
    }
    CALL(t, clstm_get_state(s, end));
    compare(t, "in chunks", b, y, end);
    check(guards_whole(), "clstm_run wrote outside its buffers");
}

/* x and y of a step in one buffer. */
static void in_place(struct trial *t, clstm_stream *s, size_t b)
{
    const size_t wide = t->n_in > t->n_out ? t->n_in : t->n_out;
    float *y = guarded(t->length[b] * t->n_out, 0), *end = guarded(t->n_state, 0);
    float *both = guarded(wide, 13);
    CALL(t, clstm_set_state(s, t->state + b * t->n_state));
    for (size_t i = 0; i < t->length[b]; i++) {
        memcpy(both, x_at(t, b, i), t->n_in * sizeof *both);
        CALL(t, clstm_step(s, both, both));
        memcpy(y + i * t->n_out, both, t->n_out * sizeof *y);
    }
    CALL(t, clstm_get_state(s, end));
    compare(t, "in place", b, y, end);
    check(guards_whole(), "clstm_step wrote outside its buffer");
}

/* All sequences in one call, ragged, in a random order; between them up to three strangers
 * whose input is junk (the guarded buffers are filled with NaN). By time or by sequence. */
static void batched(struct trial *t)
{
    const size_t n = t->n_batch + rng_below(&t->rng, 4), width = t->n_tokens ? 1 : t->n_in;
    const int by_time = (int)rng_below(&t->rng, 2);
    const size_t pad = rng_below(&t->rng, 3); /* features lie apart by a stride of their own */
    clstm_batch batch = {.n_steps = t->n_steps, .n_batch = n};
    const size_t x_row = width + (t->n_tokens ? 0 : pad), y_row = t->n_out + pad;
    batch.x_step = by_time ? n * x_row : x_row;
    batch.x_batch = by_time ? x_row : t->n_steps * x_row;
    batch.y_step = by_time ? n * y_row : y_row;
    batch.y_batch = by_time ? y_row : t->n_steps * y_row;
    float *x = guarded(n * t->n_steps * x_row, 3), *y = guarded(n * t->n_steps * y_row, 5);
    float *from = guarded(n * t->n_state, 7), *to = guarded(n * t->n_state, 9);
    size_t *slot = calloc(n, sizeof *slot), *length = malloc(n * sizeof *length);
    int64_t *tokens = calloc(n * t->n_steps, sizeof *tokens);
    for (size_t i = 0; i < n; i++) {
        const size_t j = rng_below(&t->rng, i + 1);
        slot[i] = slot[j];
        slot[j] = i;
    }
    for (size_t i = 0; i < n; i++) length[slot[i]] = i < t->n_batch ? t->length[i] : t->n_steps;
    for (size_t b = 0; b < t->n_batch; b++) {
        memcpy(from + slot[b] * t->n_state, t->state + b * t->n_state, t->n_state * sizeof *from);
        for (size_t i = 0; i < t->length[b]; i++) {
            const size_t at = slot[b] * batch.x_batch + i * batch.x_step;
            if (t->n_tokens) tokens[at] = t->tokens[b * t->n_steps + i];
            else memcpy(x + at, x_at(t, b, i), t->n_in * sizeof *x);
        }
    }
    batch.x = t->n_tokens ? NULL : x;
    batch.tokens = t->n_tokens ? tokens : NULL;
    batch.y = y;
    batch.lengths = length;
    batch.state = from;
    batch.state_out = to;
    check(sequence(t, &batch) == CLSTM_OK, "clstm_sequence refused a batch");
    float *row = calloc(t->n_steps * t->n_out + 1, sizeof *row);
    for (size_t b = 0; b < t->n_batch; b++) {
        int zeros = 1;
        for (size_t i = 0; i < t->n_steps; i++) {
            const float *at = y + slot[b] * batch.y_batch + i * batch.y_step;
            memcpy(row + i * t->n_out, at, t->n_out * sizeof *row);
            for (size_t j = 0; i >= t->length[b] && j < t->n_out; j++) zeros &= bits_of(at[j]) == 0;
        }
        compare(t, "batched", b, row, to + slot[b] * t->n_state);
        check(zeros, "%s: not 0 past a length", t->d->kernel);
    }
    free(row), free(slot), free(length), free(tokens);
    check(guards_whole(), "clstm_sequence wrote outside its buffers");
}

/* Without a state to start from: the initial one, as a fresh stream and reset have it. */
static void from_the_start(struct trial *t, clstm_stream *s)
{
    const size_t n = t->length[0], x_step = t->n_tokens ? 1 : t->n_in;
    float *y = guarded(n * t->n_out, 1), *again = guarded(n * t->n_out, 2);
    float *end = guarded(t->n_state, 3), *end_again = guarded(t->n_state, 4);
    clstm_batch batch = {.n_steps = n,
                         .n_batch = 1,
                         .x = t->x,
                         .tokens = t->tokens,
                         .y = y,
                         .x_step = x_step,
                         .y_step = t->n_out,
                         .state_out = end};
    check(sequence(t, &batch) == CLSTM_OK, "clstm_sequence refused a sequence");
    CALL(t, clstm_reset(s));
    if (t->n_tokens) CALL(t, clstm_run_tokens(s, n, t->tokens, again));
    else CALL(t, clstm_run(s, n, t->x, again));
    CALL(t, clstm_get_state(s, end_again));
    check(same_bits(y, again, n * t->n_out) && same_bits(end, end_again, t->n_state),
          "%s: another start without a state (seed %llu)", t->d->kernel,
          (unsigned long long)t->d->seed);
    check(guards_whole(), "wrote outside the buffers");
}

static void with_streams(struct trial *t)
{
    clstm_stream *s = NULL, *other = NULL;
    const size_t bytes = clstm_stream_bytes(t->model);
    char *memory = malloc(bytes + 1); /* the caller's memory, at an odd address */
    int ok = check(clstm_stream_create(t->model, &s) == CLSTM_OK, "clstm_stream_create failed");
    ok &= check(clstm_stream_init(memory + 1, bytes, t->model, &other) == CLSTM_OK,
                "clstm_stream_init failed");
    for (size_t b = 0; ok && b < t->n_batch; b++) {
        step_by_step(t, b % 2 ? s : other, b);
        in_chunks(t, b % 2 ? other : s, b % 2 ? s : other, b);
        if (t->x && b % 4 == 1) in_place(t, s, b);
    }
    if (ok) from_the_start(t, s);
    clstm_stream_free(s);
    clstm_stream_free(other);
    free(memory);
}

uint64_t drive(const unsigned char *image, size_t size, const struct drive *d)
{
    const clstm_options options = {.size = sizeof options, .kernel = d->kernel, .gemm = "packed"};
    char err[256] = "";
    clstm_model *model = NULL;
    clstm_status status;
    struct trial t = {.d = d, .rng = rng_seeded(d->seed)};
    CALL(&t, status = clstm_model_load_memory(image, size, &options, &model, err));
    if (!check(status == CLSTM_OK, "model %llu: %s", (unsigned long long)d->seed, err)) return 0;
    t.model = model;
    t.n_in = clstm_input_size(model);
    t.n_out = clstm_output_size(model);
    t.n_state = clstm_state_size(model);
    t.n_tokens = clstm_vocabulary(model);
    choose_sizes(&t, size);
    make_inputs(&t);
    float *y = malloc((t.n_steps * t.n_out + 1) * sizeof *y);
    float *end = malloc((t.n_state + 1) * sizeof *end);
    if (clstm_streamable(model)) with_streams(&t);
    else
        for (size_t b = 0; b < t.n_batch; b++) alone(&t, b, y_at(&t, b, 0), t.end + b * t.n_state);
    for (size_t b = 0; clstm_streamable(model) && b < t.n_batch; b += 2) {
        alone(&t, b, y, end);
        compare(&t, "whole sequence", b, y, end);
    }
    batched(&t);
    const uint64_t hash = hash_floats(HASH_START, t.y, t.n_batch * t.n_steps * t.n_out);
    const uint64_t both = hash_floats(hash, t.end, t.n_batch * t.n_state);
    free(y), free(end), free(t.length), free(t.x), free(t.tokens);
    free(t.state), free(t.end), free(t.y);
    clstm_model_free(model);
    return both;
}
