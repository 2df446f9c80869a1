// SPDX-License-Identifier: MIT
/* The words of the kernels in AVX-512: 16 lanes. Meanings are in vec_scalar.h. */
#define LANES 16
#define PANELS 2       /* one row: unit blocks at once, so that 8 chains hide the latency */
#define ROWS 6         /* many rows: 6 x 4 accumulators, 4 weights, 1 input of 32 registers */
#define TILE 1         /* many rows: vectors of a unit block at once */
#define HOLD_WEIGHTS 1 /* many rows: whether the weights or the inputs stay in registers */

typedef __m512 vf;
typedef __mmask16 vm;

INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf v_all(float a) { return _mm512_set1_ps(a); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
INLINE vf v_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf v_copysign(vf a, vf sign)
{
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
        _mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(sign), _mm512_castps_si512(a), 0xCA));
}
INLINE vf v_scale2_normal(vf a, vf n) { return _mm512_scalef_ps(a, n); }
INLINE vf v_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
INLINE vf v_split(vf a, vf *n)
{
    const vf m = _mm512_getmant_ps(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
    const vm high = _mm512_cmp_ps_mask(v_all(1.41421356f), m, _CMP_LT_OQ);
    const vf e = _mm512_getexp_ps(a);
    *n = _mm512_mask_add_ps(e, high, e, v_all(1.0f));
    return _mm512_mask_mul_ps(m, high, m, v_all(0.5f));
}
INLINE void v_leave(void) { _mm256_zeroupper(); }
