// SPDX-License-Identifier: MIT
/* A caller's floating-point control bits: to read, to set, and a list of all modes. */
#ifndef CONTROL_BITS_H
#define CONTROL_BITS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define FLAGS 0x3fu
#define DEFAULT 0x1f80u
static uint64_t get(void) { return _mm_getcsr() & ~FLAGS; }
static void set(uint64_t mode) { _mm_setcsr((unsigned)mode); } /* sticky flags cleared */
static size_t list_modes(uint64_t *out)
{
    size_t n = 0;
    for (unsigned rounding = 0; rounding < 4; rounding++)
        for (unsigned flush = 0; flush < 4; flush++) /* FTZ bit 15, DAZ bit 6 */
            for (unsigned mask = 0; mask < 2; mask++)
                out[n++] =
                    (mask ? 0 : 0x1f80u) | rounding << 13 | (flush & 1) << 15 | (flush >> 1) << 6;
    return n;
}
#elif defined(__aarch64__)
#define DEFAULT 0u
static uint64_t get(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
static size_t list_modes(uint64_t *out)
{
    size_t n = 0;
    for (uint64_t rounding = 0; rounding < 4; rounding++)
        for (uint64_t flush = 0; flush < 4; flush++) /* FZ bit 24, DN bit 25; traps are optional */
            out[n++] = rounding << 22 | flush << 24;
    return n;
}
#else
#define NO_CONTROL_BITS
#endif

#endif
