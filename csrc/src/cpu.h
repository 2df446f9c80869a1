// SPDX-License-Identifier: MIT
/* What this CPU and its operating system grant. */
#ifndef CLSTM_CPU_H
#define CLSTM_CPU_H

enum cpu_feature { CPU_ANY, CPU_AVX2, CPU_AVX512, CPU_NEON };

int clstm_cpu_has(enum cpu_feature feature);

#endif
