// SPDX-License-Identifier: MIT
/* Images that somebody changed, and what is done with a model that loads from one. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stddef.h>

#include "clstm.h"

#define CRC_AT 60

/* Makes the checksum right again. */
void seal(unsigned char *image, size_t size);

/* A few steps and a short batch of a model that loaded, whatever it is. Returns whether all that
 * must work did. */
int use(const clstm_model *model);

#endif
