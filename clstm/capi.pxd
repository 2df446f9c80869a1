# SPDX-License-Identifier: MIT
# clstm.h once more, as far as _core.pyx needs it; nothing else.
from libc.stdint cimport int64_t

cdef extern from "clstm.h" nogil:
    ctypedef struct clstm_model:
        pass
    ctypedef struct clstm_stream:
        pass
    ctypedef enum clstm_status:
        CLSTM_OK
        CLSTM_BAD_ARGUMENT
        CLSTM_BAD_FILE
        CLSTM_UNSUPPORTED
        CLSTM_NO_MEMORY
        CLSTM_IO
    ctypedef struct clstm_options:
        size_t size
        const char *kernel
        const char *gemm
        const char *precision
        const char *blas
        int threads
    ctypedef struct clstm_batch:
        size_t n_steps
        size_t n_batch
        const float *x
        const int64_t *tokens
        float *y
        size_t x_batch
        size_t x_step
        size_t y_batch
        size_t y_step
        const size_t *lengths
        const float *state
        float *state_out
    enum:
        CLSTM_NUMERIC_POLICY

    clstm_status clstm_model_load_memory(const void *data, size_t size, const clstm_options *opt,
                                         clstm_model **out, char *err)
    void clstm_model_free(clstm_model *model)
    size_t clstm_input_size(const clstm_model *model)
    size_t clstm_vocabulary(const clstm_model *model)
    size_t clstm_output_size(const clstm_model *model)
    size_t clstm_state_size(const clstm_model *model)
    size_t clstm_model_bytes(const clstm_model *model)
    const char *clstm_kernel(const clstm_model *model)
    const char *clstm_gemm(const clstm_model *model)
    const char *clstm_blas(const clstm_model *model)
    int clstm_threads(const clstm_model *model)
    int clstm_streamable(const clstm_model *model)

    clstm_status clstm_stream_create(const clstm_model *model, clstm_stream **out)
    void clstm_stream_free(clstm_stream *stream)
    void clstm_step(clstm_stream *stream, const float *x, float *y)
    void clstm_step_token(clstm_stream *stream, int64_t token, float *y)
    void clstm_run(clstm_stream *stream, size_t n_steps, const float *x, float *y)
    void clstm_run_tokens(clstm_stream *stream, size_t n_steps, const int64_t *tokens, float *y)
    void clstm_reset(clstm_stream *stream)
    void clstm_get_state(const clstm_stream *stream, float *state)
    void clstm_set_state(clstm_stream *stream, const float *state)
    void clstm_stream_copy(clstm_stream *to, const clstm_stream *source)

    clstm_status clstm_sequence_by_layer(const clstm_model *model, const clstm_batch *batch,
                                         const float *const *state, float *const *state_out)
    const char *clstm_available_kernel(size_t i)
    const char *clstm_version()
