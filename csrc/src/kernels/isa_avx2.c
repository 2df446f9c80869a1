// SPDX-License-Identifier: MIT
#include "region.h"

#include "../cpu.h"
#include "kernels.h"

#ifdef CLSTM_X86
REGION_BEGIN("avx2,fma")
#include "vec_avx2.h"

#include "math.inc.h"

#include "product.inc.h"

#include "finish.inc.h"

#include "cell.inc.h"
#include "map.inc.h"
#include "norm.inc.h"
REGION_END

const struct kernels clstm_kernels_avx2 = {"avx2", CPU_AVX2, product, cell, map, norm};
#endif
