// SPDX-License-Identifier: MIT
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#endif
#include "alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

struct arena_block {
    struct arena_block *next;
    void *memory; /* apart from it, so that a block of whole huge pages takes no page more */
};

void *clstm_alloc_raw(size_t bytes)
{
    /* malloc and a line more, not aligned_alloc: every C library has it. The pointer to
     * free stands in the word before the block. */
    const size_t align = bytes >= HUGE_PAGE / 2 ? HUGE_PAGE : CACHE_LINE;
    if (bytes > SIZE_MAX / 2) return NULL;
    char *raw = malloc(bytes + align + sizeof(void *));
    if (!raw) return NULL;
    const uintptr_t past = (uintptr_t)raw + sizeof(void *) + align - 1;
    char *memory = (char *)(past - past % align);
    memcpy(memory - sizeof raw, &raw, sizeof raw);
#if defined(MADV_HUGEPAGE)
    /* Weights that fill L2 are read a third faster from huge pages. A wish, never a need. */
    if (align == HUGE_PAGE) madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
}

void *clstm_alloc(size_t bytes)
{
    void *memory = clstm_alloc_raw(bytes);
    return memory ? memset(memory, 0, bytes) : NULL;
}

void clstm_free(void *memory)
{
    if (!memory) return;
    char *raw;
    memcpy(&raw, (char *)memory - sizeof raw, sizeof raw);
    free(raw);
}

void *clstm_arena_take(struct arena *arena, size_t bytes)
{
    struct arena_block *block = clstm_alloc_raw(sizeof *block);
    void *memory = block ? clstm_alloc(bytes) : NULL;
    if (!memory) {
        clstm_free(block);
        return NULL;
    }
    *block = (struct arena_block){arena->blocks, memory};
    arena->blocks = block;
    arena->bytes += bytes;
    return memory;
}

void clstm_arena_free(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        clstm_free(block->memory);
        clstm_free(block);
    }
}

void *clstm_carve(struct carver *carver, size_t count, size_t size)
{
    const size_t at = carver->used, bytes = count * size;
    if (at > SIZE_MAX / 2 || (size && count > (SIZE_MAX / 2 - at) / size)) {
        carver->used = SIZE_MAX; /* more than there is; clstm_alloc will say so */
        return NULL;
    }
    carver->used += (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return carver->memory ? carver->memory + at : NULL;
}
