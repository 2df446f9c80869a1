// SPDX-License-Identifier: MIT
/* No instruction-set region may be open in this file: it runs on every CPU. */
#include "cpu.h"

int clstm_cpu_has(enum cpu_feature feature)
{
    switch (feature) {
    case CPU_ANY: return 1;
#if defined(__x86_64__)
    /* The builtins ask the operating system too (XGETBV), not CPUID alone. */
    case CPU_AVX2:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case CPU_AVX512:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__aarch64__)
    case CPU_NEON: return 1; /* part of the architecture */
#endif
    default: return 0;
    }
}
