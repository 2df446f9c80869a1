# SPDX-License-Identifier: MIT
"""The command ``clstm``. ``__main__.py`` has every argument; a command's own file runs it."""

# An output agrees if |got - expected| <= ATOL + RTOL * |expected|; csrc/src/certificate.c, which
# checks a certificate at every load, has the same.
RTOL, ATOL = 1e-4, 1e-5
