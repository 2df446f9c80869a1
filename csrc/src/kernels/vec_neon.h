// SPDX-License-Identifier: MIT
/* The words of the kernels in NEON for AArch64: 4 lanes. Meanings are in vec_scalar.h. */
#define LANES 4
#define PANELS 1       /* one row: a unit block is four vectors, 16 chains already */
#define ROWS 6         /* many rows: 6 x 4 accumulators, 6 inputs, 1 weight of 32 registers */
#define TILE 1         /* many rows: vectors of a unit block at once */
#define HOLD_WEIGHTS 1 /* many rows: whether the weights or the inputs stay in registers */

typedef float32x4_t vf;
typedef uint32x4_t vm;

INLINE vf v_load(const float *p) { return vld1q_f32(p); }
INLINE void v_store(float *p, vf a) { vst1q_f32(p, a); }
INLINE vf v_all(float a) { return vdupq_n_f32(a); }
INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf v_sqrt(vf a) { return vsqrtq_f32(a); }
INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
INLINE vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
INLINE vf v_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
/* Not vminq and vmaxq: of -0 and +0 they take another than x86 does. */
INLINE vf v_min(vf a, vf b) { return v_select(v_lt(a, b), a, b); }
INLINE vf v_max(vf a, vf b) { return v_select(v_lt(b, a), a, b); }
INLINE vf v_abs(vf a) { return vabsq_f32(a); }
INLINE vf v_copysign(vf a, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000), sign, a); }
INLINE vf v_scale2_normal(vf a, vf n)
{
    const int32x4_t up = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), up));
}
INLINE vf v_scale2(vf a, vf n)
{
    return v_mul(v_scale2_normal(v_mul(a, v_all(0x1p64f)), n), v_all(0x1p-64f));
}
INLINE vf v_split(vf a, vf *n)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(a);
    const vf m = vreinterpretq_f32_u32(
        vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffff)), vdupq_n_u32(0x3f800000)));
    const vf e =
        vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32(bits, 23)), vdupq_n_s32(127)));
    const vm high = v_lt(v_all(1.41421356f), m);
    *n = v_select(high, v_add(e, v_all(1.0f)), e);
    return v_select(high, v_mul(m, v_all(0.5f)), m);
}
INLINE void v_leave(void) {}
