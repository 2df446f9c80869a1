// SPDX-License-Identifier: MIT
/* So many calls of a HOT function, or of clstm_sequence, for callgrind to count:
 *
 *     valgrind --tool=callgrind --toggle-collect=clstm_step count_calls MODEL step CALLS 1 1
 *     valgrind --tool=callgrind --toggle-collect=clstm_sequence \
 *         count_calls MODEL sequence CALLS STEPS ROWS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clstm.h"

int main(int n, char **words)
{
    clstm_model *model;
    clstm_stream *stream;
    char err[256];
    if (n != 6) return fprintf(stderr, "five words are needed\n"), 2;
    if (clstm_model_load(words[1], NULL, &model, err) || clstm_stream_create(model, &stream))
        return fprintf(stderr, "%s: %s\n", words[1], err), 1;
    const long calls = atol(words[3]);
    const size_t steps = (size_t)atol(words[4]), rows = (size_t)atol(words[5]);
    const size_t n_in = clstm_input_size(model), n_out = clstm_output_size(model);
    float *x = malloc(steps * rows * n_in * sizeof *x),
          *y = malloc(steps * rows * n_out * sizeof *y);
    if (!x || !y) return 1;
    for (size_t i = 0; i < steps * rows * n_in; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    const clstm_batch batch = {.n_steps = steps,
                               .n_batch = rows,
                               .x = x,
                               .y = y,
                               .x_batch = n_in,
                               .x_step = rows * n_in,
                               .y_batch = n_out,
                               .y_step = rows * n_out};
    for (long i = 0; i < calls; i++) {
        if (!strcmp(words[2], "step")) clstm_step(stream, x, y);
        else if (clstm_sequence(model, &batch)) return 1;
    }
    printf("%s\n", clstm_kernel(model));
    free(x), free(y);
    clstm_stream_free(stream);
    clstm_model_free(model);
    return 0;
}
