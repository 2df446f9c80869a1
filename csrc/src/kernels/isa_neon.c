// SPDX-License-Identifier: MIT
#include "region.h"

#include "../cpu.h"
#include "kernels.h"

#ifdef CLSTM_ARM
#include "vec_neon.h"

#include "math.inc.h"

#include "product.inc.h"

#include "finish.inc.h"

#include "cell.inc.h"
#include "map.inc.h"
#include "norm.inc.h"

const struct kernels clstm_kernels_neon = {"neon", CPU_NEON, product, cell, map, norm};
#endif
