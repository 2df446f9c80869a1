// SPDX-License-Identifier: MIT
/* A job is handed over by a number that grows. A worker waits for it in a bounded spin, then
 * asleep. Shares are claimed: whoever comes first to one does it, so a caller whose workers are
 * asleep, or have lost their core to others, does all by itself and waits for nobody. The first
 * claim of a worker is its own share: its part of the weights is in its cache.
 *
 * After a fork the child has no workers. It finds out by a count that a fork handler raises,
 * and makes them anew at the first job. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* signal masks under -std=c11, sched_getcpu */
#endif
#include "team.h"

#include <stdatomic.h>
#include <stdint.h>

#include "alloc.h"
#include "fpmode.h"

#if defined(_WIN32)
clstm_status clstm_team_create(int n, struct team **out)
{
    *out = NULL;
    return n > 1 ? CLSTM_UNSUPPORTED : CLSTM_OK;
}
void clstm_team_free(struct team *team) { (void)team; }
int clstm_team_size(const struct team *team) { return (void)team, 1; }
int clstm_team_run(struct team *team, clstm_share *share, const void *job)
{
    return (void)team, (void)share, (void)job, 0;
}
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>

/* A wait: a few microseconds without a word to the system, then, for some 100 more, giving up the
 * core each time: who is waited for may be queued on this very core, and whoever else is there has
 * work to do. A busy stream's gap between two steps is shorter. */
#define SPINS 100
#define YIELDS 300
/* Kernels that clang built with -O0 use half of it; what is not used costs nothing. */
#define STACK ((size_t)4 << 20)

struct worker {
    struct team *team;
    size_t index;
    pthread_t thread;
    _Alignas(CACHE_LINE) atomic_uint claimed; /* the number of the last job whose share is taken */
};

struct team {
    size_t n;
    struct worker *workers; /* [n]; the caller's is the first, without a thread */
    size_t n_started;
    unsigned forks; /* when the workers were made */
    clstm_share *share;
    const void *job;
    pthread_mutex_t lock; /* of sleep */
    pthread_cond_t wake;
    int stop;
    /* Whether somebody is inside: the count of forks, if so. A child finds the count of whoever
     * was inside in the parent, which keeps nobody out here. 0: nobody. */
    _Alignas(CACHE_LINE) atomic_uint busy;
    _Alignas(CACHE_LINE) atomic_uint number; /* of the job */
    _Alignas(CACHE_LINE) atomic_uint done;   /* shares of it */
    atomic_int sleepers;
    atomic_int core; /* where the caller is */
};

static atomic_uint forks = 1;
static void forked(void) { atomic_fetch_add(&forks, 1); }
static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }

static int core(void) /* this thread's; -1 where none can be told */
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* To any other core that the thread may use, free to move again. The system would do so only when
 * it next looks at its queues, some milliseconds later: guests of a hypervisor take a core that
 * halted for a busy one. */
static void move_from(int core)
{
#if defined(__linux__)
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)core;
#endif
}

static inline void pause_(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Share i of job `number`, unless somebody has it. */
static void take(struct team *t, size_t i, unsigned number)
{
    unsigned before = number - 1;
    if (!atomic_compare_exchange_strong(&t->workers[i].claimed, &before, number)) return;
    t->share(t->job, i, t->n);
    atomic_fetch_add_explicit(&t->done, 1, memory_order_release);
}

/* The next job's number, or the old one when the team stops. */
static unsigned await(struct team *t, unsigned number)
{
    /* Yields are not counted while a job runs: who comes late to one is to be there for the next.
     */
    const int here = core();
    /* On the caller's own core it could only be in its way. */
    if (here >= 0 && here == atomic_load_explicit(&t->core, memory_order_relaxed)) move_from(here);
    for (int i = 0; i < SPINS + YIELDS;) {
        const unsigned now = atomic_load_explicit(&t->number, memory_order_acquire);
        if (now != number) return now;
        if (i < SPINS) pause_(), i++;
        else sched_yield(), i += !atomic_load_explicit(&t->busy, memory_order_relaxed);
    }
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(&t->number) == number && !t->stop) pthread_cond_wait(&t->wake, &t->lock);
    atomic_fetch_sub(&t->sleepers, 1);
    number = atomic_load(&t->number);
    pthread_mutex_unlock(&t->lock);
    return number;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct team *t = w->team;
    fpmode_set(FPMODE_DEFAULT); /* a thread begins with its maker's */
    unsigned number = atomic_load(&w->claimed);
    for (;;) {
        const unsigned now = await(t, number);
        if (now == number) return NULL;
        number = now;
        /* A caller may have done the share and be gone; then the claim fails. */
        take(t, w->index, number);
    }
}

static void stop(struct team *t)
{
    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < t->n_started; i++) pthread_join(t->workers[i + 1].thread, NULL);
    t->n_started = 0;
}

/* Starts the workers; those that the system refuses are missed by nobody. */
static void start(struct team *t)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    t->forks = atomic_load(&forks);
    t->stop = 0;
    t->n_started = 0;
    atomic_store(&t->sleepers, 0);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    const unsigned number = atomic_load(&t->number);
    for (size_t i = 0; i < t->n; i++) {
        t->workers[i].team = t;
        t->workers[i].index = i;
        atomic_store(&t->workers[i].claimed, number);
    }
    sigfillset(&all); /* signals are the host's, not the workers' */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    while (t->n_started + 1 < t->n) {
        struct worker *w = &t->workers[t->n_started + 1];
        if (pthread_create(&w->thread, &attributes, work, w)) break;
        t->n_started++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

clstm_status clstm_team_create(int n, struct team **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = NULL;
    if (n < 2) return CLSTM_OK;
    struct team *t = clstm_alloc(sizeof *t);
    struct worker *workers = clstm_alloc((size_t)n * sizeof *workers);
    if (!t || !workers) {
        clstm_free(t);
        clstm_free(workers);
        return CLSTM_NO_MEMORY;
    }
    pthread_once(&once, watch_forks);
    t->n = (size_t)n;
    t->workers = workers;
    atomic_init(&t->core, -1);
    start(t);
    *out = t;
    return CLSTM_OK;
}

void clstm_team_free(struct team *t)
{
    if (!t) return;
    if (t->forks == atomic_load(&forks)) stop(t);
    clstm_free(t->workers);
    clstm_free(t);
}

int clstm_team_size(const struct team *t) { return t ? (int)t->n : 1; }

int clstm_team_run(struct team *t, clstm_share *share, const void *job)
{
    const unsigned now = atomic_load_explicit(&forks, memory_order_relaxed);
    unsigned inside = atomic_load_explicit(&t->busy, memory_order_relaxed);
    if (inside == now || !atomic_compare_exchange_strong_explicit(
                             &t->busy, &inside, now, memory_order_acquire, memory_order_relaxed))
        return 0;
    if (t->forks != now) start(t); /* a child's first job, with no other caller inside */
    t->share = share;
    t->job = job;
    atomic_store_explicit(&t->core, core(), memory_order_relaxed);
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    const unsigned number = atomic_load_explicit(&t->number, memory_order_relaxed) + 1;
    atomic_store(&t->number, number);
    if (atomic_load(&t->sleepers)) {
        pthread_mutex_lock(&t->lock);
        pthread_cond_broadcast(&t->wake);
        pthread_mutex_unlock(&t->lock);
    }
    for (size_t i = 0; i < t->n; i++) take(t, i, number);
    /* What others have claimed they are doing, unless they lost their core meanwhile. */
    for (int i = 0; atomic_load_explicit(&t->done, memory_order_acquire) < t->n; i++) {
        if (i < SPINS) pause_();
        else sched_yield();
    }
    atomic_store_explicit(&t->busy, 0, memory_order_release);
    return 1;
}
#endif
