// SPDX-License-Identifier: MIT
/* The threads of a model: the caller's own and some workers, each with its share of the unit
 * blocks of every panel, so that its share of the weights stays in its core's L2. */
#ifndef CLSTM_TEAM_H
#define CLSTM_TEAM_H

#include <stddef.h>

#include "clstm.h"

struct team;

/* n threads with the caller's; *out is NULL for one. */
clstm_status clstm_team_create(int n, struct team **out);
void clstm_team_free(struct team *team);
int clstm_team_size(const struct team *team);

/* share(job, i, n) for i of 0 ... n - 1, on as many threads as are awake, and back when all are
 * done. 0, and nothing done, if another thread is using the team: then the caller goes alone. */
typedef void clstm_share(const void *job, size_t i, size_t n);
int clstm_team_run(struct team *team, clstm_share *share, const void *job);

#endif
