// SPDX-License-Identifier: MIT
/* Activations and scalings, element by element, over padded rows. */

static void map(enum map_kind kind, size_t n, const float *x, float *y, const float *a,
                const float *b, const float p[2])
{
#define EACH(expression)                                                                           \
    for (size_t i = 0; i < n; i += LANES) {                                                        \
        const vf v = v_load(x + i);                                                                \
        v_store(y + i, (expression));                                                              \
    }                                                                                              \
    break
    const vf zero = v_all(0.0f);
    switch (kind) {
    case MAP_ADD: EACH(v_add(v, v_load(a + i)));
    case MAP_MUL: EACH(v_mul(v, v_load(a + i)));
    case MAP_AFFINE: EACH(v_fma(v_load(a + i), v, v_load(b + i)));
    case MAP_CLAMP: EACH(clamp(v, p[0], p[1]));
    case MAP_LEAKY: EACH(v_select(v_lt(v, zero), v_mul(v_load(a + i), v), v));
    case MAP_ELU: EACH(v_select(v_lt(v, zero), v_mul(v_all(p[0]), expm1_negative(v)), v));
    case MAP_FLUSH: EACH(flush(v));
    case MAP_TANH: EACH(tanh_(v));
    case MAP_SIGMOID: EACH(sigmoid(v));
    case MAP_GELU: EACH(gelu(v));
    case MAP_GELU_TANH: EACH(gelu_tanh(v));
    case MAP_SILU: EACH(silu(v));
    case MAP_SOFTPLUS:
        EACH(v_select(v_lt(v_all(p[1]), v_mul(v_all(p[0]), v)), v,
                      v_div(softplus(v_mul(v_all(p[0]), v)), v_all(p[0]))));
    }
    v_leave();
#undef EACH
}
