// SPDX-License-Identifier: MIT
/* The words of the kernels in plain C: 1 lane. This file is also their dictionary.
 * fmaf is correctly rounded by definition; without hardware it is slow but right. */
#define LANES 1
#define PANELS 1       /* one row: unit blocks at once */
#define ROWS 4         /* many rows: rows at once */
#define TILE 4         /* many rows: vectors of a unit block at once */
#define HOLD_WEIGHTS 1 /* many rows: whether the weights or the inputs stay in registers */

typedef float vf; /* LANES floats */
typedef int vm;   /* LANES truth values */

INLINE vf v_load(const float *p) { return *p; } /* any alignment */
INLINE void v_store(float *p, vf a) { *p = a; } /* any alignment */
INLINE vf v_all(float a) { return a; }          /* the same in every lane */
INLINE vf v_add(vf a, vf b) { return a + b; }
INLINE vf v_sub(vf a, vf b) { return a - b; }
INLINE vf v_mul(vf a, vf b) { return a * b; }
INLINE vf v_div(vf a, vf b) { return a / b; }                 /* IEEE, never a reciprocal */
INLINE vf v_sqrt(vf a) { return sqrtf(a); }                   /* IEEE */
INLINE vf v_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }   /* ab + c, one rounding */
INLINE vf v_fnma(vf a, vf b, vf c) { return fmaf(-a, b, c); } /* c - ab, one rounding */
INLINE vf v_min(vf a, vf b) { return a < b ? a : b; }         /* b where either is NaN */
INLINE vf v_max(vf a, vf b) { return a > b ? a : b; }         /* b where either is NaN */
INLINE vm v_lt(vf a, vf b) { return a < b; }                  /* false for NaN */
INLINE vf v_select(vm m, vf a, vf b) { return m ? a : b; }
INLINE vf v_abs(vf a) { return fabsf(a); }
INLINE vf v_copysign(vf a, vf sign) { return copysignf(a, sign); }
/* a 2^n for an integral n, where both are normal. NaN stays: its n is NaN too, and counts as 0. */
INLINE vf v_scale2_normal(vf a, vf n)
{
    const uint32_t i = n > -256.0f && n < 256.0f ? (uint32_t)(int32_t)n : 0;
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    bits += i << 23;
    memcpy(&a, &bits, sizeof a);
    return a;
}
/* The same for |a| of 0.5 ... 2 and n of -188 ... 60, rounded once where it is denormal. */
INLINE vf v_scale2(vf a, vf n) { return v_mul(v_scale2_normal(v_mul(a, 0x1p64f), n), 0x1p-64f); }
/* a = m * 2^n with m of sqrt(1/2) ... sqrt(2), for a positive and normal. */
INLINE vf v_split(vf a, vf *n)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    const float e = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7fffff) | 0x3f800000;
    vf m;
    memcpy(&m, &bits, sizeof m);
    const vm high = v_lt(1.41421356f, m);
    *n = v_select(high, v_add(e, 1.0f), e);
    return v_select(high, v_mul(m, 0.5f), m);
}
/* Last in every function of a set: code of the host that uses the same registers at their old
 * width would run many times slower. gcc does it by itself, but only from -O2 on. */
INLINE void v_leave(void) {}
