// SPDX-License-Identifier: MIT
#include "region.h"

#include "../cpu.h"
#include "kernels.h"

#ifdef CLSTM_X86
REGION_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "vec_avx512.h"

#include "math.inc.h"

#include "product.inc.h"

#include "finish.inc.h"

#include "cell.inc.h"
#include "map.inc.h"
#include "norm.inc.h"
REGION_END

const struct kernels clstm_kernels_avx512 = {"avx512", CPU_AVX512, product, cell, map, norm};
#endif
