// SPDX-License-Identifier: MIT
/* Layer normalisation and softmax of one row of n features.
 *
 * A sum over features is sixteen partial sums by index modulo 16, folded in one fixed
 * tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1. So it has the same bits at every vector width. */

enum fold_kind { FOLD_SUM, FOLD_MAX };

INLINE float fold(enum fold_kind kind, const vf *part)
{
    float p[UNITS];
    UNROLL for (int v = 0; v < NV; v++)
        v_store(p + v * LANES, part[v]);
    for (int half = UNITS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            if (kind == FOLD_SUM) p[i] = p[i] + p[i + half];
            else p[i] = p[i] > p[i + half] ? p[i] : p[i + half];
        }
    return p[0];
}

/* Calls `statement` for every block of UNITS values of x as vf v[NV]; where the row ends
 * inside the block, its pad is `filler`, which changes no fold. */
#define EACH_BLOCK(x, n, filler, statement)                                                        \
    for (size_t at_ = 0; at_ < (n); at_ += UNITS) {                                                \
        float tail_[UNITS];                                                                        \
        const float *from_ = (x) + at_;                                                            \
        if ((n) - at_ < UNITS) {                                                                   \
            for (int i_ = 0; i_ < UNITS; i_++)                                                     \
                tail_[i_] = (size_t)i_ < (n) - at_ ? from_[i_] : (filler);                         \
            from_ = tail_;                                                                         \
        }                                                                                          \
        UNROLL for (int j = 0; j < NV; j++) {                                                      \
            const vf v = v_load(from_ + j * LANES);                                                \
            statement;                                                                             \
        }                                                                                          \
    }

static void layer_norm(size_t n, const float *x, float *y, const float *weight, const float *bias,
                       float eps)
{
    vf part[NV];
    UNROLL for (int j = 0; j < NV; j++)
        part[j] = v_all(0.0f);
    EACH_BLOCK(x, n, 0.0f, part[j] = v_add(part[j], v))
    const float mean = fold(FOLD_SUM, part) / (float)n;
    UNROLL for (int j = 0; j < NV; j++)
        part[j] = v_all(0.0f);
    EACH_BLOCK(x, n, mean, const vf d = v_sub(v, v_all(mean)); part[j] = v_fma(d, d, part[j]))
    const float variance = fold(FOLD_SUM, part) / (float)n;
    const vf deviation = v_sqrt(v_all(variance + eps)), shift = v_all(mean);
    for (size_t i = 0; i < padded(n); i += LANES) {
        vf d = v_div(v_sub(v_load(x + i), shift), deviation);
        if (weight) d = v_fma(d, v_load(weight + i), bias ? v_load(bias + i) : v_all(0.0f));
        v_store(y + i, d);
    }
}

/* sum += x, and lost += what that rounds away (Knuth's two-sum: exact whatever the sizes). */
INLINE void add_kept(vf *sum, vf *lost, vf x)
{
    const vf s = v_add(*sum, x), t = v_sub(s, *sum);
    *lost = v_add(*lost, v_add(v_sub(*sum, v_sub(s, t)), v_sub(x, t)));
    *sum = s;
}

/* The same tree as fold's. */
INLINE float fold_kept(const vf *part, const vf *lost, float *rest)
{
    float p[UNITS], q[UNITS];
    UNROLL for (int v = 0; v < NV; v++)
        v_store(p + v * LANES, part[v]);
    UNROLL for (int v = 0; v < NV; v++)
        v_store(q + v * LANES, lost[v]);
    for (int half = UNITS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) {
            const float s = p[i] + p[i + half], t = s - p[i];
            q[i] = q[i] + q[i + half] + ((p[i] - (s - t)) + (p[i + half] - t));
            p[i] = s;
        }
    *rest = q[0];
    return p[0];
}

/* exp(x - max) / sum, or (x - max) - log(sum). The sum keeps what its roundings lose: where
 * it is near 1 they would be a large part of its logarithm. */
static void softmax(int logarithm, size_t n, const float *x, float *y)
{
    vf part[NV], lost[NV];
    UNROLL for (int j = 0; j < NV; j++)
        part[j] = v_all(-INFINITY);
    EACH_BLOCK(x, n, -INFINITY, part[j] = v_max(part[j], v)) /* may lose a NaN; the sum will not */
    const vf top = v_all(fold(FOLD_MAX, part));
    UNROLL for (int j = 0; j < NV; j++)
        part[j] = lost[j] = v_all(0.0f);
    EACH_BLOCK(x, n, -INFINITY, add_kept(&part[j], &lost[j], exp_negative(v_sub(v, top))))
    float rest;
    const float sum = fold_kept(part, lost, &rest);
    const vf log_sum = v_add(log_(v_all(sum)), v_all(rest / sum)), total = v_all(sum + rest);
    for (size_t i = 0; i < padded(n); i += LANES) {
        const vf d = v_sub(v_load(x + i), top);
        v_store(y + i, logarithm ? v_sub(d, log_sum) : v_div(exp_negative(d), total));
    }
}

static void norm(enum norm_kind kind, size_t n, const float *x, float *y, const float *weight,
                 const float *bias, float eps)
{
    if (kind == NORM_LAYER) layer_norm(n, x, y, weight, bias, eps);
    else softmax(kind == NORM_LOG_SOFTMAX, n, x, y);
    v_leave();
}
