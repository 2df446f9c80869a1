# SPDX-License-Identifier: MIT
# cython: language_level=3
"""What clstm/__init__.pxd offers, called as other people's Cython code would."""
from libc.stdint cimport int64_t

cimport clstm


def frames(clstm.Stream stream not None, const float[:, ::1] x, float[:, ::1] y, bint whole):
    """All of x, step by step or as one run."""
    cdef Py_ssize_t t
    clstm.acquire(stream)
    try:
        with nogil:
            if whole:
                clstm.run(stream, x.shape[0], &x[0, 0], &y[0, 0])
            else:
                for t in range(x.shape[0]):
                    clstm.step(stream, &x[t, 0], &y[t, 0])
    finally:
        clstm.release(stream)


def tokens(clstm.Stream stream not None, const int64_t[::1] x, float[:, ::1] y, bint whole):
    cdef Py_ssize_t t
    clstm.acquire(stream)
    try:
        with nogil:
            if whole:
                clstm.run_tokens(stream, x.shape[0], &x[0], &y[0, 0])
            else:
                for t in range(x.shape[0]):
                    clstm.step_token(stream, x[t], &y[t, 0])
    finally:
        clstm.release(stream)


def reset(clstm.Stream stream not None):
    clstm.acquire(stream)
    clstm.reset(stream)
    clstm.release(stream)


def hold(stream):
    clstm.acquire(stream)


def let_go(clstm.Stream stream not None):
    clstm.release(stream)


def sizes(clstm.Model model not None):
    return model.n_input, model.n_output


def has_handle(clstm.Stream stream not None):
    return stream.handle != NULL
