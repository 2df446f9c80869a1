// SPDX-License-Identifier: MIT
/* What the kernels must compute, in double and plain loops over row-major matrices, and how
 * far float32 may lie from it. It is written from PyTorch's and ONNX's documentation and
 * shares no code, layout or formula with csrc/; the bounds are those that tests/bounds/
 * derives, carried from value to value: an interval holds all that an input may be. */
#ifndef ORACLE_H
#define ORACLE_H

#include <stddef.h>
#include <stdint.h>

#include "../../csrc/src/kernels/kernels.h" /* the kinds of map and norm, nothing else */

struct value {
    double exact, bound;
};

/* ---- values (oracle.c) ------------------------------------------------------------ */

struct value v_exactly(double x);
struct value v_plus(struct value a, struct value b); /* bounds alone: no rounding */
struct value v_times(struct value a, struct value b);
struct value v_rounded(struct value v);
struct value v_clamped(struct value v, double low, double high);
struct value v_flushed(struct value v); /* 0 below 2^-100, or not */
/* (x - mean) / sqrt(variance + eps) * weight + bias; weight and bias may be NULL. */
void v_layer_norm(size_t n, const struct value *x, const float *weight, const float *bias,
                  double eps, struct value *out);

/* Any f over an interval of z, from its ends and at most one point between them where f
 * turns or jumps; `ulps` for f's own rounding. */
struct curve {
    double (*f)(double x, const double p[2]);
    double turn; /* NaN: none */
    double ulps;
};
struct value v_curve(const struct curve *curve, const double p[2], struct value z);
double f_sigmoid(double x, const double p[2]), f_tanh(double x, const double p[2]);

/* A total in the order of the kernels: terms and blocks of 64 products. */
struct sum {
    double exact, size, carried, n_blocks, n;
};
void sum_add(struct sum *s, struct value term);
void sum_products(struct sum *s, size_t n, const float *w, const struct value *v);
struct value sum_value(const struct sum *s);

/* ---- for check_kernels ------------------------------------------------------------ */

/* NaN for NaN, the same infinity for an infinity (or what rounds to it), else in the bound. */
int within(float got, struct value expected);

/* bias + w x + u h, of [n_x] and [n_h] inputs. */
struct value oracle_sum(double bias, size_t n_x, const float *w, const float *x, size_t n_h,
                        const float *u, const float *h);

/* Of torch's LSTM: from the pre-activations z[4][n_hidden] and c[n_hidden] to the next c and h. */
void oracle_finish(size_t n_hidden, const struct value *z, const float *c, struct value *c_next,
                   struct value *h_next);

/* a and b are the values beside x in their arrays, 0 where there are none. */
struct value oracle_map(enum map_kind kind, float x, float a, float b, const float p[2]);
void oracle_norm(enum norm_kind kind, size_t n, const float *x, const float *weight,
                 const float *bias, float eps, struct value *out);

/* ---- cells (oracle_cells.c) ------------------------------------------------------- */

/* In the order of the numbers in a file. */
enum gate_kind {
    G_SIGMOID,
    G_TANH,
    G_RELU,
    G_HARD_SIGMOID,
    G_HARD_TANH,
    G_SOFTSIGN,
    G_SOFTPLUS,
    G_ELU,
    G_LEAKY_RELU,
    G_THRESHOLDED_RELU,
    G_SCALED_TANH,
    G_AFFINE,
    G_KINDS
};

struct gate {
    enum gate_kind kind;
    double p[2]; /* alpha, beta */
};
struct value v_gate(const struct gate *g, struct value z);

enum cell_kind { CELL_LSTM = 1, CELL_GRU, CELL_RNN };
enum coupling { NOT_COUPLED, F_FROM_I, I_FROM_F };

/* One layer and direction; a pointer that is NULL is an option that is off. G gates: i f g o
 * of an LSTM (i g o or f g o of a coupled one), r z n of a GRU, one of an RNN. */
struct oracle_cell {
    enum cell_kind kind;
    size_t n_x, n_h, n_hidden;           /* n_h: that of a projection, or n_hidden */
    const float *w, *u, *b1, *b2;        /* [G n_hidden][n_x], [..][n_h], [..], [..] */
    const float *project, *b_project;    /* [n_h][n_hidden], [n_h] */
    const float *diagonal;               /* [3 n_hidden]: i f o */
    const float *full;                   /* [G n_hidden][n_hidden] */
    const float *ln[2], *ln_bias[2];     /* of the sum or of W x, of U h; [G n_hidden] */
    const float *ln_cell, *ln_cell_bias; /* [n_hidden] */
    int output_new, per_gate, cell_clip_stored, ln_cell_stored, reset_before;
    enum coupling coupled;
    double eps, clip, cell_clip, proj_clip, forget_bias, zone_h, zone_c; /* clips: 0, none */
    struct gate gate[3];
};

size_t oracle_n_gates(const struct oracle_cell *cell);
/* From x, h[n_h] and c[n_hidden] (an LSTM's) to the next h and c. */
void oracle_step(const struct oracle_cell *cell, const struct value *x, const struct value *h,
                 const struct value *c, struct value *h_next, struct value *c_next);

/* ---- models (oracle_model.c) ------------------------------------------------------ */

/* n_steps steps of a sound .clstm image from a state in the order of clstm_get_state:
 * y[n_steps][width of the last slot]. Either x or tokens is NULL. */
void oracle_run(const unsigned char *image, size_t n_steps, const float *x, const int64_t *tokens,
                const float *state, struct value *y, struct value *state_out);

#endif
