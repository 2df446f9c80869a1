// SPDX-License-Identifier: MIT
/* To be preloaded: counts what asks for memory, and what takes a lock, while it is armed.
 *
 *     cc -shared -fPIC count_alloc.c -o count_alloc.so && LD_PRELOAD=./count_alloc.so program
 *
 * For glibc, whose own names for its functions are used: dlsym would itself allocate. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

int count_alloc_armed;
long count_alloc_total, count_lock_total;

static void count(void) { count_alloc_total += count_alloc_armed; }

void *malloc(size_t n) { return count(), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void *realloc(void *memory, size_t n) { return count(), __libc_realloc(memory, n); }
void *memalign(size_t align, size_t n) { return count(), __libc_memalign(align, n); }
void *aligned_alloc(size_t align, size_t n) { return count(), __libc_memalign(align, n); }
void *valloc(size_t n) { return count(), __libc_memalign(4096, n); }

int posix_memalign(void **out, size_t align, size_t n)
{
    count();
    void *memory = __libc_memalign(align, n);
    if (memory) *out = memory;
    return memory ? 0 : ENOMEM;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    count();
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}
void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    return mmap(at, n, prot, flags, fd, offset);
}
void *mremap(void *at, size_t old, size_t n, int flags, ...)
{
    count();
    return (void *)syscall(SYS_mremap, at, old, n, flags, NULL);
}
int brk(void *end)
{
    count();
    return syscall(SYS_brk, end) == (long)(intptr_t)end ? 0 : (errno = ENOMEM, -1);
}
void *sbrk(intptr_t more)
{
    count();
    char *end = (char *)syscall(SYS_brk, 0);
    if (more && syscall(SYS_brk, end + more) != (long)(intptr_t)(end + more))
        return errno = ENOMEM, (void *)-1;
    return end;
}

extern int __pthread_mutex_lock(pthread_mutex_t *);
extern int __pthread_mutex_trylock(pthread_mutex_t *);
extern int __pthread_rwlock_rdlock(pthread_rwlock_t *);
extern int __pthread_rwlock_wrlock(pthread_rwlock_t *);
extern int __pthread_once(pthread_once_t *, void (*)(void));

static void count_lock(void) { count_lock_total += count_alloc_armed; }

int pthread_mutex_lock(pthread_mutex_t *m) { return count_lock(), __pthread_mutex_lock(m); }
int pthread_mutex_trylock(pthread_mutex_t *m) { return count_lock(), __pthread_mutex_trylock(m); }
int pthread_rwlock_rdlock(pthread_rwlock_t *l) { return count_lock(), __pthread_rwlock_rdlock(l); }
int pthread_rwlock_wrlock(pthread_rwlock_t *l) { return count_lock(), __pthread_rwlock_wrlock(l); }
int pthread_once(pthread_once_t *o, void (*f)(void)) { return count_lock(), __pthread_once(o, f); }
