// SPDX-License-Identifier: MIT
/* exp, log, sigmoid, tanh and the activations made of them, in the words of vec_*.h.
 *
 * The polynomials come from tools/fit_activations.py, which prints the error of each;
 * tests/c/sweep_activations.c measures what float32 makes of them over all inputs.
 * No branch, no table: every lane takes the same way, so special values are right in
 * every lane. NaN survives because v_min and v_max return their second operand for it. */

INLINE vf horner(vf x, const float *c, int n) /* c[0] + c[1] x + ... + c[n-1] x^(n-1) */
{
    vf y = v_all(c[n - 1]);
    UNROLL for (int i = n - 2; i >= 0; i--)
        y = v_fma(y, x, v_all(c[i]));
    return y;
}

/* exp(x) = (1 + t) 2^n for |x| <= 126. t is kept apart from 1: it carries 24 bits of its
 * own, so 1 + t grows with x from one float to the next, and exp(x) - 1 loses nothing. */
INLINE vf exp_parts(vf x, vf *n)
{
    static const float c[] = {0.49999994f, 0.166665167f, 0.041668281f, 0.00836924836f,
                              0.00138207746f}; /* EXP: 0.056 u */
    const vf magic = v_all(12582912.0f);       /* 1.5 * 2^23: adding it rounds to an integer */
    const vf k = v_sub(v_fma(x, v_all(1.44269504f), magic), magic);
    /* ln 2 in two parts; the first has 9 trailing zero bits, so k times it is exact. */
    const vf r = v_fnma(k, v_all(-2.12194440e-4f), v_fnma(k, v_all(0.693359375f), x));
    *n = k;
    return v_fma(v_mul(r, r), horner(r, c, 5), r);
}

INLINE vf exp_negative(vf x) /* exp(x) for x <= 0, denormal results too; 0 below -104 */
{
    vf n;
    const vf t = exp_parts(v_max(v_all(-104.0f), x), &n);
    return v_scale2(v_add(v_all(1.0f), t), n);
}

/* 1/(1+e) for x >= 0 and e/(1+e) for x < 0, where e = exp(-|x|). The quotient alone is not
 * monotone: 1 + e loses the last bits of e, and for e in 1/3 ... 1/2 the loss shows. One
 * Newton correction puts them back: numerator - y is exact, as y is at least half of it.
 * The other way, (1 + tanh(x/2)) / 2, errs by 689 ulp at x = -8. */
INLINE vf sigmoid(vf x)
{
    const vf one = v_all(1.0f), zero = v_all(0.0f);
    const vf e = exp_negative(v_copysign(x, v_all(-1.0f)));
    const vf reciprocal = v_div(one, v_add(one, e));
    const vf numerator = v_select(v_lt(x, zero), e, one);
    const vf y = v_fma(numerator, reciprocal, zero); /* not v_mul: y is subtracted next */
    const vf rest = v_fnma(y, e, v_sub(numerator, y));
    return v_fma(rest, reciprocal, y);
}

/* a + a^3 P(a^2) below 0.65, else 1 - 2 / (exp(2a) + 1), where a = |x|. Odd by the sign. */
INLINE vf tanh_(vf x)
{
    static const float c[] = {-0.333332479f, 0.133305177f, -0.0536630824f, 0.0203921404f,
                              -0.00543357106f}; /* TANH: 0.137 u */
    const vf one = v_all(1.0f), two = v_all(2.0f), a = v_abs(x);
    /* Below 2^-30 the correction vanishes; its square must not become denormal and slow. */
    const vf b = v_max(v_all(0x1p-30f), a), b2 = v_mul(b, b);
    const vf low = v_fma(a, v_mul(b2, horner(b2, c, 5)), a);
    vf n;
    const vf t = exp_parts(v_min(v_all(20.0f), v_mul(two, a)), &n);
    const vf e = v_scale2_normal(v_add(one, t), n);
    const vf high = v_sub(one, v_div(two, v_add(e, one)));
    return v_copysign(v_select(v_lt(a, v_all(0.65f)), low, high), x);
}

INLINE vf log_(vf x) /* for x normal and positive, +inf or NaN */
{
    static const float c[] = {-0.499999881f, 0.333333224f,  -0.250016034f,
                              0.200022072f,  -0.166088715f, 0.141773954f,
                              -0.132399529f, 0.129300937f,  -0.0766009837f}; /* LOG: 0.071 u */
    vf n;
    const vf f = v_sub(v_split(x, &n), v_all(1.0f));
    const vf low = v_fma(n, v_all(-2.12194440e-4f), v_mul(v_mul(f, f), horner(f, c, 9)));
    const vf y = v_fma(n, v_all(0.693359375f), v_add(f, low));
    return v_select(v_lt(x, v_all(INFINITY)), y, x);
}

INLINE vf expm1_negative(vf x) /* exp(x) - 1 for x <= 0 */
{
    const vf one = v_all(1.0f);
    vf n;
    const vf t = exp_parts(v_max(v_all(-30.0f), x), &n);
    const vf power = v_scale2_normal(one, n);
    return v_fma(power, t, v_sub(power, one));
}

INLINE vf softplus(vf x) /* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)) */
{
    const vf zero = v_all(0.0f), one = v_all(1.0f);
    const vf e = exp_negative(v_copysign(x, v_all(-1.0f)));
    const vf s = v_add(one, e), lo = v_sub(e, v_sub(s, one));
    return v_add(v_max(zero, x), v_add(log_(s), v_div(lo, s)));
}

INLINE vf silu(vf x) /* 0 at -infinity, where the product would be NaN */
{
    return v_mul(v_max(v_all(-200.0f), x), sigmoid(x));
}

/* x Phi(x), Phi the normal distribution: 1/2 + x P(x^2) below 1, else by the tail
 * Phi(-t) = exp(-t^2/2) R(w), w = 1/(1 + t/2), with the rounding of t^2 put back. */
INLINE vf gelu(vf x)
{
    static const float phi[] = {0.398942292f,    -0.0664905831f,  0.00997453928f, -0.00118905387f,
                                0.000116169016f, -8.61804256e-06f}; /* PHI: 0.018 u */
    static const float tail[] = {1.8717385e-06f, 0.199417204f,  0.200075388f,
                                 0.146515235f,   0.0539225899f, -0.0297329463f,
                                 -0.29179889f,   0.336401641f,  -0.115585685f}; /* TAIL: 0.504 u */
    const vf half = v_all(0.5f), one = v_all(1.0f), zero = v_all(0.0f);
    const vf t = v_min(v_all(14.4f), v_abs(x)), t2 = v_mul(t, t);
    const vf inner = v_fma(x, horner(t2, phi, 6), half);
    const vf w = v_div(one, v_fma(t, half, one));
    const vf e = exp_negative(v_mul(v_all(-0.5f), t2));
    const vf lost = v_mul(half, v_fnma(t, t, t2)); /* (t2 - t*t) / 2 */
    const vf d = v_fma(e, lost, e), r = horner(w, tail, 9);
    const vf outer = v_select(v_lt(x, zero), v_mul(d, r), v_fnma(d, r, one));
    return v_mul(v_max(v_all(-14.4f), x), v_select(v_lt(t, one), inner, outer));
}

INLINE vf gelu_tanh(vf x) /* x (1 + tanh u) / 2 = x sigmoid(2u) */
{
    const vf low = v_max(v_all(-14.4f), x);
    const vf b = v_min(v_all(14.4f), low); /* sigmoid is 1 there already; x^2 must not overflow */
    const vf u2 = v_mul(b, v_fma(v_mul(b, b), v_all(0.0713548163f), v_all(1.59576912f)));
    return v_mul(low, sigmoid(u2));
}
