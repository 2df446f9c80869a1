// SPDX-License-Identifier: MIT
/* Reads a .clstm file. Nothing in it is believed before it is checked, and nothing is
 * allocated on its word: all that is taken is the file itself. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "fpmode.h"
#include "model.h"
#include "status.h"
#include "weights.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error ".clstm files are little-endian and read in place"
#endif

_Static_assert(sizeof(struct file_header) == 64, "layout of the file");
_Static_assert(sizeof(struct op_record) == 128, "layout of the file");
_Static_assert(sizeof(struct tensor_record) == 64, "layout of the file");

static uint32_t crc32(uint32_t crc, const unsigned char *data, size_t size)
{
    uint32_t table[16]; /* half a byte at a time: small, and fast enough for a load */
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 4; bit++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc = crc >> 4 ^ table[(crc ^ data[i]) & 15];
        crc = crc >> 4 ^ table[(crc ^ (data[i] >> 4)) & 15];
    }
    return ~crc;
}

static uint64_t aligned(uint64_t n) { return (n + FILE_ALIGN - 1) / FILE_ALIGN * FILE_ALIGN; }

static int zero(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i]) return 0;
    return 1;
}

/* One tensor's place: right behind the last one, padded with zeros, sizes consistent. */
static clstm_status parse_tensor(const struct weights *w, size_t i, uint64_t *end, char *err)
{
    const struct tensor_record *t = &w->tensors[i];
    const uint64_t size = w->header->file_bytes, item = t->dtype == TENSOR_INT64 ? 8 : 4;
    if ((t->dtype != TENSOR_FLOAT32 && t->dtype != TENSOR_INT64) || t->rank > 4 ||
        !zero(t->reserved, sizeof t->reserved))
        return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu: unknown type or rank", i);
    uint64_t count = 1; /* below 2^62 at every step: each size is below 2^32, count below 2^30 */
    for (uint32_t d = 0; d < t->rank; d++)
        if (!t->dims[d]) count = 0; /* whatever the sizes before it */
    for (uint32_t d = 0; d < 4; d++) {
        if (d >= t->rank && t->dims[d])
            return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu: sizes past its rank", i);
        if (d < t->rank) count *= t->dims[d];
        if (count > size)
            return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu is larger than the file", i);
    }
    if (t->bytes != count * item || t->at != *end || t->at > size || t->bytes > size - t->at)
        return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu does not lie where it should", i);
    if ((uint64_t)t->name_at + t->name_bytes > w->header->text_bytes)
        return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu: its name is outside the names", i);
    *end = aligned(t->at + t->bytes);
    if (*end > size || !zero(w->file + t->at + t->bytes, *end - t->at - t->bytes))
        return clstm_fail(err, CLSTM_BAD_FILE, "tensor %zu: bad padding", i);
    return CLSTM_OK;
}

clstm_status clstm_file_parse(const void *data, size_t size, struct weights *out, char *err)
{
    struct weights w = {.file = data, .header = data};
    const struct file_header *h = w.header;
    if (size < sizeof *h || memcmp(h->magic, FILE_MAGIC, sizeof h->magic))
        return clstm_fail(err, CLSTM_BAD_FILE, "not a .clstm file");
    if (h->version != FILE_VERSION)
        return clstm_fail(err, CLSTM_BAD_FILE, "format version %u; this clstm reads version %d",
                          h->version, FILE_VERSION);
    if (h->file_bytes != size)
        return clstm_fail(err, CLSTM_BAD_FILE, "%zu bytes, its header says %llu: truncated?", size,
                          (unsigned long long)h->file_bytes);
    if (h->header_bytes != sizeof *h || !zero(h->reserved, sizeof h->reserved) ||
        (h->n_check != 0 && h->n_check != 2) || h->n_check > h->n_tensors)
        return clstm_fail(err, CLSTM_BAD_FILE, "bad header");
    const uint64_t ops_at = sizeof *h, tensors_at = ops_at + (uint64_t)h->n_ops * 128,
                   text_at = tensors_at + (uint64_t)h->n_tensors * 64;
    uint64_t end = aligned(text_at + h->text_bytes);
    if (end > size) return clstm_fail(err, CLSTM_BAD_FILE, "its tables are larger than the file");
    struct file_header bare = *h;
    bare.crc = 0;
    const uint32_t crc = crc32(crc32(0, (const unsigned char *)&bare, sizeof bare),
                               w.file + sizeof bare, size - sizeof bare);
    if (crc != h->crc)
        return clstm_fail(err, CLSTM_BAD_FILE, "damaged: checksum %08x, expected %08x", crc,
                          h->crc);
    w.ops = (const void *)(w.file + ops_at);
    w.tensors = (const void *)(w.file + tensors_at);
    w.text = (const char *)w.file + text_at;
    if (!zero(w.text + h->text_bytes, end - text_at - h->text_bytes))
        return clstm_fail(err, CLSTM_BAD_FILE, "bad padding after the names");
    uint32_t next = 0; /* every tensor belongs to one op, in order; then the certificate's */
    for (size_t i = 0; i < h->n_ops; i++) {
        const struct op_record *op = &w.ops[i];
        if (op->first_tensor != next || op->n_tensors > h->n_tensors - h->n_check - next ||
            (uint64_t)op->name_at + op->name_bytes > h->text_bytes || op->reserved)
            return clstm_fail(err, CLSTM_BAD_FILE, "layer %zu: its record is inconsistent", i);
        next += op->n_tensors;
    }
    if (next + h->n_check != h->n_tensors)
        return clstm_fail(err, CLSTM_BAD_FILE, "tensors that belong to no layer");
    for (size_t i = 0; i < h->n_tensors; i++) {
        const clstm_status status = parse_tensor(&w, i, &end, err);
        if (status != CLSTM_OK) return status;
    }
    if (end != size) return clstm_fail(err, CLSTM_BAD_FILE, "bytes after the last tensor");
    *out = w;
    return CLSTM_OK;
}

clstm_status clstm_model_load_memory(const void *data, size_t size, const clstm_options *opt,
                                     clstm_model **out, char err[256])
{
    if (!data && size) return clstm_fail(err, CLSTM_BAD_ARGUMENT, "data is NULL");
    void *copy = NULL;
    if ((uintptr_t)data % 8) { /* the records are read in place */
        copy = clstm_alloc(size);
        if (!copy) return clstm_fail(err, CLSTM_NO_MEMORY, "no memory for %zu bytes", size);
        memcpy(copy, data, size);
    }
    struct weights weights;
    clstm_model *model = NULL;
    const struct fpmode mode = fpmode_enter(); /* biases are summed here, scalings folded */
    clstm_status status = clstm_file_parse(copy ? copy : data, size, &weights, err);
    if (status == CLSTM_OK) status = clstm_model_create(&weights, opt, &model, err);
    if (status == CLSTM_OK) status = clstm_model_verify(model, &weights, err);
    fpmode_leave(mode);
    clstm_free(copy);
    if (status == CLSTM_OK) *out = model;
    else clstm_model_free(model);
    return status;
}

static clstm_status read_whole(FILE *file, void **data, size_t *size, char *err)
{
    long end = -1;
    /* A directory opens, and may say that it has LONG_MAX bytes; only reading tells. */
    if ((getc(file) != EOF || !ferror(file)) && !fseek(file, 0, SEEK_END)) end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET))
        return clstm_fail(err, CLSTM_IO, "%s", strerror(errno));
    *data = clstm_alloc((size_t)end);
    if (!*data) return clstm_fail(err, CLSTM_NO_MEMORY, "no memory for %ld bytes", end);
    *size = fread(*data, 1, (size_t)end, file);
    if (ferror(file)) return clstm_fail(err, CLSTM_IO, "%s", strerror(errno));
    return CLSTM_OK; /* a file that shrank meanwhile fails its own size */
}

clstm_status clstm_model_load(const char *path, const clstm_options *opt, clstm_model **out,
                              char err[256])
{
    FILE *file = fopen(path, "rb");
    if (!file) return clstm_fail(err, CLSTM_IO, "%s: %s", path, strerror(errno));
    void *data = NULL;
    size_t size = 0;
    clstm_status status = read_whole(file, &data, &size, err);
    fclose(file);
    if (status == CLSTM_OK) status = clstm_model_load_memory(data, size, opt, out, err);
    clstm_free(data);
    return status;
}
