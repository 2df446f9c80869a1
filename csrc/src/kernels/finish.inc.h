// SPDX-License-Identifier: MIT
/* From the sums of a step to the new state, a group of units at a time while they are in L1.
 *
 *   LSTM   i f g o = sums               PyTorch's order of the gates
 *          c' = s(f) c + s(i) tanh(g)   s is the sigmoid
 *          h' = s(o) tanh(c')
 *   GRU    r z = s(sums), n = tanh(W_n x + r U_n h), h' = (1 - z) n + z h
 *   RNN    h' = tanh(sum)
 *
 * (https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, GRU, RNN), with the
 * options of form.h, whose equations stand in docs/cells.md. Each in two passes: the chain
 * from a sum to h is some hundred cycles long, and only neighbours that do not wait for each
 * other hide it. What is constant in a plain form leaves nothing of the options behind. */

/* |x| < 2^-100 becomes 0: a forget gate near 1 lets a state decay for ever, and once it is
 * denormal every product with it costs a microcode trap. NaN stays. */
INLINE vf flush(vf x) { return v_select(v_lt(v_abs(x), v_all(0x1p-100f)), v_all(0.0f), x); }

INLINE vf clamp(vf x, float low, float high) /* NaN stays; a bound of NaN is refused at load */
{
    return v_min(v_all(high), v_max(v_all(low), x));
}

/* Never called by a plain form. */
NOINLINE vf gate_function(const struct gate_function *a, vf x)
{
    const vf zero = v_all(0.0f), one = v_all(1.0f), alpha = v_all(a->alpha);
    switch (a->kind) {
    case GATE_SIGMOID: return sigmoid(x);
    case GATE_TANH: return tanh_(x);
    case GATE_RELU: return v_max(zero, x);
    case GATE_HARD_SIGMOID: return clamp(v_fma(alpha, x, v_all(a->beta)), 0.0f, 1.0f);
    case GATE_HARD_TANH: return clamp(x, a->alpha, a->beta);
    case GATE_SOFTSIGN: {
        const vf t = v_min(v_all(0x1p100f), v_abs(x)); /* infinity / infinity would be NaN */
        return v_copysign(v_div(t, v_add(one, t)), x);
    }
    case GATE_SOFTPLUS: return softplus(x);
    case GATE_ELU: return v_select(v_lt(x, zero), v_mul(alpha, expm1_negative(x)), x);
    case GATE_LEAKY: return v_select(v_lt(x, zero), v_mul(alpha, x), x);
    case GATE_THRESHOLDED: /* 0 in words that keep NaN */
        return v_select(v_lt(alpha, x), x, v_max(zero, v_min(zero, x)));
    case GATE_SCALED_TANH: return v_mul(alpha, tanh_(v_mul(v_all(a->beta), x)));
    case GATE_AFFINE: return v_fma(alpha, x, v_all(a->beta));
    case GATE_FUNCTIONS: break;
    }
    return x;
}

/* UNITS units of one row, wherever they lie. */
struct unit {
    float *total; /* [4][UNITS] */
    float *c, *out, *z;
    const float *old, *c_old, *squash, *peephole;
};

#define GATE(which, x)                                                                             \
    (a->plain ? sigmoid(x) : gate_function(&a->which, clamp(x, -a->clip, a->clip)))
#define VALUE(which, x)                                                                            \
    (a->plain ? tanh_(x) : gate_function(&a->which, clamp(x, -a->clip, a->clip)))

/* Vector v of unit j, for all of them. */
#define EACH_VECTOR(n)                                                                             \
    for (size_t j = 0; j < (n); j++) UNROLL_2                                                      \
        for (int v = 0; v < UNITS; v += LANES)

INLINE vf peep(const float *weight, int row, vf c, vf z)
{
    return weight ? v_fma(v_load(weight + row * UNITS), c, z) : z;
}

INLINE void lstm_cell(const struct form *a, size_t n, const struct unit *unit)
{
    const vf one = v_all(1.0f);
    EACH_VECTOR (n) {
        const float *z = unit[j].total + v;
        const float *weight = unit[j].peephole ? unit[j].peephole + v : NULL;
        const vf c = v_load(unit[j].c + v);
        vf i = one, f = one;
        if (a->at.i >= 0) i = GATE(f, peep(weight, 0, c, v_load(z + a->at.i * UNITS)));
        if (a->at.f >= 0) f = GATE(f, peep(weight, 1, c, v_load(z + a->at.f * UNITS)));
        if (a->at.i < 0) i = v_sub(one, f);
        if (a->at.f < 0) f = v_sub(one, i);
        const vf g = VALUE(g, v_load(z + a->at.g * UNITS));
        vf next = v_fma(f, c, v_mul(i, g));
        if (!a->plain && a->cell_clip_stored) next = clamp(next, -a->cell_clip, a->cell_clip);
        v_store(unit[j].c + v, flush(next));
    }
}

INLINE void lstm_out(const struct form *a, size_t n, const struct unit *unit)
{
    EACH_VECTOR (n) {
        const float *weight = unit[j].peephole ? unit[j].peephole + v : NULL;
        const vf c = v_load(unit[j].c + v), z = v_load(unit[j].total + a->at.o * UNITS + v);
        const vf o = GATE(f, peep(weight, 2, c, z));
        vf s = a->plain ? c : v_load(unit[j].squash + v), h;
        if (!a->plain && !a->cell_clip_stored) s = clamp(s, -a->cell_clip, a->cell_clip);
        h = v_mul(o, a->plain ? tanh_(s) : gate_function(&a->h, s));
        if (!a->plain && a->zone_h > 0)
            h = v_fma(v_all(a->zone_h), v_load(unit[j].old + v), v_mul(v_all(a->fresh_h), h));
        v_store(unit[j].out + v, flush(h));
        if (!a->plain && a->zone_c > 0) {
            const vf old = v_load(unit[j].c_old + v);
            s = v_fma(v_all(a->zone_c), old, v_mul(v_all(a->fresh_c), c));
            v_store(unit[j].c + v, flush(s));
        }
    }
}

/* Places among the sums: r, z, U_n h, W_n x. */
INLINE void gru(const struct form *a, size_t n, const struct unit *unit)
{
    EACH_VECTOR (n) {
        float *sum = unit[j].total + v;
        const vf r = GATE(f, v_load(sum)), z = GATE(f, v_load(sum + UNITS));
        v_store(sum + UNITS, z);
        v_store(sum + 2 * UNITS, v_fma(r, v_load(sum + 2 * UNITS), v_load(sum + 3 * UNITS)));
    }
    EACH_VECTOR (n) {
        const float *sum = unit[j].total + v;
        const vf m = VALUE(g, v_load(sum + 2 * UNITS));
        const vf change = v_sub(v_load(unit[j].old + v), m);
        v_store(unit[j].out + v, flush(v_fma(v_load(sum + UNITS), change, m)));
    }
}

INLINE void gru_reset(const struct form *a, size_t n, const struct unit *unit)
{
    EACH_VECTOR (n) {
        const float *sum = unit[j].total + v;
        const vf r = GATE(f, v_load(sum));
        v_store(unit[j].z + v, GATE(f, v_load(sum + UNITS)));
        v_store(unit[j].out + v, v_mul(r, v_load(unit[j].old + v)));
    }
}

INLINE void gru_new(const struct form *a, size_t n, const struct unit *unit)
{
    EACH_VECTOR (n) {
        const vf m = VALUE(g, v_load(unit[j].total + v));
        const vf change = v_sub(v_load(unit[j].old + v), m);
        v_store(unit[j].out + v, flush(v_fma(v_load(unit[j].z + v), change, m)));
    }
}

INLINE void rnn(const struct form *a, size_t n, const struct unit *unit)
{
    EACH_VECTOR (n) v_store(unit[j].out + v, flush(VALUE(f, v_load(unit[j].total + v))));
}
#undef EACH_VECTOR
#undef GATE
#undef VALUE

NOINLINE void finish(const struct form *a, size_t n, const struct unit *unit)
{
    static const struct form plain = {.plain = 1, .at = {0, 1, 2, 3}};
    switch (a->finish) {
    case FINISH_NONE: break;
    case FINISH_LSTM:
        if (a->plain) {
            lstm_cell(&plain, n, unit);
            lstm_out(&plain, n, unit);
            break;
        }
        lstm_cell(a, n, unit);
        lstm_out(a, n, unit);
        break;
    case FINISH_LSTM_CELL: lstm_cell(a, n, unit); break;
    case FINISH_LSTM_OUT: lstm_out(a, n, unit); break;
    case FINISH_GRU:
        if (a->plain) gru(&plain, n, unit);
        else gru(a, n, unit);
        break;
    case FINISH_GRU_RESET: gru_reset(a, n, unit); break;
    case FINISH_GRU_NEW: gru_new(a, n, unit); break;
    case FINISH_RNN:
        if (a->plain) rnn(&plain, n, unit);
        else rnn(a, n, unit);
        break;
    }
}
