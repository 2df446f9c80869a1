# SPDX-License-Identifier: MIT
# The end of _core.pyx: what NumPy does for us is done in the core's floating-point mode too.

cdef extern from "../src/fpmode.h":
    struct fpmode:
        pass
    fpmode fpmode_enter()
    void fpmode_leave(fpmode mode)


cdef class DefaultMode:
    """Sets the caller's rounding and flush-to-zero aside within a ``with``, as the core does in
    each call: NumPy converts by them."""

    cdef fpmode mode

    def __enter__(self):
        self.mode = fpmode_enter()

    def __exit__(self, *error):
        fpmode_leave(self.mode)
