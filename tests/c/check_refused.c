// SPDX-License-Identifier: MIT
/* Images whose records contradict themselves: each is refused with a sentence.
 *
 *     check_refused PACK
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clstm.h"

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: check_refused PACK\n"), 2;
    const struct pack pack = pack_read(argv[1]);
    for (size_t i = 0; i < pack.n; i++) {
        size_t size, rows;
        const unsigned char *image = pack_image(&pack, i, &size, &rows);
        unsigned char *copy = malloc(size); /* of the very size: a sanitizer sees what is past it */
        memcpy(copy, image, size);
        char err[256] = "";
        clstm_model *model = NULL;
        const clstm_status status = clstm_model_load_memory(copy, size, NULL, &model, err);
        check(status == CLSTM_BAD_FILE || status == CLSTM_UNSUPPORTED, "image %zu: status %d", i,
              status);
        check(!model && *err && memchr(err, 0, sizeof err), "image %zu: no sentence", i);
        printf("%zu: %s\n", i, err);
        clstm_model_free(model);
        free(copy);
    }
    free(pack.data);
    return check_report("check_refused");
}
