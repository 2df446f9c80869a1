// SPDX-License-Identifier: MIT
// A network of one input and one output as an effect in an audio callback.
//     cc -O2 examples/audio/effect.c $(clstm config --cflags --libs) -o effect
//     ./effect model.clstm < in.f32 > out.f32      (raw mono float samples, as in a WAV of floats)
// process() is what JACK or PortAudio would call from its audio thread, but for the names that
// they give to its arguments; main() is in their place.
#include <clstm.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

enum { BLOCK = 64 }; /* frames, 1.3 ms at 48 kHz */

struct effect {
    clstm_stream *stream; /* the audio thread's alone, once that runs */
    atomic_int restart;   /* any thread may set it: the song begins anew */
};

/* No allocation, no lock, no system call: nothing that could wait for another thread. The time it
 * takes depends on n_frames alone. */
static int process(unsigned n_frames, const float *in, float *out, void *user)
{
    struct effect *effect = user;
    if (atomic_exchange_explicit(&effect->restart, 0, memory_order_relaxed))
        clstm_reset(effect->stream);
    clstm_run(effect->stream, n_frames, in, out);
    if (n_frames && !isfinite(out[n_frames - 1])) { /* a NaN that came in would stay in the state */
        for (unsigned i = 0; i < n_frames; i++) out[i] = 0;
        clstm_reset(effect->stream);
    }
    return 0;
}

int main(int argc, char **argv)
{
    char err[256] = "usage: effect MODEL < IN > OUT";
    clstm_model *model = NULL;
    struct effect effect = {NULL, 0};
    /* All that may fail or take long is done before the audio starts. */
    if (argc != 2 || clstm_model_load(argv[1], NULL, &model, err) != CLSTM_OK)
        return fprintf(stderr, "%s\n", err), 2;
    if (clstm_input_size(model) != 1 || clstm_output_size(model) != 1 ||
        clstm_stream_create(model, &effect.stream) != CLSTM_OK)
        return fprintf(stderr, "%s: not a stream of one input and one output\n", argv[1]), 2;

    float in[BLOCK], out[BLOCK];
    size_t n;
    while ((n = fread(in, sizeof *in, BLOCK, stdin)) > 0) {
        process((unsigned)n, in, out, &effect);
        if (fwrite(out, sizeof *out, n, stdout) != n) return 2;
    }
    /* The audio has stopped: only now may these go, the model last. */
    clstm_stream_free(effect.stream), clstm_model_free(model);
    return fflush(stdout) ? 2 : 0;
}
