# SPDX-License-Identifier: MIT
"""The faults of the threads of a model: many_callers is built with ThreadSanitizer, first_jobs
forks. See mutants.py for what the columns are."""

from mutants import Mutant

TEAM_MUTANTS = [
    Mutant(
        "a share is done before its outputs are seen",
        "team.c",
        "atomic_fetch_add_explicit(&t->done, 1, memory_order_release);",
        "atomic_fetch_add_explicit(&t->done, 1, memory_order_relaxed);",
        "many_callers",
    ),
    Mutant(
        "a job is seen before what it is",
        "team.c",
        "const unsigned now = atomic_load_explicit(&t->number, memory_order_acquire);",
        "const unsigned now = atomic_load_explicit(&t->number, memory_order_relaxed);",
        "many_callers",
    ),
    Mutant(
        "two callers inside a team",
        "team.c",
        "if (inside == now || !",
        "if (0 && !",
        "many_callers",
    ),
    Mutant(
        "a share is taken by all who come",
        "team.c",
        "if (!atomic_compare_exchange_strong(&t->workers[i].claimed, &before, number)) return;",
        "if (atomic_exchange(&t->workers[i].claimed, number) == number + before) return;",
        "many_callers",
    ),
    Mutant(
        "nobody waits for the shares of others",
        "team.c",
        "atomic_load_explicit(&t->done, memory_order_acquire) < t->n; i++)",
        "t->n < 1; i++)",
        "many_callers",
    ),
    Mutant(
        "workers outlive their team",
        "team.c",
        "pthread_join(t->workers[i + 1].thread, NULL);",
        "pthread_detach(t->workers[i + 1].thread);",
        "many_callers",
    ),
    Mutant(
        "a child does not know that it is one",
        "team.c",
        "static void forked(void) { atomic_fetch_add(&forks, 1); }",
        "static void forked(void) {}",
        "first_jobs",
    ),
    Mutant(
        "two callers of a child make its workers",
        "team.c",
        "if (t->forks != now) start(t);",
        "if (t->forks != now) { atomic_store(&t->busy, 0); start(t); }",
        "first_jobs",
    ),
]
