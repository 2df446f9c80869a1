// SPDX-License-Identifier: MIT
/* Control bits for Python to set around its own calls: a library for ctypes. */
#include "control_bits.h"

#ifndef NO_CONTROL_BITS
uint64_t caller_get(void);
void caller_set(uint64_t mode);
size_t caller_modes(uint64_t *out);
uint64_t caller_default(void);

uint64_t caller_get(void) { return get(); }
void caller_set(uint64_t mode) { set(mode); }
uint64_t caller_default(void) { return DEFAULT; }

/* Those that trap nothing: Python's own sums go on meanwhile. */
size_t caller_modes(uint64_t *out)
{
    uint64_t all[64];
    size_t n = 0;
    const size_t n_all = list_modes(all);
    for (size_t i = 0; i < n_all; i++)
        if ((all[i] & DEFAULT) == DEFAULT) out[n++] = all[i];
    return n;
}
#endif
