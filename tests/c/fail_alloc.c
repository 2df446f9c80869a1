// SPDX-License-Identifier: MIT
/* To be preloaded: the N-th request for memory after fail_alloc_arm(N) fails, and counts blocks.
 *
 *     cc -shared -fPIC fail_alloc.c -o fail_alloc.so && LD_PRELOAD=./fail_alloc.so program
 *
 * For glibc, whose own names for its functions are used: dlsym would itself allocate. */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static long left, hits, live;

/* Arms, or with 0 disarms; returns how many requests failed since the last time. */
long fail_alloc_arm(long n)
{
    const long before = hits;
    left = n, hits = 0;
    return before;
}

long fail_alloc_live(void) { return live; }

static int fails(void)
{
    if (left == 0 || --left > 0) return 0;
    hits++;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory)
{
    live += memory != NULL;
    return memory;
}

void *malloc(size_t n) { return fails() ? NULL : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *memory, size_t n)
{
    if (fails()) return NULL;
    return memory ? __libc_realloc(memory, n) : counted(__libc_realloc(NULL, n));
}
void free(void *memory)
{
    live -= memory != NULL;
    __libc_free(memory);
}
