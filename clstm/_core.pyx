# SPDX-License-Identifier: MIT
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: embedsignature=True, binding=True, freethreading_compatible=True
"""Buffers in, C calls, errors out; no arithmetic.

``step`` looks into NumPy arrays directly and keeps the GIL: a typed memoryview costs 100 ns
a call, a raw buffer 50, giving up the GIL more than a step. Any other object goes through its
buffer. ``run`` and ``sequence`` release the GIL.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

cimport clstm.capi as capi

import operator
import sys

import numpy as np

cimport numpy as cnp

from . import _stream
from .errors import (
    DTypeError, ModelFormatError, ShapeError, StreamBusyError, TokenError, UnsupportedError)

cdef extern from *:
    """
    static inline int clstm_enter(int *busy) { return !__atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE); }
    static inline void clstm_leave(int *busy) { __atomic_store_n(busy, 0, __ATOMIC_RELEASE); }
    """
    bint clstm_enter(int *busy) nogil
    void clstm_leave(int *busy) nogil

cnp.import_array()

NUMERIC_POLICY = capi.CLSTM_NUMERIC_POLICY
cdef char ORDER = c"<" if sys.byteorder == "little" else c">"
VERSION = (<bytes>capi.clstm_version()).decode()
_ERRORS = {
    capi.CLSTM_BAD_ARGUMENT: ValueError,
    capi.CLSTM_BAD_FILE: ModelFormatError,
    capi.CLSTM_UNSUPPORTED: UnsupportedError,
    capi.CLSTM_NO_MEMORY: MemoryError,
    capi.CLSTM_IO: OSError,
}


def available_kernels():
    """available_kernels() -> tuple of str: the kernel sets of this CPU, best first."""
    cdef size_t i = 0
    names = []
    while capi.clstm_available_kernel(i) != NULL:
        names.append((<bytes>capi.clstm_available_kernel(i)).decode())
        i += 1
    return tuple(names)


cdef float *floats(object array, Py_buffer *view, const char *name, Py_ssize_t ndim,
                   bint writable) except NULL:
    """A view of a native, C-contiguous float32 array; DTypeError or ShapeError for any other."""
    cdef int i
    cdef Py_ssize_t stride
    cdef const char *word
    try:
        PyObject_GetBuffer(array, view, PyBUF_FORMAT | PyBUF_STRIDES)
    except (TypeError, BufferError, ValueError):
        raise DTypeError(f"{name.decode()}: expected a float32 array, got "
                         f"{type(array).__name__}") from None
    word = view.format
    if word != NULL and (word[0] == c"=" or word[0] == ORDER):
        word += 1  # unaligned, or from ctypes
    if view.itemsize != 4 or word == NULL or word[0] != c"f" or word[1] != 0:
        given = getattr(array, "dtype", None) or (view.format or b"B").decode()
        PyBuffer_Release(view)
        raise DTypeError(f"{name.decode()}: expected native float32, got {given}")
    stride = 4
    for i in range(view.ndim - 1, -1, -1):
        if view.strides != NULL and view.shape[i] > 1 and view.strides[i] != stride:
            shape = tuple([view.shape[j] for j in range(view.ndim)])
            PyBuffer_Release(view)
            raise ShapeError(f"{name.decode()}: expected a C-contiguous array, got strides of "
                             f"another order with shape {shape}")
        stride *= view.shape[i]
    if view.ndim != ndim:
        shape = tuple([view.shape[j] for j in range(view.ndim)])
        PyBuffer_Release(view)
        raise ShapeError(f"{name.decode()}: expected {ndim} axes, got shape {shape}")
    if writable and view.readonly:
        PyBuffer_Release(view)
        raise ShapeError(f"{name.decode()}: expected a writable array, got a read-only one")
    return <float *>view.buf


cdef inline float *plain(object array, Py_ssize_t n, bint writable) noexcept:
    """The numbers of an array of NumPy's own, native float32 (n,); NULL for whatever wants a
    closer look, and perhaps an error."""
    if not cnp.PyArray_CheckExact(array):
        return NULL
    cdef cnp.ndarray a = <cnp.ndarray>array
    if (cnp.PyArray_TYPE(a) != cnp.NPY_FLOAT32 or cnp.PyArray_NDIM(a) != 1
            or cnp.PyArray_DIM(a, 0) != n or not cnp.PyArray_IS_C_CONTIGUOUS(a)
            or cnp.PyArray_ISBYTESWAPPED(a) or (writable and not cnp.PyArray_ISWRITEABLE(a))):
        return NULL
    return <float *>cnp.PyArray_DATA(a)


cdef cnp.ndarray empty(tuple shape):
    """A fresh float32 array: np.empty in a third of its time."""
    cdef cnp.npy_intp axes[3]
    cdef int i, n = len(shape)
    for i in range(n):
        axes[i] = shape[i]
    return cnp.PyArray_EMPTY(n, axes, cnp.NPY_FLOAT32, 0)


cdef bint overlap(Py_buffer *a, Py_buffer *b) noexcept:
    return (<char *>a.buf < <char *>b.buf + b.len and <char *>b.buf < <char *>a.buf + a.len)


cdef class Model:
    """Packed weights in the C core, from the bytes of a .clstm file. Immutable."""

    def __cinit__(self, image, *, kernel=None, gemm=None, precision=None, blas=None, threads=1):
        cdef capi.clstm_options opt
        cdef char err[256]
        cdef Py_buffer view
        words = [None if w is None else str(w).encode() for w in (kernel, gemm, precision, blas)]
        opt.size = sizeof(opt)
        opt.kernel = NULL if words[0] is None else <const char *>words[0]
        opt.gemm = NULL if words[1] is None else <const char *>words[1]
        opt.precision = NULL if words[2] is None else <const char *>words[2]
        opt.blas = NULL if words[3] is None else <const char *>words[3]
        opt.threads = threads
        PyObject_GetBuffer(image, &view, 0)
        with nogil:
            status = capi.clstm_model_load_memory(view.buf, view.len, &opt, &self.handle, err)
        PyBuffer_Release(&view)
        if status != capi.CLSTM_OK:
            raise _ERRORS[status]((<bytes>err).decode(errors="replace"))
        self.n_input = capi.clstm_input_size(self.handle)
        self.n_output = capi.clstm_output_size(self.handle)
        self.n_tokens = capi.clstm_vocabulary(self.handle)
        self.n_state = capi.clstm_state_size(self.handle)

    def __dealloc__(self):
        capi.clstm_model_free(self.handle)

    @property
    def kernel(self):
        """Name of the kernel set: "avx512", "avx2", "neon" or "scalar"."""
        return (<bytes>capi.clstm_kernel(self.handle)).decode()

    @property
    def gemm(self):
        """What multiplies sequences and batches: "packed" or "blas"."""
        return (<bytes>capi.clstm_gemm(self.handle)).decode()

    @property
    def blas_path(self):
        """Path of the BLAS in use, or None."""
        path = capi.clstm_blas(self.handle)
        return None if path == NULL else (<bytes>path).decode()

    @property
    def threads(self):
        """How many threads work on a large step, the caller's included."""
        return capi.clstm_threads(self.handle)

    @property
    def nbytes(self):
        """Memory that the model holds in the core, in bytes."""
        return capi.clstm_model_bytes(self.handle)

    @property
    def streamable(self):
        """False for a model with a layer that goes against time, bidirectional or reverse."""
        return bool(capi.clstm_streamable(self.handle))

    def sequence(self, cnp.ndarray x, bint batch_first, lengths, given, list shapes):
        """Whole sequences, x (T, B, I) or (B, T, I), or tokens without the last axis: the
        outputs, and a list of state arrays of these shapes, in the order and layout of
        clstm_sequence_by_layer. The caller has checked all: x float32 or int64, lengths uintp
        (B,) or None, given None or a list of float32 arrays of these shapes; all contiguous."""
        cdef Py_ssize_t i, n = len(shapes)
        cdef capi.clstm_batch batch
        cdef size_t width = max(1, self.n_input)  # a token is one number
        cdef size_t outer = x.shape[0], inner = x.shape[1], n_out = self.n_output
        cdef cnp.ndarray y = empty((outer, inner, n_out))
        cdef list states = [empty(shape) for shape in shapes]
        cdef float **parts = <float **>malloc(2 * max(1, n) * sizeof(float *))
        if parts == NULL:
            raise MemoryError("no memory for the sequence")
        for i in range(n):
            parts[i] = <float *>cnp.PyArray_DATA(<cnp.ndarray>states[i])
            parts[n + i] = NULL if given is None else (
                <float *>cnp.PyArray_DATA(<cnp.ndarray?>given[i]))
        batch.n_steps, batch.n_batch = (inner, outer) if batch_first else (outer, inner)
        batch.x = NULL if self.n_tokens else <const float *>cnp.PyArray_DATA(x)
        batch.tokens = <const int64_t *>cnp.PyArray_DATA(x) if self.n_tokens else NULL
        batch.y = <float *>cnp.PyArray_DATA(y)
        batch.x_step, batch.x_batch = inner * width, width
        batch.y_step, batch.y_batch = inner * n_out, n_out
        if batch_first:
            batch.x_step, batch.x_batch = width, inner * width
            batch.y_step, batch.y_batch = n_out, inner * n_out
        batch.lengths = NULL if lengths is None else (
            <const size_t *>cnp.PyArray_DATA(<cnp.ndarray?>lengths))
        with nogil:
            status = capi.clstm_sequence_by_layer(
                self.handle, &batch, <const float *const *>(parts + n), parts)
        free(parts)
        if status == capi.CLSTM_NO_MEMORY:
            raise MemoryError("no memory for the sequence")
        if status != capi.CLSTM_OK:
            raise ValueError("the core refused the sequence")
        return y, states


cdef class Stream:
    """The state of one sequence. One thread at a time: a second gets StreamBusyError."""

    def __cinit__(self, Model model not None):
        if not model.streamable:
            raise UnsupportedError(
                "a layer that goes against time needs the whole sequence: call the model")
        self.model = model
        self.steps = 0
        if capi.clstm_stream_create(model.handle, &self.handle) != capi.CLSTM_OK:
            raise MemoryError("no memory for a stream")

    def __dealloc__(self):
        capi.clstm_stream_free(self.handle)

    cdef int enter(self) except -1:
        if not clstm_enter(&self.busy):
            raise StreamBusyError("another thread is inside this stream; give each thread its own")
        return 0

    cdef int64_t token(self, x) except -1:
        if isinstance(x, (float, np.floating)):
            raise DTypeError("x: expected a token (an integer), got a float")
        if isinstance(x, np.ndarray):
            if x.dtype.kind not in "iu":
                raise DTypeError(f"x: expected a token (an integer), got {x.dtype}")
            if x.shape != (1,) and x.shape != ():
                raise ShapeError(f"x: expected one token, got shape {x.shape}")
            x = x.item()
        try:
            index = operator.index(x)
        except TypeError:
            raise DTypeError(f"x: expected a token (an integer), got {type(x).__name__}") from None
        if not 0 <= index < self.model.n_tokens:
            raise TokenError(f"token {index} is outside 0 ... {self.model.n_tokens - 1}")
        return index

    def step(self, x, out=None):
        """One time step.

        x: float32 (I,), C-contiguous and native; or a token. out: float32 (O,) to write to, not
        overlapping x, or None for a fresh array. Returns out, or the fresh array. Raises
        ShapeError, DTypeError or TokenError before anything changes.
        """
        cdef Model model = self.model
        cdef cnp.npy_intp n_output = model.n_output
        cdef float *xp
        cdef float *yp
        if out is None:
            out = cnp.PyArray_EMPTY(1, &n_output, cnp.NPY_FLOAT32, 0)
        xp = plain(x, model.n_input, False) if not model.n_tokens else NULL
        yp = plain(out, n_output, True)
        if xp == NULL or yp == NULL or (xp < yp + n_output and yp < xp + model.n_input):
            self._step(x, out)
            return out
        self.enter()
        capi.clstm_step(self.handle, xp, yp)
        self.steps += 1
        clstm_leave(&self.busy)
        return out

    cdef int _step(self, x, out) except -1:
        """A step on buffers of any object, all checked; or of a token."""
        cdef Py_buffer xs, ys
        cdef float *xp
        cdef float *yp
        cdef int64_t token = 0
        cdef bint tokens = self.model.n_tokens > 0
        if tokens:
            token = self.token(x)
        else:
            xp = floats(x, &xs, b"x", 1, False)
        try:
            if not tokens and xs.shape[0] != self.model.n_input:
                raise ShapeError(f"x: expected shape ({self.model.n_input},), got ({xs.shape[0]},)")
            yp = floats(out, &ys, b"out", 1, True)
            try:
                if ys.shape[0] != self.model.n_output:
                    raise ShapeError(
                        f"out: expected shape ({self.model.n_output},), got ({ys.shape[0]},)")
                if not tokens and overlap(&xs, &ys):
                    raise ShapeError("out overlaps x")
                self.enter()
                if tokens:
                    capi.clstm_step_token(self.handle, token, yp)
                else:
                    capi.clstm_step(self.handle, xp, yp)
                self.steps += 1
                clstm_leave(&self.busy)
            finally:
                PyBuffer_Release(&ys)
        finally:
            if not tokens:
                PyBuffer_Release(&xs)
        return 0

    def run(self, X, out=None):
        """Many time steps: the same bits as step by step.

        X: real numbers (T, I), converted to float32; or tokens (T,). T may be 0. out: float32
        (T, O) to write to, not overlapping X, or None. Returns (T, O). All is checked before
        anything changes; the GIL is released meanwhile, and nothing interrupts it: give hours of
        data in chunks.
        """
        cdef Py_buffer xs, ys
        cdef float *yp
        cdef size_t n_steps
        X = _stream.chunk(self.model, X)
        n_steps = X.shape[0]
        if out is None:
            out = np.empty((n_steps, self.model.n_output), np.float32)
        yp = floats(out, &ys, b"out", 2, True)
        try:
            if ys.shape[0] != <Py_ssize_t>n_steps or ys.shape[1] != self.model.n_output:
                raise ShapeError(f"out: expected shape ({n_steps}, {self.model.n_output}), "
                                 f"got ({ys.shape[0]}, {ys.shape[1]})")
            PyObject_GetBuffer(X, &xs, 0)
            try:
                if overlap(&xs, &ys):
                    raise ShapeError("out overlaps X")
                self.enter()
                with nogil:
                    if self.model.n_tokens:
                        capi.clstm_run_tokens(self.handle, n_steps, <const int64_t *>xs.buf, yp)
                    else:
                        capi.clstm_run(self.handle, n_steps, <const float *>xs.buf, yp)
                self.steps += n_steps
                clstm_leave(&self.busy)
            finally:
                PyBuffer_Release(&xs)
        finally:
            PyBuffer_Release(&ys)
        return out

    def reset(self):
        """Back to zeros, or to the learned initial state; ``steps`` begins at 0 again."""
        self.enter()
        capi.clstm_reset(self.handle)
        self.steps = 0
        clstm_leave(&self.busy)

    def copy(self, Stream into=None):
        """Another stream in the same state: a new one, or ``into``, a stream of the same model."""
        if into is self:
            return self
        if into is None:
            into = type(self)(self.model)
        elif into.model is not self.model:
            raise ValueError("into: expected a stream of the same model")
        self.enter()
        try:
            into.enter()
            capi.clstm_stream_copy(into.handle, self.handle)
            into.steps = self.steps
            clstm_leave(&into.busy)
        finally:
            clstm_leave(&self.busy)
        return into

    cdef tuple _get(self):
        """The flat state, and the steps that led to it: of one moment."""
        cdef Py_buffer view
        flat = np.empty(self.model.n_state, np.float32)
        PyObject_GetBuffer(flat, &view, PyBUF_WRITABLE)
        try:
            self.enter()
            capi.clstm_get_state(self.handle, <float *>view.buf)
            steps = self.steps
            clstm_leave(&self.busy)
        finally:
            PyBuffer_Release(&view)
        return flat, steps

    cdef _set(self, flat, steps):
        """steps: the new count, or None to leave it."""
        cdef Py_buffer view
        cdef unsigned long long count = 0 if steps is None else steps
        PyObject_GetBuffer(flat, &view, 0)
        try:
            self.enter()
            capi.clstm_set_state(self.handle, <const float *>view.buf)
            if steps is not None:
                self.steps = count
            clstm_leave(&self.busy)
        finally:
            PyBuffer_Release(&view)

    @property
    def state(self):
        """A copy of the state in torch's unbatched shapes: LSTM (h (L, P or H), c (L, H)), a
        cell without the L axis, several recurrent layers a list, none None. Setting takes an
        axis of 1 for B too, checks everything first, and copies."""
        return _stream.unflatten(self.model, self._get()[0])

    @state.setter
    def state(self, value):
        self._set(_stream.flatten(self.model, value), None)

    def is_finite(self):
        """False once a NaN or infinity is in the state."""
        return bool(np.isfinite(self._get()[0]).all())

    def snapshot(self):
        """The state as bytes: versioned, checksummed, bound to the model. For
        ``model.stream(snapshot=...)``, on another machine or kernel set too."""
        return _stream.pack(self.model, *self._get())

    def _restore(self, blob):
        flat, steps = _stream.unpack(self.model, blob)
        self._set(flat, steps)

    def bind(self, x, y):
        """A callable that steps from buffer x to buffer y, checked now and held: float32 (I,)
        and (O,), or int64 (1,) for a token, which is checked at each call."""
        return Bound(self, x, y)

    def __reduce__(self):
        raise TypeError("a stream does not pickle: take snapshot() and give it to model.stream()")


cdef class Bound:
    """A step of one stream from one buffer to another."""

    cdef readonly Stream stream
    cdef Py_buffer xs, ys
    cdef int held

    def __cinit__(self, Stream stream not None, x, y):
        self.stream = stream
        cdef Model model = stream.model
        if model.n_tokens:
            if getattr(x, "dtype", None) != np.int64 or x.shape != (1,):
                raise DTypeError("x: expected an int64 array of shape (1,)")
            PyObject_GetBuffer(x, &self.xs, 0)
        else:
            floats(x, &self.xs, b"x", 1, False)
        self.held = 1
        floats(y, &self.ys, b"y", 1, True)
        self.held = 2
        if not model.n_tokens and self.xs.shape[0] != model.n_input:
            raise ShapeError(f"x: expected shape ({model.n_input},), got ({self.xs.shape[0]},)")
        if self.ys.shape[0] != model.n_output:
            raise ShapeError(f"y: expected shape ({model.n_output},), got ({self.ys.shape[0]},)")
        if overlap(&self.xs, &self.ys):
            raise ShapeError("y overlaps x")

    def __dealloc__(self):
        if self.held > 0:
            PyBuffer_Release(&self.xs)
        if self.held > 1:
            PyBuffer_Release(&self.ys)

    def __call__(self):
        cdef Stream stream = self.stream
        cdef int64_t token
        if stream.model.n_tokens:
            token = stream.token((<const int64_t *>self.xs.buf)[0])
            stream.enter()
            capi.clstm_step_token(stream.handle, token, <float *>self.ys.buf)
        else:
            stream.enter()
            capi.clstm_step(stream.handle, <const float *>self.xs.buf, <float *>self.ys.buf)
        stream.steps += 1
        clstm_leave(&stream.busy)


include "_mode.pxi"
include "_steps.pxi"
