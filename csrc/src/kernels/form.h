// SPDX-License-Identifier: MIT
/* What makes a cell's new state of its sums: the options of one layer and direction. */
#ifndef CLSTM_FORM_H
#define CLSTM_FORM_H

/* The numbers are in files: never reused, never changed. Names and formulas are ONNX's. */
enum gate_function_kind {
    GATE_SIGMOID = 0,
    GATE_TANH = 1,
    GATE_RELU = 2,
    GATE_HARD_SIGMOID = 3, /* max(0, min(1, alpha x + beta)) */
    GATE_HARD_TANH = 4,    /* between alpha and beta */
    GATE_SOFTSIGN = 5,     /* x / (1 + |x|) */
    GATE_SOFTPLUS = 6,
    GATE_ELU = 7,          /* alpha (exp(x) - 1) below 0 */
    GATE_LEAKY = 8,        /* alpha x below 0 */
    GATE_THRESHOLDED = 9,  /* x above alpha, else 0 */
    GATE_SCALED_TANH = 10, /* alpha tanh(beta x) */
    GATE_AFFINE = 11,      /* alpha x + beta */
    GATE_FUNCTIONS
};

struct gate_function {
    enum gate_function_kind kind;
    float alpha, beta;
};

/* What a kernel does behind the sums. */
enum finish {
    FINISH_NONE,      /* the totals are the result                                       */
    FINISH_LSTM,      /* both passes                                                     */
    FINISH_LSTM_CELL, /* the first: i, f, g and the new c                                */
    FINISH_LSTM_OUT,  /* the second: o and h                                             */
    FINISH_GRU,       /* sums r, z, U_n h, W_n x                                         */
    FINISH_GRU_RESET, /* r and z: r * h for the product of n, z for FINISH_GRU_NEW       */
    FINISH_GRU_NEW,   /* n and h                                                         */
    FINISH_RNN
};

/* Where the sums of a gate stand among those of its block. */
struct gate_places {
    int i, f, g, o;
};

/* A form is plain when it is torch's own cell: then its kernel has no choice left to make. */
struct form {
    enum finish finish;
    int plain;
    struct gate_places at;        /* of an LSTM; i or f is -1 where it is derived: coupled     */
    struct gate_function f, g, h; /* ONNX's names: of the gates, of the candidate, of the output */
    float clip;                   /* of every sum; infinity for none                           */
    float cell_clip;              /* of c, infinity for none                                   */
    int cell_clip_stored;         /* ... of what is kept, not only of what goes through h      */
    float zone_h, zone_c;         /* the part of the old state that stays                      */
    float fresh_h, fresh_c;       /* 1 - zone                                                  */
    const float *peephole;        /* owned: [n_blocks][3][UNITS], rows i, f, o; NULL for none  */
};

#endif
