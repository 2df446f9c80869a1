// SPDX-License-Identifier: MIT
#include "oracle.h"

#include <float.h>
#include <math.h>

#define U 0x1p-24           /* half the spacing of float32 at 1 */
#define TINY 0x1p-149       /* its least number */
#define FLUSH 0x1p-100      /* states below it become 0 */
#define SLACK (1 + 0x1p-20) /* the roundings of double in here */

/* Promises 1 and 4; the others were measured over all inputs of check_kernels and are
 * kept from growing. */
#define TANH_ULP 1.5
#define SIGMOID_ULP 2.0
#define HEAD_ULP 4.0 /* GELU, SiLU, softmax, log-softmax: or 2^-23 near 0 */
#define ELU_ULP 2.5
#define SOFTPLUS_ULP 3.0

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

static double ceil64(size_t n) { return (double)((n + 63) / 64); }

/* Of a sum of n products in so many blocks, whose terms sum to size in absolute value. */
static struct value bounded_sum(double exact, double size, double n_blocks, double n)
{
    if (!isfinite(exact)) return (struct value){exact, 0};
    if (!(size < 0x1p127)) return (struct value){exact, INFINITY}; /* may overflow on the way */
    return (struct value){exact, (66 + n_blocks) * U * size + n * TINY};
}

struct value oracle_sum(double bias, size_t n_x, const float *w, const float *x, size_t n_h,
                        const float *u, const float *h)
{
    double z = bias, size = fabs(bias);
    for (size_t k = 0; k < n_x; k++) {
        z += (double)w[k] * x[k];
        size += fabs((double)w[k] * x[k]);
    }
    for (size_t k = 0; k < n_h; k++) {
        z += (double)u[k] * h[k];
        size += fabs((double)u[k] * h[k]);
    }
    return bounded_sum(z, size, ceil64(n_x) + ceil64(n_h), (double)(n_x + n_h));
}

void oracle_gates(const struct cell *cell, const float *x, const float *h, struct value *z)
{
    for (size_t row = 0; row < 4 * cell->n_hidden; row++) {
        const double b1 = cell->b1 ? cell->b1[row] : 0, b2 = cell->b2 ? cell->b2[row] : 0;
        z[row] = oracle_sum(b1 + b2, cell->n_x, cell->w + row * cell->n_x, x, cell->n_h,
                            cell->u ? cell->u + row * cell->n_h : NULL, h);
    }
}

/* ---- gates ------------------------------------------------------------------------ */

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }
static double tanh_slope(double x)
{
    const double e = exp(-2 * fabs(x));
    return 4 * e / ((1 + e) * (1 + e));
}

/* f(z) for a z known to within its bound, by the mean value theorem: f's slope falls away
 * from 0 and its values lie within an interval of length span. */
static struct value curve(double (*f)(double), double (*slope)(double), double span, double ulps,
                          struct value z)
{
    if (isnan(z.exact)) return (struct value){NAN, 0};
    const double nearest = fmax(fabs(z.exact) - z.bound, 0);
    const double far = fmax(fabs(f(z.exact - z.bound)), fabs(f(z.exact + z.bound)));
    const double moved = isinf(z.bound) ? span : fmin(z.bound * slope(nearest), span);
    return (struct value){f(z.exact), moved + ulps * ulp(fmin(far, 1 - U))};
}

static struct value product(struct value a, struct value b)
{
    const double exact = a.exact * b.exact;
    if (!isfinite(exact)) return (struct value){exact, 0};
    return (struct value){exact,
                          fabs(a.exact) * b.bound + fabs(b.exact) * a.bound + a.bound * b.bound};
}

static struct value rounded(struct value v)
{
    if (isfinite(v.exact)) v.bound += U * (fabs(v.exact) + v.bound) + TINY;
    return v;
}

static struct value flushed(struct value v)
{
    v.bound *= SLACK;
    if (fabs(v.exact) - v.bound < FLUSH) v.bound += FLUSH;
    return v;
}

void oracle_finish(size_t n, const struct value *z, const float *c, struct value *c_next,
                   struct value *h_next)
{
    for (size_t j = 0; j < n; j++) {
        const struct value i = curve(sigmoid, sigmoid_slope, 1, SIGMOID_ULP, z[j]);
        const struct value f = curve(sigmoid, sigmoid_slope, 1, SIGMOID_ULP, z[n + j]);
        const struct value g = curve(tanh, tanh_slope, 2, TANH_ULP, z[2 * n + j]);
        const struct value o = curve(sigmoid, sigmoid_slope, 1, SIGMOID_ULP, z[3 * n + j]);
        const struct value ig = rounded(product(i, g)), fc = product(f, (struct value){c[j], 0});
        struct value sum = {ig.exact + fc.exact, ig.bound + fc.bound};
        if (!isfinite(sum.exact)) sum.bound = 0;
        c_next[j] = flushed(rounded(sum));
        h_next[j] = flushed(rounded(product(o, curve(tanh, tanh_slope, 2, TANH_ULP, c_next[j]))));
    }
}

/* ---- maps ------------------------------------------------------------------------- */

static struct value ulps(double exact, double n)
{
    return (struct value){exact, n * ulp(exact) * SLACK};
}

static struct value head(double exact)
{
    struct value v = ulps(exact, HEAD_ULP);
    v.bound = fmax(v.bound, 0x1p-23);
    return v;
}

/* https://docs.pytorch.org/docs/stable/nn.html#non-linear-activations-weighted-sum-nonlinearity */
struct value oracle_map(enum map_kind kind, float xf, float a, float b, const float p[2])
{
    const double x = xf;
    if (isnan(x)) return (struct value){NAN, 0};
    switch (kind) {
    case MAP_AFFINE: return ulps(a * x + b, 0.5);
    case MAP_CLAMP: return (struct value){x < p[0] ? p[0] : x > p[1] ? p[1] : x, 0};
    case MAP_LEAKY: return x < 0 ? ulps(a * x, 0.5) : (struct value){x, 0};
    case MAP_ELU: return x < 0 ? ulps(p[0] * expm1(x), ELU_ULP) : (struct value){x, 0};
    case MAP_FLUSH: return (struct value){fabs(x) < FLUSH ? 0 : x, 0};
    case MAP_TANH: return ulps(tanh(x), TANH_ULP);
    case MAP_SIGMOID: return ulps(sigmoid(x), SIGMOID_ULP);
    case MAP_GELU: return head(isinf(x) ? fmax(x, 0) : 0.5 * x * erfc(-x / sqrt(2)));
    case MAP_GELU_TANH: /* 1 + tanh(u) = 2 sigmoid(2u) */
        return head(isinf(x) ? fmax(x, 0)
                             : x * sigmoid(2 * 0.79788456080286541 * (x + 0.044715 * x * x * x)));
    case MAP_SILU: return head(isinf(x) ? fmax(x, 0) : x * sigmoid(x));
    case MAP_SOFTPLUS:
        if (p[0] * xf > p[1]) return (struct value){x, 0}; /* the threshold is in float32 */
        return ulps((fmax(p[0] * x, 0) + log1p(exp(-fabs(p[0] * x)))) / p[0], SOFTPLUS_ULP);
    }
    return (struct value){NAN, 0};
}

/* ---- norms ------------------------------------------------------------------------ */

/* https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html. A sum over n
 * features is one of n / 16 terms, then four levels of a tree: so many roundings. */
static void layer_norm(size_t n, const float *x, const float *weight, const float *bias, float eps,
                       struct value *out)
{
    const double steps = ceil((double)n / 16) + 5;
    double mean = 0, size = 0, variance = 0, moved = 0;
    for (size_t i = 0; i < n; i++) {
        mean += x[i] / (double)n;
        size += fabs((double)x[i]) / (double)n;
    }
    const double e_mean = steps * U * size;
    for (size_t i = 0; i < n; i++) {
        const double d = x[i] - mean, e = e_mean + U * (fabs(d) + e_mean);
        variance += d * d / (double)n;
        moved += (2 * fabs(d) * e + e * e) / (double)n;
    }
    const double e_var = (moved + steps * U * (variance + moved)) + U * (variance + eps);
    const double s = sqrt(variance + eps), least = variance + eps - e_var;
    /* 1/sqrt is steepest at the least; past it there is no bound. */
    const double e_s = least > 0 ? e_var / (2 * sqrt(least)) + 2 * U * s : INFINITY;
    const double s_least = least > 0 ? sqrt(least) * (1 - 2 * U) : 0;
    for (size_t i = 0; i < n; i++) {
        const double d = x[i] - mean, e = e_mean + U * (fabs(d) + e_mean), y = d / s;
        double bound = s_least > 0 ? (e + fabs(y) * e_s) / s_least : INFINITY;
        bound += U * (fabs(y) + bound);
        struct value v = {y, bound};
        if (weight) {
            v = (struct value){y * weight[i] + (bias ? bias[i] : 0),
                               bound * fabs((double)weight[i])};
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
        layer_norm(n, x, weight, bias, eps, out);
        return;
    }
    for (size_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - top);
    for (size_t i = 0; i < n; i++) {
        const double d = x[i] - top;
        out[i] = head(kind == NORM_SOFTMAX ? exp(d) / sum : d - log(sum));
    }
}
