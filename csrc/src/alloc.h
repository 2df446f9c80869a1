// SPDX-License-Identifier: MIT
/* The only file that asks the system for memory. */
#ifndef CLSTM_ALLOC_H
#define CLSTM_ALLOC_H

#include <stddef.h>

#define CACHE_LINE 64

/* Zeroed, aligned to a cache line; NULL when there is none. */
void *clstm_alloc(size_t bytes);
void *clstm_alloc_raw(size_t bytes); /* not zeroed */
void clstm_free(void *memory);

/* Blocks that live and die together: a failure half way frees them all at once. */
struct arena {
    struct arena_block *blocks;
    size_t bytes;
};
void *clstm_arena_take(struct arena *arena, size_t bytes);
void clstm_arena_free(struct arena *arena);

/* Parts of one block. With memory NULL it only counts, so that the size of a block and
 * what goes where in it come from the same lines. */
struct carver {
    char *memory;
    size_t used;
};
void *clstm_carve(struct carver *carver, size_t count, size_t size);

#endif
