// SPDX-License-Identifier: MIT
#include "alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
    struct arena_block *next;
};

void *clstm_alloc_raw(size_t bytes)
{
    /* malloc and a line more, not aligned_alloc: every C library has it. The pointer to
     * free stands in the word before the block. */
    if (bytes > SIZE_MAX - 2 * CACHE_LINE) return NULL;
    char *raw = malloc(bytes + CACHE_LINE + sizeof(void *));
    if (!raw) return NULL;
    const uintptr_t past = (uintptr_t)raw + sizeof(void *) + CACHE_LINE - 1;
    char *memory = (char *)(past - past % CACHE_LINE);
    memcpy(memory - sizeof raw, &raw, sizeof raw);
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
    if (bytes > SIZE_MAX - CACHE_LINE) return NULL;
    struct arena_block *block = clstm_alloc(CACHE_LINE + bytes);
    if (!block) return NULL;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->bytes += CACHE_LINE + bytes;
    return (char *)block + CACHE_LINE;
}

void clstm_arena_free(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *next = arena->blocks->next;
        clstm_free(arena->blocks);
        arena->blocks = next;
    }
}

void *clstm_carve(struct carver *carver, size_t count, size_t size)
{
    const size_t at = carver->used, bytes = count * size;
    carver->used += (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return carver->memory ? carver->memory + at : NULL;
}
