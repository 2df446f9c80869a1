// SPDX-License-Identifier: MIT
/* libFuzzer on the C reader of .clstm: any bytes give a model that can be used, or an error with a
 * sentence. fuzz.py builds it. With -DREPLAY it reads files instead, and prints what each is. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clstm.h"
#include "hostile.h"

#ifdef REPLAY
#define KERNEL NULL /* $CLSTM_KERNEL, or the best */
#else
#define KERNEL "scalar"
#endif

enum { HEADER = 64, OP = 128, TENSOR = 64 };

static clstm_status load(const uint8_t *data, size_t size, size_t odd, char err[256])
{
    const clstm_options options = {.size = sizeof options, .kernel = KERNEL};
    clstm_model *model = NULL;
    uint8_t *copy = malloc(size + odd); /* of the very size; read in place where it is aligned */
    if (size) memcpy(copy + odd, data, size);
    const clstm_status status = clstm_model_load_memory(copy + odd, size, &options, &model, err);
    memset(copy, 0xa5, size + odd); /* nothing of it may be kept */
    free(copy);
    if ((status == CLSTM_OK) != (model != NULL)) abort();
    if (status != CLSTM_OK && err && (!*err || !memchr(err, 0, 256))) abort();
    if (model && !use(model)) abort();
    clstm_model_free(model);
    return status;
}

#ifdef REPLAY

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return 2;
        static uint8_t data[1 << 20];
        const size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        char err[256] = "";
        const clstm_status status = load(data, size, 0, err);
        printf("%d %s\n", (int)status, err);
        clstm_model *model = NULL;
        if (load(data, size, 1, NULL) != status) return 3;
        if (clstm_model_load(argv[i], NULL, &model, NULL) != status) return 4;
        clstm_model_free(model);
    }
    clstm_model *model = NULL;
    const int missing = clstm_model_load("/nowhere/at.all", NULL, &model, NULL) == CLSTM_IO;
    return missing && clstm_model_load("/", NULL, &model, NULL) == CLSTM_IO ? 0 : 5;
}

#else

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[256] = "";
    load(data, size, size % 2, err);
    return 0;
}

static uint32_t word_at(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

/* Another word somewhere in the tables, everywhere if `alike`: sizes that must agree still do. */
static void change_word(uint8_t *data, size_t tables, unsigned seed, int alike)
{
    static const uint32_t words[] = {0, 1, 2, 3, 4, 5, 7, 8, 16, 255, 1 << 24, 0x7fffffff, ~0u};
    const size_t at = seed % (tables / 4) * 4;
    const uint32_t old = word_at(data + at), how = seed >> 16;
    const uint32_t word = how % 3 == 0   ? words[how % (sizeof words / sizeof *words)]
                          : how % 3 == 1 ? old + how % 5 - 2
                                         : old ^ 1u << how % 24;
    for (size_t i = alike ? 24 : at; i + 4 <= (alike ? tables : at + 4); i += 4)
        if (word_at(data + i) == old) memcpy(data + i, &word, 4);
}

/* libFuzzer's own changes, or one of the tables'; the length and the checksum are made right,
 * so that what lies behind them is reached. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    if (size < HEADER || seed % 8 == 0) return LLVMFuzzerMutate(data, size, max_size);
    const size_t n_ops = word_at(data + 24), n_tensors = word_at(data + 28);
    size_t tables = HEADER + n_ops % 256 * OP + n_tensors % 1024 * TENSOR;
    if (tables > size) tables = size;
    const size_t op = HEADER + (n_ops ? (seed >> 8) % n_ops : 0) * OP;
    if (seed % 8 < 5) change_word(data, tables, seed >> 3, seed % 8 == 1);
    else if (seed % 8 == 5 && op + OP <= size && size + OP <= max_size) { /* a layer twice */
        memmove(data + op + OP, data + op, size - op);
        const uint32_t more = (uint32_t)n_ops + 1;
        memcpy(data + 24, &more, 4);
        size += OP;
    } else size = LLVMFuzzerMutate(data, size, max_size);
    const uint64_t length = size;
    if (size < HEADER) return size;
    memcpy(data + 16, &length, 8);
    seal(data, size);
    return size;
}

#endif
