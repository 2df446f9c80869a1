// SPDX-License-Identifier: MIT
/* Same bits (promise 3): one number for all models of a pack, on every kernel set.
 *
 *     digest PACK [WORK [KERNEL ...]]
 *
 * drives each model every way (see drive.h) on every kernel set of this CPU, or on those
 * named, demands equal bits of all, and prints "digest HEX" of outputs and states. The
 * number must not depend on the compiler, its flags or the machine. WORK is the number of
 * multiply-adds that each way may cost a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drive.h"

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: digest PACK [WORK [KERNEL ...]]\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    const size_t work = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
    uint64_t *hashes = calloc(pack.n, sizeof *hashes), digest = HASH_START;
    char first[16] = "";
    for (size_t k = 0;; k++) {
        const char *kernel = argc > 3 ? argv[k + 3] : clstm_available_kernel(k);
        if (!kernel) break;
        const long before = n_failed;
        for (size_t i = 0; i < pack.n; i++) {
            struct drive d = {.kernel = kernel, .seed = i, .work = work};
            size_t size;
            const unsigned char *image = pack_image(&pack, i, &size, &d.rows);
            const uint64_t hash = drive(image, size, &d);
            if (k == 0) hashes[i] = hash;
            else check(hash == hashes[i], "model %zu: %s is not %s", i, kernel, first);
        }
        if (k == 0) snprintf(first, sizeof first, "%s", kernel);
        printf("%s: %zu models, %s\n", kernel, pack.n, n_failed == before ? "same bits" : "FAILED");
        fflush(stdout);
    }
    for (size_t i = 0; i < pack.n; i++) digest = hash_u64(digest, hashes[i]);
    printf("digest %016llx of %zu models\n", (unsigned long long)digest, pack.n);
    free(hashes);
    free(pack.data);
    return check_report("digest");
}
