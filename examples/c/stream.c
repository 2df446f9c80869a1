// SPDX-License-Identifier: MIT
// Streams numbers from standard input through a model, a line of outputs per frame.
//     cc -O2 -Icsrc/include csrc/src/*.c csrc/src/kernels/*.c examples/c/stream.c -lm -o stream
//     cc -O2 examples/c/stream.c $(clstm config --cflags --libs) -o stream     (an installed clstm)
//     ./stream model.clstm < frames.txt
#include <clstm.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    char err[256] = "usage: stream FILE, or stream - FILE to load from memory";
    clstm_model *model = NULL;
    clstm_stream *stream = NULL;
    clstm_status status = CLSTM_BAD_ARGUMENT;
    if (argc == 2) status = clstm_model_load(argv[1], NULL, &model, err);
    if (argc == 3) {
        static char bytes[1 << 24]; /* a model of up to 16 MiB */
        FILE *file = fopen(argv[2], "rb");
        size_t size = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        status = clstm_model_load_memory(bytes, size, NULL, &model, err);
    }
    if (status == CLSTM_OK) status = clstm_stream_create(model, &stream);
    if (status != CLSTM_OK) return fprintf(stderr, "%s\n", err), 2;

    size_t n = clstm_input_size(model), n_out = clstm_output_size(model), filled = 0;
    float *x = malloc(n * sizeof *x), *y = malloc(n_out * sizeof *y);
    while (x && y && scanf("%f", &x[filled]) == 1) {
        if (++filled < n) continue;
        clstm_step(stream, x, y); /* cannot fail, allocates nothing */
        for (size_t i = 0; i < n_out; i++) printf("%.9g%c", y[i], i + 1 < n_out ? ' ' : '\n');
        filled = 0;
    }
    free(x), free(y), clstm_stream_free(stream), clstm_model_free(model);
    return 0;
}
