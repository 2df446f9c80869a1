// SPDX-License-Identifier: MIT
/* A caller's floating-point control bits (promise 4): every rounding mode, flush-to-zero
 * and denormals-are-zero, traps unmasked too. The bits of all results must not depend on
 * them, and they must be found as they were.
 *
 *     modes PACK MODELS
 */
#include <stdio.h>
#include <stdlib.h>

#include "control_bits.h"
#include "drive.h"

#ifdef NO_CONTROL_BITS
int main(void) { return puts("modes: not run, no control bits known here"), 77; }
#else
static long n_changed;

static void enter(void *mode) { set(*(uint64_t *)mode); }

static void leave(void *mode)
{
    n_changed += get() != *(uint64_t *)mode;
    set(DEFAULT);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: modes PACK MODELS\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    uint64_t modes[64];
    const size_t n_modes = list_modes(modes), n_models = strtoull(argv[2], NULL, 10);
    const char *kernel;
    for (size_t k = 0; (kernel = clstm_available_kernel(k)); k++) {
        for (size_t i = 0; i < n_models && i < pack.n; i++) {
            size_t size, rows;
            const unsigned char *image = pack_image(&pack, i, &size, &rows);
            struct drive d = {.kernel = kernel, .seed = i, .work = 4000};
            const uint64_t hash = drive(image, size, &d);
            d.enter = enter;
            d.leave = leave;
            for (size_t m = 0; m < n_modes; m++) {
                d.context = &modes[m];
                check(drive(image, size, &d) == hash, "%s, model %zu: mode %llx changes the bits",
                      kernel, i, (unsigned long long)modes[m]);
            }
        }
        check(n_changed == 0, "%s: control bits not found as they were, %ld times", kernel,
              n_changed);
        printf("%s: %zu modes of the caller\n", kernel, n_modes);
    }
    free(pack.data);
    return check_report("modes");
}
#endif
