// SPDX-License-Identifier: MIT
#define REGION_PLAIN
#include "region.h"

#include "../cpu.h"
#include "kernels.h"

#include "vec_scalar.h"

#include "math.inc.h"

#include "product.inc.h"

#include "finish.inc.h"

#include "cell.inc.h"
#include "map.inc.h"
#include "norm.inc.h"

const struct kernels clstm_kernels_scalar = {"scalar", CPU_ANY, product, cell, map, norm};
