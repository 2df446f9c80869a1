// SPDX-License-Identifier: MIT
/* Not to be run: for clang's analysis of effects (-Wfunction-effects, from 20 on), which follows
 * calls within one file: here are all that step and run go through. Taken for granted are the
 * kernels, which call nothing (test_no_allocation.py looks), and what clstm.h excepts from HOT: the
 * threads of a model, and a BLAS. */
#include "../../csrc/src/gemm.h"
#include "../../csrc/src/team.h"

#ifndef WITHOUT_TEAM
int clstm_team_run(struct team *team, clstm_share *share, const void *job) CLSTM_HOT;
#endif
#ifndef WITHOUT_BLAS
void clstm_blas_product(const struct blas *blas, const float *matrix, size_t n_columns, size_t n_k,
                        size_t n, const float *x, size_t x_stride, struct values y) CLSTM_HOT;
#endif

#include "../../csrc/src/frame.c"
#include "../../csrc/src/parallel.c"
#include "../../csrc/src/recurrent.c"
#include "../../csrc/src/step.c"
#include "../../csrc/src/step_cell.c"
#include "../../csrc/src/stream.c"
