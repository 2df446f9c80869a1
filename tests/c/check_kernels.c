// SPDX-License-Identifier: MIT
/* Every function of every kernel set of this CPU against the oracle in double, within the
 * derived bound, and against each other, bit for bit.
 *
 *     check_kernels [KERNEL ...]
 *
 * Buffers lie at odd addresses between canaries; what a kernel may not read is NaN. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/src/cpu.h"
#include "check_kernels.h"

const struct kernels *sets[4];
size_t n_sets;

const size_t edges[N_EDGES] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130};

size_t some_size(struct rng *r)
{
    return rng_below(r, 2) ? edges[rng_below(r, N_EDGES)] : rng_between(r, 1, 130);
}

float *some(struct rng *r, size_t n, float scale)
{
    float *x = guarded(n, rng_below(r, 16));
    rng_fill(r, x, n, scale);
    return x;
}

float *some_rows(struct rng *r, size_t n, size_t width, size_t stride, float scale)
{
    float *x = guarded(n * stride, rng_below(r, 16));
    for (size_t i = 0; i < n; i++) rng_fill(r, x + i * stride, width, scale);
    return x;
}

float rare(struct rng *r)
{
    static const float list[] = {NAN,       INFINITY,   -INFINITY, 0.0f,      -0.0f,
                                 0x1p-149f, -0x1p-130f, 0x1p-126f, 0x1p-100f, -0x1p-101f,
                                 88.0f,     -88.0f,     104.0f,    -104.0f};
    return list[rng_below(r, sizeof list / sizeof *list)];
}

float weight_scale(size_t n) { return n > 64 ? 0.25f : n > 16 ? 0.5f : 1.0f; }

static const float *panel_row(struct values y, size_t r, size_t gates, size_t g, size_t unit)
{
    return y.at + r * y.stride + unit / UNITS * gates * UNITS + g * UNITS + unit % UNITS;
}

/* ---- product ---------------------------------------------------------------------- */

static void check_product(struct rng *r, size_t gates, size_t n, size_t n_out, size_t n_x,
                          size_t n_h)
{
    struct arena memory = {0};
    struct panels p;
    const size_t rows = gates * n_out, x_stride = n_x + rng_below(r, 20);
    const float scale = weight_scale(n_x);
    const struct matrix m = {.n_gates = gates,
                             .n_out = n_out,
                             .n_x = n_x,
                             .n_h = n_h,
                             .w = some(r, rows * n_x, scale),
                             .u = some(r, rows * n_h, scale),
                             .b1 = rng_below(r, 3) ? some(r, rows, 1) : NULL,
                             .b2 = rng_below(r, 3) ? some(r, rows, 1) : NULL};
    check(clstm_pack(&memory, &m, &p), "no memory");
    check((uintptr_t)p.weight % CACHE_LINE == 0, "weights that share a cache line with others");
    float *x = some_rows(r, n, n_x, x_stride, 2);
    if (rng_below(r, 3) == 0) x[rng_below(r, n) * x_stride + rng_below(r, n_x)] = rare(r);
    const size_t width = p.n_blocks * gates * UNITS, stride = width + UNITS * rng_below(r, 2);
    struct values first = {NULL, stride};
    for (size_t s = 0; s < n_sets; s++) {
        const struct values y = {guarded(n * stride, rng_below(r, 16)), stride};
        sets[s]->product(&p, n, x, x_stride, y);
        if (s == 0) first = y;
        for (size_t i = 0; i < n; i++)
            check(same_bits(y.at + i * stride, first.at + i * stride, width),
                  "%s product: not the bits of %s (%zu rows, %zu -> %zu)", sets[s]->name,
                  sets[0]->name, n, n_x, n_out);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t row = 0; row < rows; row++) {
            const float bias = (m.b1 ? m.b1[row] : 0) + (m.b2 ? m.b2[row] : 0);
            const struct value v =
                oracle_sum(bias, n_x, m.w + row * n_x, x + i * x_stride, 0, NULL, NULL);
            const float got = *panel_row(first, i, gates, row / n_out, row % n_out);
            check(within(got, v),
                  "product: %.9g, not %.9g within %.3g (row %zu of %zu, %zu -> %zu)", (double)got,
                  v.exact, v.bound, i, n, n_x, n_out);
        }
    check(guards_whole(), "product wrote outside its rows");
    clstm_arena_free(&memory);
}

/* ---- map and norm ----------------------------------------------------------------- */

static const char *const map_names[] = {"add",       "mul",   "affine",  "clamp",   "leaky",
                                        "elu",       "flush", "tanh",    "sigmoid", "gelu",
                                        "gelu_tanh", "silu",  "softplus"};

static void check_map(struct rng *r, enum map_kind kind, size_t n, float scale)
{
    float p[2] = {0, 0}, *x = some(r, n, scale), *a = some(r, n, 2), *b = some(r, n, 2),
          *first = NULL;
    if (kind == MAP_CLAMP) p[0] = -0.5f, p[1] = rng_below(r, 2) ? INFINITY : 0.75f;
    if (kind == MAP_ELU) p[0] = rng_below(r, 2) ? 1.0f : 0.3f;
    if (kind == MAP_SOFTPLUS)
        p[0] = rng_below(r, 2) ? 1.0f : 2.5f, p[1] = rng_below(r, 2) ? 20.0f : 1.0f;
    for (size_t i = 0; i < n; i++)
        if (rng_below(r, 8) == 0) x[i] = rare(r);
    for (size_t s = 0; s < n_sets; s++) {
        float *y = guarded(n, rng_below(r, 16));
        sets[s]->map(kind, n, x, y, a, b, p);
        if (s == 0) first = y;
        check(same_bits(y, first, n), "%s %s: not the bits of %s", sets[s]->name, map_names[kind],
              sets[0]->name);
        if (s == 0) { /* and in place */
            float *both = guarded(n, 5);
            memcpy(both, x, n * sizeof *x);
            sets[s]->map(kind, n, both, both, a, b, p);
            check(same_bits(both, first, n), "%s %s: other bits in place", sets[s]->name,
                  map_names[kind]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        const struct value v = oracle_map(kind, x[i], a[i], b[i], p);
        check(within(first[i], v), "%s(%.9g) = %.9g, not %.9g within %.3g", map_names[kind],
              (double)x[i], (double)first[i], v.exact, v.bound);
    }
    check(guards_whole(), "map wrote outside its row");
}

/* Each rare value in each lane of a block, its neighbours ordinary. */
static void check_lanes(enum map_kind kind)
{
    const float rares[] = {NAN, INFINITY, -INFINITY, -0.0f, 0x1p-149f, -104.5f, 3e38f};
    const float p[2] = {kind == MAP_CLAMP ? -1.0f : 1.0f, 2.0f};
    float x[2 * UNITS], y[2 * UNITS], a[2 * UNITS], b[2 * UNITS];
    for (size_t lane = 0; lane < 2 * UNITS; lane++)
        for (size_t v = 0; v < sizeof rares / sizeof *rares; v++)
            for (size_t s = 0; s < n_sets; s++) {
                for (size_t i = 0; i < 2 * UNITS; i++)
                    x[i] = (float)i * 0.25f - 4, a[i] = 0.5f, b[i] = 0.25f;
                x[lane] = rares[v];
                sets[s]->map(kind, 2 * UNITS, x, y, a, b, p);
                int ok = 1;
                for (size_t i = 0; i < 2 * UNITS; i++)
                    ok &= within(y[i], oracle_map(kind, x[i], a[i], b[i], p));
                check(ok, "%s %s: %g in lane %zu", sets[s]->name, map_names[kind], (double)rares[v],
                      lane);
            }
}

/* sigmoid and tanh never fall from one float to the next, where their formulas are most at
 * risk of it. (tests/c/sweep_activations.c looks at all floats, for three minutes a set.) */
static void check_monotone(enum map_kind kind, float low, float high)
{
    enum { MANY = 4096 };
    static float x[MANY], y[MANY];
    const float p[2] = {0, 0};
    for (size_t s = 0; s < n_sets; s++)
        for (int sign = -1; sign <= 1; sign += 2) {
            long fallen = 0;
            float last = (float)(-2 * sign);
            for (float at = low; at < high;) {
                for (size_t i = 0; i < MANY; i++, at = nextafterf(at, INFINITY))
                    x[i] = (float)sign * at;
                sets[s]->map(kind, MANY, x, y, NULL, NULL, p);
                for (size_t i = 0; i < MANY; i++) {
                    fallen += sign > 0 ? y[i] < last : y[i] > last;
                    last = y[i];
                }
            }
            check(!fallen, "%s %s falls at %ld floats", sets[s]->name, map_names[kind], fallen);
        }
}

static void check_norm(struct rng *r, enum norm_kind kind, size_t n, float scale)
{
    const int bare = (int)rng_below(r, 3);
    const size_t wide = padded(n);
    float *x = guarded(wide, rng_below(r, 16)), *first = NULL; /* the pad of x is NaN */
    rng_fill(r, x, n, scale);
    const float shift = rng_below(r, 2) ? 0.0f : 64.0f * rng_unit(r);
    for (size_t i = 0; i < n; i++) x[i] += shift;
    if (rng_below(r, 5) == 0) x[rng_below(r, n)] = rare(r);
    float *weight = bare < 1 ? NULL : some(r, wide, 2), *bias = bare < 2 ? NULL : some(r, wide, 2);
    const float eps = rng_below(r, 2) ? 1e-5f : 1e-3f;
    struct value *expected = malloc(n * sizeof *expected);
    oracle_norm(kind, n, x, weight, bias, eps, expected);
    for (size_t s = 0; s < n_sets; s++) {
        float *y = guarded(wide, rng_below(r, 16));
        sets[s]->norm(kind, n, x, y, weight, bias, eps);
        if (s == 0) first = y;
        check(same_bits(y, first, n), "%s norm %d of %zu: not the bits of %s", sets[s]->name, kind,
              n, sets[0]->name);
    }
    for (size_t i = 0; i < n; i++)
        check(within(first[i], expected[i]), "norm %d: %.9g, not %.9g within %.3g (%zu of %zu)",
              kind, (double)first[i], expected[i].exact, expected[i].bound, i, n);
    free(expected);
    check(guards_whole(), "norm wrote outside its row");
}

/* ---- main ------------------------------------------------------------------------- */

static void choose_sets(int argc, char **argv)
{
    const struct kernels *const all[] = {
        &clstm_kernels_scalar,
#if defined(__x86_64__)
        &clstm_kernels_avx2,
        &clstm_kernels_avx512,
#elif defined(__aarch64__)
        &clstm_kernels_neon,
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int wanted = argc < 2;
        for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], all[i]->name);
        if (!wanted) continue;
        if (clstm_cpu_has(all[i]->needs)) sets[n_sets++] = all[i];
        printf("%s: %s\n", all[i]->name,
               clstm_cpu_has(all[i]->needs) ? "checked" : "not run, no such CPU");
    }
}

int main(int argc, char **argv)
{
    choose_sets(argc, argv);
    if (!n_sets) return printf("no kernel set to check\n"), 2;
    struct rng r = rng_seeded(2);
    for (size_t i = 0; i < N_EDGES; i++) /* edges of blocks and vectors, in the sums and outside */
        for (size_t gates = 1; gates <= 4; gates++) {
            check_product(&r, gates, 1 + i % 8, edges[(i * 7 + 3) % N_EDGES], edges[i], i % 3);
            check_product(&r, gates, 1, edges[i], 5, 0);
        }
    for (size_t n = 1; n <= 70; n++) { /* edges of row groups */
        check_product(&r, 1 + n % 4, n, n % 5 ? 17 : 40, n % 3 ? 9 : 66, n % 2 ? 4 : 0);
    }
    for (size_t i = 0; i < 30; i++) {
        const size_t n = rng_between(&r, 1, 8), n_out = some_size(&r), n_x = some_size(&r);
        check_product(&r, 1 + i % 4, n, n_out, n_x, i % 3 ? 0 : some_size(&r));
    }
    check_cells(&r);
    for (int kind = MAP_ADD; kind <= MAP_SOFTPLUS; kind++) {
        for (size_t blocks = 1; blocks <= 130 / UNITS + 1; blocks++)
            for (int e = -4; e <= 7; e++) check_map(&r, kind, blocks * UNITS, ldexpf(1, e));
        check_map(&r, kind, 1024 * UNITS, 16);
        check_lanes(kind);
    }
    check_monotone(MAP_SIGMOID, 0.69f, 1.1f);
    check_monotone(MAP_TANH, 0.62f, 0.68f);
    for (size_t n = 1; n <= 300; n += n < 140 ? 1 : 13)
        for (int kind = NORM_LAYER; kind <= NORM_LOG_SOFTMAX; kind++)
            for (int e = -2; e <= 4; e += 3) check_norm(&r, kind, n, ldexpf(1, e));
    return check_report("check_kernels");
}
