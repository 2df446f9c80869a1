// SPDX-License-Identifier: MIT
#include "hostile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint32_t crc32(const unsigned char *data, size_t size)
{
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256 && !table[255]; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return ~crc;
}

void seal(unsigned char *image, size_t size)
{
    memset(image + CRC_AT, 0, 4);
    const uint32_t crc = crc32(image, size);
    for (int i = 0; i < 4; i++) image[CRC_AT + i] = (unsigned char)(crc >> 8 * i);
}

int use(const clstm_model *model)
{
    enum { STEPS = 3, BATCH = 2 };
    const size_t n_in = clstm_input_size(model), n_out = clstm_output_size(model);
    const size_t x_row = n_in ? n_in : 1, n = STEPS * BATCH;
    /* Widths of which no tensor tells: sound, and they would only take long. */
    if (n_in > 4096 || clstm_stream_bytes(model) > (1 << 22)) return 1;
    float *x = calloc(n * x_row, sizeof *x), *y = calloc(n * n_out, sizeof *y);
    float *state = calloc(BATCH * clstm_state_size(model) + 1, sizeof *state);
    int64_t tokens[STEPS * BATCH] = {0, -1,        (int64_t)clstm_vocabulary(model),
                                     0, INT64_MIN, INT64_MAX};
    const size_t lengths[BATCH] = {1, STEPS};
    const clstm_batch batch = {.n_steps = STEPS,
                               .n_batch = BATCH,
                               .x = n_in ? x : NULL,
                               .tokens = n_in ? NULL : tokens,
                               .y = y,
                               .x_batch = STEPS * x_row,
                               .x_step = x_row,
                               .y_batch = STEPS * n_out,
                               .y_step = n_out,
                               .lengths = lengths,
                               .state_out = state};
    int fine = clstm_sequence(model, &batch) == CLSTM_OK;
    clstm_stream *s = NULL;
    if (clstm_streamable(model)) fine = clstm_stream_create(model, &s) == CLSTM_OK && fine;
    if (s) {
        if (n_in) clstm_run(s, STEPS, x, y);
        else clstm_run_tokens(s, STEPS, tokens, y);
        clstm_get_state(s, state);
        clstm_set_state(s, state);
    }
    clstm_stream_free(s);
    free(x), free(y), free(state);
    return fine;
}
