// SPDX-License-Identifier: MIT
/* How a failure gets its sentence. */
#ifndef CLSTM_STATUS_H
#define CLSTM_STATUS_H

#include "clstm.h"

#define ERR_BYTES 256

/* Writes the sentence into err unless that is NULL, and returns status. */
clstm_status clstm_fail(char *err, clstm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
