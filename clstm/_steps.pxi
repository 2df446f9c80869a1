# SPDX-License-Identifier: MIT
# The end of _core.pyx: steps for other Cython code, as clstm/__init__.pxd declares them.

cdef int acquire(Stream stream) except -1:
    if stream is None:
        raise TypeError("expected a Stream, got None")
    return stream.enter()


cdef void release(Stream stream) noexcept nogil:
    clstm_leave(&stream.busy)


cdef void step(Stream stream, const float *x, float *y) noexcept nogil:
    capi.clstm_step(stream.handle, x, y)
    stream.steps += 1


cdef void step_token(Stream stream, int64_t token, float *y) noexcept nogil:
    capi.clstm_step_token(stream.handle, token, y)
    stream.steps += 1


cdef void run(Stream stream, size_t n_steps, const float *x, float *y) noexcept nogil:
    capi.clstm_run(stream.handle, n_steps, x, y)
    stream.steps += n_steps


cdef void run_tokens(Stream stream, size_t n_steps, const int64_t *tokens, float *y) noexcept nogil:
    capi.clstm_run_tokens(stream.handle, n_steps, tokens, y)
    stream.steps += n_steps


cdef void reset(Stream stream) noexcept nogil:
    capi.clstm_reset(stream.handle)
    stream.steps = 0
