// SPDX-License-Identifier: MIT
/* The floating-point control bits of a call. A host may run with another rounding or with
 * flush-to-zero; the results must not depend on it, and the host finds its bits again. */
#ifndef CLSTM_FPMODE_H
#define CLSTM_FPMODE_H

#include <stdint.h>

struct fpmode {
    uint64_t found;
    int changed;
};

#if defined(__x86_64__)
#include <immintrin.h>
#define FPMODE_FLAGS 0x3fu     /* sticky exception flags: not ours to restore      */
#define FPMODE_DEFAULT 0x1f80u /* all masked, to nearest, no FTZ, no DAZ          */
static inline uint64_t fpmode_get(void) { return _mm_getcsr() & ~FPMODE_FLAGS; }
static inline void fpmode_set(uint64_t mode)
{
    _mm_setcsr((_mm_getcsr() & FPMODE_FLAGS) | (uint32_t)mode);
}
#elif defined(__aarch64__)
#define FPMODE_DEFAULT 0u /* FPCR: to nearest, no traps, no flush to zero */
static inline uint64_t fpmode_get(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static inline void fpmode_set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
#define FPMODE_DEFAULT 0u
static inline uint64_t fpmode_get(void) { return FPMODE_DEFAULT; }
static inline void fpmode_set(uint64_t mode) { (void)mode; }
#endif

static inline struct fpmode fpmode_enter(void)
{
    const uint64_t found = fpmode_get();
    const struct fpmode mode = {found, found != FPMODE_DEFAULT};
    if (mode.changed) fpmode_set(FPMODE_DEFAULT);
    return mode;
}

static inline void fpmode_leave(struct fpmode mode)
{
    if (mode.changed) fpmode_set(mode.found);
}

#endif
