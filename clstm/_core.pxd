# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t

cimport clstm.capi as capi


cdef class Model:
    cdef capi.clstm_model *handle
    cdef readonly Py_ssize_t n_input   # 0 for tokens
    cdef readonly Py_ssize_t n_output
    cdef readonly Py_ssize_t n_tokens  # num_embeddings, 0 for no tokens
    cdef readonly Py_ssize_t n_state


cdef class Stream:
    cdef readonly Model model          # must outlive the C stream
    cdef capi.clstm_stream *handle
    cdef int busy                      # 1 while a thread is inside
    cdef readonly unsigned long long steps  # taken since the start or the last reset

    cdef int enter(self) except -1
    cdef int64_t token(self, x) except -1
    cdef int _step(self, x, out) except -1
    cdef tuple _get(self)
    cdef _set(self, flat, steps)


# Steps without Python: clstm/__init__.pxd. The stream is not None, and everything but acquire is
# called between acquire and release; nothing is checked.
cdef int acquire(Stream stream) except -1  # StreamBusyError, TypeError for None
cdef void release(Stream stream) noexcept nogil
cdef void step(Stream stream, const float *x, float *y) noexcept nogil
cdef void step_token(Stream stream, int64_t token, float *y) noexcept nogil
cdef void run(Stream stream, size_t n_steps, const float *x, float *y) noexcept nogil
cdef void run_tokens(Stream stream, size_t n_steps, const int64_t *tokens, float *y) noexcept nogil
cdef void reset(Stream stream) noexcept nogil
