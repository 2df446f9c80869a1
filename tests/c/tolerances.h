// SPDX-License-Identifier: MIT
/* What the C programs allow. tests/bounds/tolerances.py derives each number under the same name,
 * and tests/unit/test_tolerances.py compares the two. */
#ifndef TOLERANCES_H
#define TOLERANCES_H

#define U 0x1p-24     /* half the spacing of float32 at 1 */
#define TINY 0x1p-149 /* its least number */
#define FLUSH 0x1p-100
#define SLACK (1 + 0x1p-20)

#define TANH_ULPS 1.5
#define SIGMOID_ULPS 2.0
#define HEAD_ULPS 4.0
#define HEAD_FLOOR 0x1p-23
#define ELU_ULPS 2.5
#define SOFTPLUS_ULPS 3.0

#define REFERENCE 0x1p-49

#endif
