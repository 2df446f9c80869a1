// SPDX-License-Identifier: MIT
/* What a program built against ABI 1 relies on, once more by hand: a prototype, a constant or a
 * place in a struct that differs does not compile. A change here, other than a line more, is a
 * change of CLSTM_ABI_VERSION. Layouts are those of 64-bit systems. */
#include <stddef.h>

#include "clstm.h"

clstm_status clstm_model_load(const char *, const clstm_options *, clstm_model **, char[256]);
clstm_status clstm_model_load_memory(const void *, size_t, const clstm_options *, clstm_model **,
                                     char[256]);
void clstm_model_free(clstm_model *);
size_t clstm_input_size(const clstm_model *);
size_t clstm_vocabulary(const clstm_model *);
size_t clstm_output_size(const clstm_model *);
size_t clstm_model_bytes(const clstm_model *);
const char *clstm_kernel(const clstm_model *);
const char *clstm_gemm(const clstm_model *);
const char *clstm_blas(const clstm_model *);
int clstm_threads(const clstm_model *);
int clstm_streamable(const clstm_model *);
size_t clstm_state_size(const clstm_model *);
clstm_status clstm_stream_create(const clstm_model *, clstm_stream **);
size_t clstm_stream_bytes(const clstm_model *);
clstm_status clstm_stream_init(void *, size_t, const clstm_model *, clstm_stream **);
void clstm_stream_free(clstm_stream *);
void clstm_step(clstm_stream *, const float *, float *);
void clstm_step_token(clstm_stream *, int64_t, float *);
void clstm_run(clstm_stream *, size_t, const float *, float *);
void clstm_run_tokens(clstm_stream *, size_t, const int64_t *, float *);
void clstm_reset(clstm_stream *);
void clstm_get_state(const clstm_stream *, float *);
void clstm_set_state(clstm_stream *, const float *);
void clstm_stream_copy(clstm_stream *, const clstm_stream *);
clstm_status clstm_sequence(const clstm_model *, const clstm_batch *);
const char *clstm_available_kernel(size_t);
int clstm_abi_version(void);
const char *clstm_version(void);

_Static_assert(CLSTM_ABI_VERSION == 1, "this file is of ABI 1");
_Static_assert(CLSTM_OK == 0 && CLSTM_BAD_ARGUMENT == 1 && CLSTM_BAD_FILE == 2, "statuses");
_Static_assert(CLSTM_UNSUPPORTED == 3 && CLSTM_NO_MEMORY == 4 && CLSTM_IO == 5, "statuses");
_Static_assert(sizeof(clstm_status) == 4, "statuses");

#define AT(type, field, offset, of)                                                                \
    _Static_assert(offsetof(type, field) == (offset) &&                                            \
                       _Generic(((type *)0)->field, of: 1, default: 0),                            \
                   #type "." #field)
AT(clstm_options, size, 0, size_t);
AT(clstm_options, kernel, 8, const char *);
AT(clstm_options, gemm, 16, const char *);
AT(clstm_options, precision, 24, const char *);
AT(clstm_options, blas, 32, const char *);
AT(clstm_options, threads, 40, int);
AT(clstm_batch, n_steps, 0, size_t);
AT(clstm_batch, n_batch, 8, size_t);
AT(clstm_batch, x, 16, const float *);
AT(clstm_batch, tokens, 24, const int64_t *);
AT(clstm_batch, y, 32, float *);
AT(clstm_batch, x_batch, 40, size_t);
AT(clstm_batch, x_step, 48, size_t);
AT(clstm_batch, y_batch, 56, size_t);
AT(clstm_batch, y_step, 64, size_t);
AT(clstm_batch, lengths, 72, const size_t *);
AT(clstm_batch, state, 80, const float *);
AT(clstm_batch, state_out, 88, float *);
_Static_assert(sizeof(clstm_batch) == 96, "it has no size, so it cannot grow");

int main(void) { return clstm_abi_version() != CLSTM_ABI_VERSION; }
