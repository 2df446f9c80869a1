// SPDX-License-Identifier: MIT
/* Chooses the kernel set of a model, once. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "model.h"
#include "status.h"

/* Best first. */
static const struct kernels *const sets[] = {
#if defined(__x86_64__)
    &clstm_kernels_avx512,
    &clstm_kernels_avx2,
#elif defined(__aarch64__)
    &clstm_kernels_neon,
#endif
    &clstm_kernels_scalar,
};

static const char *const names[] = {"avx512", "avx2", "neon", "scalar"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *clstm_available_kernel(size_t i)
{
    for (size_t s = 0; s < COUNT(sets); s++)
        if (clstm_cpu_has(sets[s]->needs) && i-- == 0) return sets[s]->name;
    return NULL;
}

clstm_status clstm_choose_kernels(const clstm_options *opt, const struct kernels **out, char *err)
{
    const char *name = opt->kernel;
    if (!name) name = getenv("CLSTM_KERNEL");
    for (size_t s = 0; s < COUNT(sets); s++)
        if ((!name || !*name || !strcmp(name, sets[s]->name)) && clstm_cpu_has(sets[s]->needs)) {
            *out = sets[s];
            return CLSTM_OK;
        }
    for (size_t i = 0; i < COUNT(names); i++)
        if (!strcmp(name, names[i]))
            return clstm_fail(err, CLSTM_UNSUPPORTED, "kernel %s: this CPU or build lacks it",
                              name);
    return clstm_fail(err, CLSTM_BAD_ARGUMENT,
                      "kernel \"%.32s\": expected avx512, avx2, neon or scalar", name);
}
