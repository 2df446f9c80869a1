// SPDX-License-Identifier: MIT
/* A file that is cut, written over or replaced while it is read: the old model, the new one, or an
 * error with a sentence.
 *
 *     check_changes MODEL COUNT
 *
 * Each change is made at a known moment, before and amid the bytes that fread gives; then a child
 * changes the file without end while it is loaded COUNT times. MODEL is a file of a model that
 * streams, of more bytes than stdio keeps; it is copied. For glibc, whose fread_unlocked is fread.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "clstm.h"
#include "hostile.h"

enum { OLD, NEW, REFUSED, UNREAD };
enum change { NONE, CUT_ALL, CUT_HALF, CUT_ONE, GROW, WRITE_OVER, RENAME, REMOVE, BREAK, CHANGES };

static char path[4096], other[4096];
static unsigned char *image[2]; /* the model, and one of as many bytes with other weights */
static size_t size;
static float expected[2];
static enum change armed;
static int amid;

static void put(const char *where, const unsigned char *data, size_t n, size_t piece)
{
    FILE *file = fopen(where, piece ? "r+b" : "wb");
    if (!file) exit(2);
    for (size_t at = 0; at < n; at += piece ? piece : n) {
        fwrite(data + at, 1, piece && n - at > piece ? piece : n - at, file);
        fflush(file);
    }
    fclose(file);
}

static void make(enum change change, FILE *file)
{
    int failed = 0;
    switch (change) {
    case CUT_ALL: failed = truncate(path, 0); break;
    case CUT_HALF: failed = truncate(path, (off_t)size / 2); break;
    case CUT_ONE: failed = truncate(path, (off_t)size - 1); break;
    case GROW: failed = truncate(path, (off_t)size + 1); break;
    case WRITE_OVER: put(path, image[NEW], size, 1000); break;
    case RENAME:
        put(other, image[NEW], size, 0);
        failed = rename(other, path);
        break;
    case REMOVE: failed = remove(path); break;
    case BREAK: failed = dup2(open(path, O_WRONLY), fileno(file)) < 0; break; /* reads fail now */
    case NONE:
    case CHANGES: break;
    }
    if (failed) exit(2);
}

/* In place of the C library's. */
size_t fread(void *data, size_t item, size_t n, FILE *file)
{
    const enum change change = armed;
    armed = NONE;
    if (change == NONE) return fread_unlocked(data, item, n, file);
    size_t got = amid ? fread_unlocked(data, item, n / 2, file) : 0;
    make(change, file);
    got += fread_unlocked((char *)data + got * item, item, n - got, file);
    return got;
}

static float output(clstm_model *model)
{
    clstm_stream *s = NULL;
    if (clstm_stream_create(model, &s) != CLSTM_OK) exit(2);
    float x[64], y[64]; /* the test's model is smaller */
    for (size_t i = 0; i < 64; i++) x[i] = 1;
    clstm_step(s, x, y);
    clstm_stream_free(s);
    return y[0];
}

static int load(const char *what)
{
    clstm_model *model = NULL;
    char err[256] = "";
    const clstm_status status = clstm_model_load(path, NULL, &model, err);
    if (status != CLSTM_OK) {
        check((status == CLSTM_BAD_FILE || status == CLSTM_IO) && !model && *err,
              "%s: status %d (%s)", what, status, err);
        return status == CLSTM_IO ? UNREAD : REFUSED;
    }
    const float y = output(model);
    clstm_model_free(model);
    check(y == expected[OLD] || y == expected[NEW], "%s: neither of the models", what);
    return y == expected[NEW] ? NEW : OLD;
}

static void check_each(void)
{
    static const char *const names[CHANGES] = {"none",       "all cut", "half cut",
                                               "a byte cut", "grew",    "written over",
                                               "renamed",    "removed", "broken"};
    for (int i = 0; i < 2 * CHANGES; i++) {
        const enum change change = (enum change)(i / 2);
        const int cut = change >= CUT_ALL && change <= CUT_ONE;
        put(path, image[OLD], size, 0);
        armed = change, amid = i % 2;
        const int found = load(names[change]);
        check(!armed, "%s: fread was not called", names[change]);
        if (cut) check(found == REFUSED, "%s: loads", names[change]);
        else if (change == BREAK) check(found == UNREAD, "%s: %d", names[change], found);
        else if (change != WRITE_OVER) check(found == OLD, "%s: not as opened", names[change]);
    }
}

static void change_until_gone(pid_t parent)
{
    struct rng r = rng_seeded(5);
    while (getppid() == parent) {
        switch (rng_below(&r, 4)) {
        case 0: put(path, image[rng_below(&r, 2)], size, 0); break;
        case 1: put(path, image[rng_below(&r, 2)], size, 1000); break;
        case 2:
            put(other, image[rng_below(&r, 2)], size, 0);
            if (rename(other, path)) _exit(2);
            break;
        default:
            if (truncate(path, (off_t)rng_below(&r, size))) _exit(2);
        }
    }
}

static void check_child(long count)
{
    long seen[4] = {0};
    const pid_t parent = getpid(), child = fork();
    if (child == 0) {
        change_until_gone(parent);
        _exit(0);
    }
    /* On one CPU the child gets its turn now and then only. */
    for (long i = 0; i < count || (i < 100 * count && !(seen[REFUSED] && seen[OLD] + seen[NEW]));
         i++)
        seen[load("changed by a child")]++;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    check(seen[REFUSED] && seen[OLD] + seen[NEW] && !seen[UNREAD], "nothing changed, or IO");
    printf("%ld loads: %ld of one, %ld of the other, %ld refused\n",
           seen[OLD] + seen[NEW] + seen[REFUSED], seen[OLD], seen[NEW], seen[REFUSED]);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: check_changes MODEL COUNT\n"), 2;
    snprintf(path, sizeof path, "%s.changing", argv[1]);
    snprintf(other, sizeof other, "%s.new", argv[1]);
    image[OLD] = read_file(argv[1], &size);
    image[NEW] = malloc(size);
    memcpy(image[NEW], image[OLD], size);
    /* Every weight of the first layer with the other sign. Few: one byte says how many. */
    const size_t n_ops = image[OLD][24], n_tensors = image[OLD][64 + 36];
    for (size_t i = 0; i < n_tensors; i++) {
        uint64_t at, bytes;
        memcpy(&at, image[OLD] + 64 + n_ops * 128 + i * 64, 8);
        memcpy(&bytes, image[OLD] + 64 + n_ops * 128 + i * 64 + 8, 8);
        for (uint64_t k = 3; k < bytes; k += 4) image[NEW][at + k] ^= 0x80;
    }
    seal(image[NEW], size);
    for (int i = 0; i < 2; i++) {
        clstm_model *model = NULL;
        if (clstm_model_load_memory(image[i], size, NULL, &model, NULL) != CLSTM_OK) return 2;
        expected[i] = output(model);
        clstm_model_free(model);
    }
    check(expected[OLD] != expected[NEW], "the models are alike");
    check_each();
    put(path, image[OLD], size, 0);
    check_child(strtol(argv[2], NULL, 10));
    return check_report("check_changes");
}
