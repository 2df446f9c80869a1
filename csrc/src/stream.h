// SPDX-License-Identifier: MIT
#ifndef CLSTM_STREAM_H
#define CLSTM_STREAM_H

#include "frame.h"

struct clstm_stream {
    const clstm_model *model; /* borrowed: must outlive the stream          */
    void *owned;              /* what clstm_stream_free frees, or NULL      */
    float *state;             /* [model->state_row], in the stream's memory */
    struct frame frame;
};

#endif
