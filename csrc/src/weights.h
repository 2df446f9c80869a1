// SPDX-License-Identifier: MIT
/* A model as a .clstm file holds it: records in the file's own layout, borrowed from its
 * bytes. docs/format.md describes them; clstm/formats/container.py writes them. */
#ifndef CLSTM_WEIGHTS_H
#define CLSTM_WEIGHTS_H

#include "clstm.h"

#define FILE_MAGIC "CLSTM\0\r\n"
#define FILE_VERSION 1
#define FILE_ALIGN 64

/* The numbers are in files: never reused, never changed. */
enum op_kind {
    OP_LSTM = 1,
    OP_GRU = 2,
    OP_RNN = 3,
    OP_LINEAR = 16,
    OP_EMBEDDING = 17,
    OP_LAYER_NORM = 18,
    OP_BATCH_NORM = 19,
    OP_AFFINE = 20,
    OP_ADD = 21,
    OP_MUL = 22,
    OP_CONCAT = 23,
    OP_SLICE = 24,
    OP_OUTPUT = 25, /* a concatenation; which outputs there are is for the caller */
    OP_FIRST = 26,  /* at every step what was there at the sequence's first */
    OP_IDENTITY = 32,
    OP_DROPOUT = 33,
    OP_RELU = 34,
    OP_RELU6 = 35,
    OP_LEAKY_RELU = 36,
    OP_PRELU = 37,
    OP_ELU = 38,
    OP_TANH = 39,
    OP_HARDTANH = 40,
    OP_SIGMOID = 41,
    OP_GELU = 42,
    OP_GELU_TANH = 43,
    OP_SILU = 44,
    OP_SOFTPLUS = 45,
    OP_SOFTMAX = 46,
    OP_LOG_SOFTMAX = 47
};

enum op_flag {
    FLAG_BATCH_FIRST = 1,
    FLAG_BIDIRECTIONAL = 2,
    FLAG_CELL = 4, /* an LSTMCell: no layer axis in the state */
    FLAG_BIAS = 8, /* the layer has its bias tensors          */
    FLAG_WEIGHT = 16,
    FLAG_H0 = 32, /* learned initial states                  */
    FLAG_C0 = 64,
    FLAG_PEEPHOLE = 1 << 7, /* diagonal: rows i, f, o */
    FLAG_PEEPHOLE_FULL = 1 << 8,
    FLAG_OUTPUT_NEW = 1 << 9, /* o's full peephole reads c(t) */
    FLAG_COUPLED_F = 1 << 10, /* f = 1 - i */
    FLAG_COUPLED_I = 1 << 11, /* i = 1 - f */
    FLAG_CELL_CLIP_STORED = 1 << 12,
    FLAG_PROJ_BIAS = 1 << 13,
    FLAG_LAYER_NORM = 1 << 14,
    FLAG_LN_PER_GATE = 1 << 15,
    FLAG_LN_SEPARATE = 1 << 16, /* of x's and of h's product */
    FLAG_LN_CELL = 1 << 17,
    FLAG_LN_CELL_STORED = 1 << 18,
    FLAG_LN_BIAS = 1 << 19,
    FLAG_LN_CELL_BIAS = 1 << 20,
    FLAG_ACTIVATIONS = 1 << 21,
    FLAG_RESET_BEFORE = 1 << 22, /* GRU: r before the product with h */
    FLAG_REVERSE = 1 << 23       /* one direction, against time */
};

struct file_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t file_bytes;
    uint32_t n_ops, n_tensors, text_bytes, input_size;
    uint32_t n_check; /* 0, or 2: the last two tensors are a certificate's x and y */
    uint32_t reserved[4];
    uint32_t crc; /* CRC-32 of the whole file with this field 0 */
};

/* Value slot 0 is the input, slot i + 1 the output of op i. The last is the model's. */
struct op_record {
    uint32_t kind, flags, n_inputs, inputs[4], reserved;
    uint32_t first_tensor, n_tensors, name_at, name_bytes;
    uint32_t dims[8];
    double params[6];
};

enum { TENSOR_FLOAT32 = 1, TENSOR_INT64 = 2 };

struct tensor_record {
    uint64_t at, bytes; /* from the file's start; the order of the table, gaps < FILE_ALIGN */
    uint32_t dtype, rank, dims[4];
    uint32_t name_at, name_bytes;
    uint32_t reserved[4];
};

struct weights {
    const unsigned char *file; /* borrowed; aligned to 8 bytes at least */
    const struct file_header *header;
    const struct op_record *ops;         /* [header->n_ops]     */
    const struct tensor_record *tensors; /* [header->n_tensors] */
    const char *text;                    /* names               */
};

/* Dims and params of a recurrent op. Gate functions are 5 bits each, first lowest: three of
 * an LSTM (of the gates, of g, of h), two of a GRU, one of an RNN, for each direction. */
enum { CELL_INPUT, CELL_HIDDEN, CELL_PROJ, CELL_LAYERS, CELL_FUNCTIONS };
enum {
    PARAM_CLIP,
    PARAM_CELL_CLIP,
    PARAM_PROJ_CLIP,
    PARAM_FORGET_BIAS,
    PARAM_ZONE_H,
    PARAM_ZONE_C
};

/* What the numbers of an op come to. */
struct cell_shape {
    size_t n_gates, n_functions, n_cells, n_directions, n_out;
};
struct cell_shape clstm_cell_shape(const struct op_record *op);

/* Are these records and tensors a program? Every shape is checked here, so that what
 * builds the model can rely on them. widths[n_ops + 1] receives the width of each slot. */
clstm_status clstm_weights_check(const struct weights *w, size_t *widths, char *err);

/* Data of a tensor; tensors of one op are counted from its first. */
const float *clstm_tensor(const struct weights *w, const struct op_record *op, size_t i);

/* The file's bytes as records, checked to be whole: sizes, order, checksum. */
clstm_status clstm_file_parse(const void *data, size_t size, struct weights *out, char *err);

#endif
