// SPDX-License-Identifier: MIT
#include "status.h"

#include <stdarg.h>
#include <stdio.h>

clstm_status clstm_fail(char *err, clstm_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err, ERR_BYTES, format, args);
        va_end(args);
    }
    return status;
}

int clstm_abi_version(void) { return CLSTM_ABI_VERSION; }
const char *clstm_version(void) { return CLSTM_VERSION; }
