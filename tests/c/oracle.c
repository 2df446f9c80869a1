// SPDX-License-Identifier: MIT
#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tolerances.h"

static double ulp(double x)
{
    int e;
    if (x == 0 || !isfinite(x)) return TINY;
    frexp(x, &e);
    return e - 24 < -149 ? TINY : ldexp(1, e - 24);
}

int within(float got, struct value v)
{
    if (isnan(v.exact)) return isnan(got);
    if (isnan(got)) return 0;
    if (isinf(v.exact)) return got == v.exact;
    if (isinf(got)) return fabs(v.exact) + v.bound >= FLT_MAX && (got > 0) == (v.exact > 0);
    return fabs(got - v.exact) <= v.bound;
}

/* ---- values ----------------------------------------------------------------------- */

struct value v_exactly(double x) { return (struct value){x, 0}; }

struct value v_plus(struct value a, struct value b)
{
    const double exact = a.exact + b.exact;
    return (struct value){exact, isfinite(exact) ? a.bound + b.bound : 0};
}

/* 0 times an infinite bound is nothing: one factor is known to be 0, or to be exact. */
static double scaled(double x, double bound) { return x == 0 || bound == 0 ? 0 : fabs(x) * bound; }

struct value v_times(struct value a, struct value b)
{
    const double exact = a.exact * b.exact;
    if (!isfinite(exact)) return (struct value){exact, 0};
    return (struct value){exact, scaled(a.exact, b.bound) + scaled(b.exact, a.bound) +
                                     scaled(a.bound, b.bound)};
}

struct value v_rounded(struct value v)
{
    if (isfinite(v.exact)) v.bound += U * (fabs(v.exact) + v.bound) + TINY;
    return v;
}

/* Moves no two numbers apart. */
struct value v_clamped(struct value v, double low, double high)
{
    v.bound = isfinite(v.exact) ? fmin(v.bound, high - low) : 0;
    v.exact = v.exact < low ? low : v.exact > high ? high : v.exact;
    return v;
}

struct value v_flushed(struct value v)
{
    v.bound *= SLACK;
    if (fabs(v.exact) - v.bound < FLUSH) v.bound += FLUSH;
    return v;
}

double f_sigmoid(double x, const double p[2])
{
    (void)p;
    return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
}

double f_tanh(double x, const double p[2])
{
    (void)p;
    return tanh(x);
}

struct value v_curve(const struct curve *curve, const double p[2], struct value z)
{
    if (isnan(z.exact)) return (struct value){NAN, 0};
    const double y = curve->f(z.exact, p), low = z.exact - z.bound, high = z.exact + z.bound;
    double at[4] = {low, high}, moved = 0, top = fabs(y);
    size_t n = 2;
    if (curve->turn >= low && curve->turn <= high) { /* both sides of it */
        at[n++] = nextafter(curve->turn, -INFINITY);
        at[n++] = nextafter(curve->turn, INFINITY);
    }
    if (!isfinite(y)) return (struct value){y, 0};
    for (size_t i = 0; i < n; i++) {
        const double other = curve->f(at[i], p);
        moved = fmax(moved, fabs(other - y));
        top = fmax(top, fabs(other));
    }
    return (struct value){y, moved + 0x1p-50 * top + curve->ulps * ulp(top * (1 - U))};
}

/* ---- sums ------------------------------------------------------------------------- */

static double ceil64(size_t n) { return (double)((n + 63) / 64); }

void sum_add(struct sum *s, struct value term)
{
    s->exact += term.exact;
    s->size += fabs(term.exact) + term.bound;
    s->carried += term.bound;
    s->n_blocks++;
}

void sum_products(struct sum *s, size_t n, const float *w, const struct value *v)
{
    for (size_t k = 0; k < n; k++) {
        s->exact += w[k] * v[k].exact;
        s->size += fabs((double)w[k]) * (fabs(v[k].exact) + v[k].bound);
        s->carried += scaled(w[k], v[k].bound);
    }
    s->n_blocks += ceil64(n);
    s->n += (double)n;
}

struct value sum_value(const struct sum *s)
{
    if (!isfinite(s->exact)) return (struct value){s->exact, 0};
    if (!(s->size < 0x1p127)) return (struct value){s->exact, INFINITY}; /* may overflow */
    return (struct value){s->exact, s->carried + (66 + s->n_blocks) * U * s->size + s->n * TINY};
}

struct value oracle_sum(double bias, size_t n_x, const float *w, const float *x, size_t n_h,
                        const float *u, const float *h)
{
    struct sum s = {.exact = bias, .size = fabs(bias)};
    for (size_t k = 0; k < n_x; k++) {
        const struct value v = v_exactly(x[k]);
        sum_products(&s, 1, w + k, &v);
    }
    for (size_t k = 0; k < n_h; k++) {
        const struct value v = v_exactly(h[k]);
        sum_products(&s, 1, u + k, &v);
    }
    s.n_blocks = ceil64(n_x) + ceil64(n_h);
    return sum_value(&s);
}

void oracle_finish(size_t n, const struct value *z, const float *c, struct value *c_next,
                   struct value *h_next)
{
    static const struct gate sigmoid = {G_SIGMOID, {0, 0}}, tangent = {G_TANH, {0, 0}};
    for (size_t j = 0; j < n; j++) {
        const struct value i = v_gate(&sigmoid, z[j]), f = v_gate(&sigmoid, z[n + j]);
        const struct value g = v_gate(&tangent, z[2 * n + j]), o = v_gate(&sigmoid, z[3 * n + j]);
        const struct value sum = v_plus(v_rounded(v_times(i, g)), v_times(f, v_exactly(c[j])));
        c_next[j] = v_flushed(v_rounded(sum));
        h_next[j] = v_flushed(v_rounded(v_times(o, v_gate(&tangent, c_next[j]))));
    }
}

/* ---- maps ------------------------------------------------------------------------- */

static struct value ulps(double exact, double n)
{
    return (struct value){exact, n * ulp(exact) * SLACK};
}

static struct value head(double exact)
{
    struct value v = ulps(exact, HEAD_ULPS);
    v.bound = fmax(v.bound, HEAD_FLOOR);
    return v;
}

/* https://docs.pytorch.org/docs/stable/nn.html#non-linear-activations-weighted-sum-nonlinearity */
struct value oracle_map(enum map_kind kind, float xf, float a, float b, const float p[2])
{
    const double x = xf;
    if (isnan(x)) return (struct value){NAN, 0};
    switch (kind) {
    case MAP_ADD: return ulps(x + a, 0.5);
    case MAP_MUL: return ulps(x * a, 0.5);
    case MAP_AFFINE: return ulps(a * x + b, 0.5);
    case MAP_CLAMP: return (struct value){x < p[0] ? p[0] : x > p[1] ? p[1] : x, 0};
    case MAP_LEAKY: return x < 0 ? ulps(a * x, 0.5) : (struct value){x, 0};
    case MAP_ELU: return x < 0 ? ulps(p[0] * expm1(x), ELU_ULPS) : (struct value){x, 0};
    case MAP_FLUSH: return (struct value){fabs(x) < FLUSH ? 0 : x, 0};
    case MAP_TANH: return ulps(tanh(x), TANH_ULPS);
    case MAP_SIGMOID: return ulps(f_sigmoid(x, NULL), SIGMOID_ULPS);
    case MAP_GELU: return head(isinf(x) ? fmax(x, 0) : 0.5 * x * erfc(-x / sqrt(2)));
    case MAP_GELU_TANH: /* 1 + tanh(u) = 2 sigmoid(2u) */
        return head(
            isinf(x) ? fmax(x, 0)
                     : x * f_sigmoid(2 * 0.79788456080286541 * (x + 0.044715 * x * x * x), NULL));
    case MAP_SILU: return head(isinf(x) ? fmax(x, 0) : x * f_sigmoid(x, NULL));
    case MAP_SOFTPLUS:
        if (p[0] * xf > p[1]) return (struct value){x, 0}; /* the threshold is in float32 */
        return ulps((fmax(p[0] * x, 0) + log1p(exp(-fabs(p[0] * x)))) / p[0], SOFTPLUS_ULPS);
    }
    return (struct value){NAN, 0};
}

/* ---- norms ------------------------------------------------------------------------ */

/* https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html. A sum over n
 * features is one of n / 16 terms, then four levels of a tree: so many roundings. */
void v_layer_norm(size_t n, const struct value *x, const float *weight, const float *bias,
                  double eps, struct value *out)
{
    const double steps = ceil((double)n / 16) + 5;
    double mean = 0, size = 0, carried = 0, variance = 0, moved = 0;
    for (size_t i = 0; i < n; i++) {
        mean += x[i].exact / (double)n;
        size += (fabs(x[i].exact) + x[i].bound) / (double)n;
        carried += x[i].bound / (double)n;
    }
    const double e_mean = steps * U * size + carried;
    for (size_t i = 0; i < n; i++) {
        const double d = x[i].exact - mean, e0 = e_mean + x[i].bound;
        const double e = e0 + U * (fabs(d) + e0);
        variance += d * d / (double)n;
        moved += (2 * fabs(d) * e + e * e) / (double)n;
    }
    const double e_var = (moved + steps * U * (variance + moved)) + U * (variance + eps);
    const double s = sqrt(variance + eps), least = variance + eps - e_var;
    /* 1/sqrt is steepest at the least; past it there is no bound. */
    const double e_s = least > 0 ? e_var / (2 * sqrt(least)) + 2 * U * s : INFINITY;
    const double s_least = least > 0 ? sqrt(least) * (1 - 2 * U) : 0;
    for (size_t i = 0; i < n; i++) {
        const double d = x[i].exact - mean, e0 = e_mean + x[i].bound;
        const double e = e0 + U * (fabs(d) + e0), y = d / s;
        double bound = s_least > 0 ? (e + scaled(y, e_s)) / s_least : INFINITY;
        bound += U * (fabs(y) + bound);
        struct value v = {y, bound};
        if (weight) {
            v = (struct value){y * weight[i] + (bias ? bias[i] : 0), scaled(weight[i], bound)};
            v.bound += U * (fabs(v.exact) + v.bound);
        }
        v.bound = isfinite(v.exact) ? v.bound * (1 + 0x1p-10) + TINY : 0; /* second order */
        out[i] = v;
    }
}

void oracle_norm(enum norm_kind kind, size_t n, const float *x, const float *weight,
                 const float *bias, float eps, struct value *out)
{
    double top = -INFINITY, sum = 0;
    if (kind == NORM_LAYER) {
        struct value *values = malloc(n * sizeof *values);
        for (size_t i = 0; i < n; i++) values[i] = v_exactly(x[i]);
        v_layer_norm(n, values, weight, bias, eps, out);
        free(values);
        return;
    }
    for (size_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - top);
    for (size_t i = 0; i < n; i++) {
        const double d = x[i] - top;
        out[i] = head(kind == NORM_SOFTMAX ? exp(d) / sum : d - log(sum));
    }
}
