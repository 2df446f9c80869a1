# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t

from clstm cimport capi


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
