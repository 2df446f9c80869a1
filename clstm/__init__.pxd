# SPDX-License-Identifier: MIT
"""Steps of a stream from other Cython code, without Python and without the GIL.

    cimport clstm

    cdef clstm.Stream stream = model.stream()   # made, loaded and saved in Python, as ever
    clstm.acquire(stream)                       # StreamBusyError if another thread is in it
    with nogil:
        clstm.step(stream, x, y)                # x[stream.model.n_input], y[stream.model.n_output]
    clstm.release(stream)

The functions call the engine inside clstm._core, so there is nothing to link. Python checks name
and signature of each, and the size of Stream, when the importing module is imported. Only clstm.h
is needed to build: include_dirs=[clstm.get_include()]. docs/embedding.md has the rules.
"""
from clstm._core cimport (
    Model, Stream, acquire, release, reset, run, run_tokens, step, step_token)
