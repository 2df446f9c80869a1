// SPDX-License-Identifier: MIT
/* The words of the kernels in AVX2 with FMA: 8 lanes. Meanings are in vec_scalar.h. */
#define LANES 8
#define PANELS 1       /* one row: a unit block is two vectors, 8 chains already */
#define ROWS 3         /* many rows: 3 x 4 accumulators, 3 inputs, 1 weight of 16 registers */
#define TILE 1         /* many rows: vectors of a unit block at once */
#define HOLD_WEIGHTS 0 /* many rows: whether the weights or the inputs stay in registers */

typedef __m256 vf;
typedef __m256 vm;

INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
INLINE vf v_all(float a) { return _mm256_set1_ps(a); }
INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE vf v_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
INLINE vf v_abs(vf a) { return _mm256_andnot_ps(v_all(-0.0f), a); }
INLINE vf v_copysign(vf a, vf sign)
{
    return _mm256_or_ps(v_abs(a), _mm256_and_ps(v_all(-0.0f), sign));
}
INLINE vf v_scale2_normal(vf a, vf n)
{
    const __m256i up = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), up));
}
INLINE vf v_scale2(vf a, vf n)
{
    return v_mul(v_scale2_normal(v_mul(a, v_all(0x1p64f)), n), v_all(0x1p-64f));
}
INLINE vf v_split(vf a, vf *n)
{
    const __m256i bits = _mm256_castps_si256(a);
    const vf m = _mm256_castsi256_ps(_mm256_or_si256(
        _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff)), _mm256_set1_epi32(0x3f800000)));
    const vf e =
        _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
    const vm high = v_lt(v_all(1.41421356f), m);
    *n = v_select(high, v_add(e, v_all(1.0f)), e);
    return v_select(high, v_mul(m, v_all(0.5f)), m);
}
INLINE void v_leave(void) { _mm256_zeroupper(); }
