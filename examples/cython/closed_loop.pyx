# SPDX-License-Identifier: MIT
# cython: language_level=3, boundscheck=False
"""Each output is the next input: the loop that costs a Python call a step when written in Python
runs here without Python and without the GIL."""
cimport clstm


def closed_loop(clstm.Stream stream not None, const float[::1] first, float[:, ::1] out):
    """Fills out (T, O) with what follows first (O,), for a model whose outputs are its inputs."""
    cdef Py_ssize_t t, n = stream.model.n_output
    if stream.model.n_input != n or first.shape[0] != n or out.shape[1] != n:
        raise ValueError(f"expected {n} inputs, as many as outputs")
    if out.shape[0] == 0:
        return
    clstm.acquire(stream)  # from here on Python's side gets StreamBusyError
    try:
        with nogil:
            clstm.step(stream, &first[0], &out[0, 0])
            for t in range(1, out.shape[0]):
                clstm.step(stream, &out[t - 1, 0], &out[t, 0])
    finally:
        clstm.release(stream)
