/* SPDX-License-Identifier: MIT
 * clstm.h - recurrent networks trained in PyTorch, run on a CPU one step at a time.
 *
 *   clstm_model    packed weights. Immutable: load once, share between threads and streams.
 *   clstm_stream   the state of one sequence. One thread at a time; many streams a model.
 *
 * True of every function:
 *   - Fallible functions return clstm_status and write *out only on CLSTM_OK.
 *   - The caller owns each buffer that it passes; nothing of it is kept after the return.
 *   - Functions marked HOT return nothing, cannot fail and do not allocate, lock, log or
 *     enter the system (a model with threads wakes those that sleep, and makes them anew in a
 *     forked child). They may be called with any floating-point control bits (rounding,
 *     flush to zero); those are found again as they were, sticky flags may be raised.
 *   - err, where there is one, is NULL or char[256] that receives a sentence on failure.
 *   - free(NULL) does nothing. A model must outlive its streams.
 *
 * Same bits: step, run and sequence give the same results for any chunking, batch,
 * alignment, kernel set and compiler.
 */
#ifndef CLSTM_H
#define CLSTM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) || !defined(__GNUC__)
#define CLSTM_API
#else
#define CLSTM_API __attribute__((visibility("default")))
#endif

/* What HOT means, as clang from 20 on checks it: -Wfunction-effects, -fsanitize=realtime. (19 knows
 * the word and warns of it without being asked.) */
#if defined(__clang_major__) && __clang_major__ >= 20
#define CLSTM_HOT __attribute__((nonblocking))
#else
#define CLSTM_HOT
#endif

#define CLSTM_VERSION "0.2.0"
#define CLSTM_ABI_VERSION 1
#define CLSTM_NUMERIC_POLICY 1 /* results keep their bits while this number stays */

typedef struct clstm_model clstm_model;
typedef struct clstm_stream clstm_stream;

typedef enum clstm_status {
    CLSTM_OK = 0,
    CLSTM_BAD_ARGUMENT = 1, /* a word or number that no version knows           */
    CLSTM_BAD_FILE = 2,     /* not a .clstm file, damaged, or no model in it    */
    CLSTM_UNSUPPORTED = 3,  /* valid, but this build, CPU or version lacks it   */
    CLSTM_NO_MEMORY = 4,
    CLSTM_IO = 5 /* the file could not be read; errno says why       */
} clstm_status;

/* Zero-initialise, set size, then what you need; NULL everywhere means the defaults. */
typedef struct clstm_options {
    size_t size;           /* sizeof(clstm_options)                                           */
    const char *kernel;    /* "avx512", "avx2", "neon", "scalar"; NULL: $CLSTM_KERNEL or best */
    const char *gemm;      /* "auto", "packed", "blas"; NULL: $CLSTM_GEMM or "auto"           */
    const char *precision; /* "float32"; NULL: the same                                       */
    const char *blas;      /* paths to try after $CLSTM_BLAS, a line each, or NULL            */
    int threads;           /* the caller's and n - 1 of the model's own; 0: 1                 */
} clstm_options;

/* ---- model ------------------------------------------------------------------------ */

/* Reads a .clstm file (path, or bytes in memory), checks it whole, packs its weights. */
CLSTM_API clstm_status clstm_model_load(const char *path, const clstm_options *opt,
                                        clstm_model **out, char err[256]);
CLSTM_API clstm_status clstm_model_load_memory(const void *data, size_t size,
                                               const clstm_options *opt, clstm_model **out,
                                               char err[256]);
CLSTM_API void clstm_model_free(clstm_model *model);

CLSTM_API size_t clstm_input_size(const clstm_model *model);  /* 0 for tokens         */
CLSTM_API size_t clstm_vocabulary(const clstm_model *model);  /* 0 for no tokens      */
CLSTM_API size_t clstm_output_size(const clstm_model *model); /* of all outputs        */
CLSTM_API size_t clstm_model_bytes(const clstm_model *model); /* memory that it holds */
CLSTM_API const char *clstm_kernel(const clstm_model *model); /* "avx512", ...        */
CLSTM_API const char *clstm_gemm(const clstm_model *model);   /* "packed" or "blas"   */
CLSTM_API const char *clstm_blas(const clstm_model *model);   /* its path, or NULL    */
CLSTM_API int clstm_threads(const clstm_model *model);        /* with the caller's    */
CLSTM_API int clstm_streamable(const clstm_model *model);     /* 0: it needs whole sequences */

/* Floats of one state in logical order: of each recurrent layer of the program first h
 * (num_layers * directions rows of its output size), then an LSTM's c (as many of
 * hidden_size). */
CLSTM_API size_t clstm_state_size(const clstm_model *model);

/* ---- stream ----------------------------------------------------------------------- */

/* In memory of the library's, or of the caller's: clstm_stream_bytes() of any alignment;
 * such a stream is not freed. CLSTM_UNSUPPORTED for a bidirectional model. */
CLSTM_API clstm_status clstm_stream_create(const clstm_model *model, clstm_stream **out);
CLSTM_API size_t clstm_stream_bytes(const clstm_model *model);
CLSTM_API clstm_status clstm_stream_init(void *memory, size_t bytes, const clstm_model *model,
                                         clstm_stream **out);
CLSTM_API void clstm_stream_free(clstm_stream *stream);

/* HOT. One time step: x[input_size] in, y[output_size] out. x and y may be the same. */
CLSTM_API void clstm_step(clstm_stream *stream, const float *x, float *y) CLSTM_HOT;
/* HOT. The same for a model of tokens; an id out of range gives NaN and touches nothing. So
 * does a token for a model of numbers, and a frame for a model of tokens. */
CLSTM_API void clstm_step_token(clstm_stream *stream, int64_t token, float *y) CLSTM_HOT;
/* HOT. n_steps steps: x[n_steps][input_size], y[n_steps][output_size]; no overlap. */
CLSTM_API void clstm_run(clstm_stream *stream, size_t n_steps, const float *x, float *y) CLSTM_HOT;
/* HOT. The same for a model of tokens. */
CLSTM_API void clstm_run_tokens(clstm_stream *stream, size_t n_steps, const int64_t *tokens,
                                float *y) CLSTM_HOT;
/* HOT. Back to zeros, or to the learned initial state. */
CLSTM_API void clstm_reset(clstm_stream *stream) CLSTM_HOT;
/* HOT. state[state_size], in logical order. */
CLSTM_API void clstm_get_state(const clstm_stream *stream, float *state) CLSTM_HOT;
CLSTM_API void clstm_set_state(clstm_stream *stream, const float *state) CLSTM_HOT;
/* HOT. Both of one model. */
CLSTM_API void clstm_stream_copy(clstm_stream *to, const clstm_stream *from) CLSTM_HOT;

/* ---- whole sequences -------------------------------------------------------------- */

typedef struct clstm_batch {
    size_t n_steps, n_batch;
    const float *x;        /* sequence b, step t at x + b * x_batch + t * x_step      */
    const int64_t *tokens; /* instead of x, for a model of tokens: the same strides   */
    float *y;              /* likewise; features are contiguous; no overlap with x    */
    size_t x_batch, x_step, y_batch, y_step;
    const size_t *lengths; /* [n_batch], at most n_steps each, or NULL: all n_steps;
                              y past a length is 0, the state that of the last step   */
    const float *state;    /* [n_batch][state_size] to start from, or NULL            */
    float *state_out;      /* [n_batch][state_size], or NULL; may be state            */
} clstm_batch;

/* Sequences side by side, bidirectional models too. Allocates what it works in. */
CLSTM_API clstm_status clstm_sequence(const clstm_model *model, const clstm_batch *batch);
/* The same with states as torch lays them out, in place of those of batch: for each recurrent
 * layer of the program an array of h, then (an LSTM) one of c, [num_layers * directions][n_batch]
 * [its size]. state may be NULL, or some of its arrays: to start from the initial state. */
CLSTM_API clstm_status clstm_sequence_by_layer(const clstm_model *model, const clstm_batch *batch,
                                               const float *const *state, float *const *state_out);

/* ---- about ------------------------------------------------------------------------ */

/* Name of the i-th kernel set of this CPU, best first; NULL past the last. */
CLSTM_API const char *clstm_available_kernel(size_t i);
CLSTM_API int clstm_abi_version(void);
CLSTM_API const char *clstm_version(void);

#ifdef __cplusplus
}
#endif

#endif
