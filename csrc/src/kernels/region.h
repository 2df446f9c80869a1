// SPDX-License-Identifier: MIT
/* A region of functions compiled for an instruction set that the build was not
 * asked for. So no source file needs a flag of its own, and any plain compiler
 * line builds every kernel set. System headers must be included before it opens. */
#ifndef CLSTM_REGION_H
#define CLSTM_REGION_H

#ifdef __FAST_MATH__
#error "clstm promises the same bits everywhere; -ffast-math would break that silently"
#endif

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define CLSTM_X86 1
#include <immintrin.h>
#elif defined(__aarch64__)
#define CLSTM_ARM 1
#include <arm_neon.h>
#endif

/* Second guard against contraction; the first is that no product is ever an
 * operand of + or - (see ARCHITECTURE.md, numeric policy). */
#if defined(__clang__)
#define REGION_STRING(text) #text
#define REGION_BEGIN(isa)                                                                          \
    _Pragma(REGION_STRING(clang attribute push(__attribute__((target(isa))), apply_to = function)))
#define REGION_END _Pragma("clang attribute pop")
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#define REGION_STRING(text) #text
#define REGION_BEGIN(isa) _Pragma("GCC push_options") _Pragma(REGION_STRING(GCC target(isa)))
#define REGION_END _Pragma("GCC pop_options")
#pragma GCC optimize("-ffp-contract=off")
#endif

/* Into L2; any address at all. */
#define PREFETCH(address) __builtin_prefetch((const void *)(address), 0, 2)

/* Loops over registers must vanish, or the registers become memory. Plain C has no vectors to
 * keep there, and would only grow tenfold. */
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline)) /* one copy, or callers grow beyond L1 */
#if defined(REGION_PLAIN)
#define UNROLL
#define UNROLL_2
#define UNROLL_4
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#define UNROLL_2 _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#define UNROLL_4 _Pragma("GCC unroll 4")
#define UNROLL_2 _Pragma("GCC unroll 2")
#endif

#endif
