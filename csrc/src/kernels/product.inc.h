// SPDX-License-Identifier: MIT
/* Sums of products over packed panels. NV vectors make one block of UNITS. */
#define NV (UNITS / LANES)

/* total[b][g][v] += the products of one row with P neighbouring panels. The totals stay in
 * registers over all blocks of inputs. */
INLINE void one_row(const int P, const int G, vf *total, const float *const *w, size_t n_k,
                    const float *x)
{
    const float *panel[PANELS * GATES_MAX];
    UNROLL for (int b = 0; b < P; b++)
        panel[b] = w[b];
    for (size_t first = 0; first < n_k; first += K_BLOCK) {
        const size_t last = n_k - first < K_BLOCK ? n_k : first + K_BLOCK;
        vf sum[PANELS * GATES_MAX * NV]; /* P * G <= PANELS * GATES_MAX */
        UNROLL for (int i = 0; i < P * G * NV; i++)
            sum[i] = v_all(0.0f);
        UNROLL_4 for (size_t k = first; k < last; k++) {
            const vf xk = v_all(x[k]);
            UNROLL for (int b = 0; b < P; b++) {
                UNROLL for (int i = 0; i < G * NV; i++)
                    sum[b * G * NV + i] =
                        v_fma(v_load(panel[b] + i * LANES), xk, sum[b * G * NV + i]);
                panel[b] += G * UNITS;
            }
        }
        UNROLL for (int i = 0; i < P * G * NV; i++)
            total[i] = v_add(total[i], sum[i]);
    }
}

/* total[r] += the products of R rows with V vectors of every gate, one block of inputs. Weights
 * larger than L2 come too late by the hardware's own prefetching, so that the sums would wait for
 * them: each k fetches one line of `soon`. */
INLINE void some_rows(const int R, const int G, const int V, const float *w, size_t n_k,
                      const float *const *x, size_t at, float *const *total, uintptr_t soon)
{
    vf sum[ROWS][GATES_MAX * NV];
    UNROLL for (int r = 0; r < R; r++) UNROLL
        for (int i = 0; i < G * V; i++) sum[r][i] = v_all(0.0f);
    UNROLL_4 for (size_t k = 0; k < n_k; k++) {
        if (R > 3) PREFETCH(soon + k * G * UNITS * sizeof *w);
        /* What is held while the other runs: the weights, where registers are many. */
#if HOLD_WEIGHTS
        vf weight[GATES_MAX * NV];
        UNROLL for (int i = 0; i < G * V; i++)
            weight[i] = v_load(w + i / V * UNITS + i % V * LANES);
        UNROLL for (int r = 0; r < R; r++) {
            const vf xk = v_all(x[r][at + k]);
            UNROLL for (int i = 0; i < G * V; i++)
                sum[r][i] = v_fma(weight[i], xk, sum[r][i]);
        }
#else
        vf xk[ROWS];
        UNROLL for (int r = 0; r < R; r++)
            xk[r] = v_all(x[r][at + k]);
        UNROLL for (int i = 0; i < G * V; i++) {
            const vf weight = v_load(w + i / V * UNITS + i % V * LANES);
            UNROLL for (int r = 0; r < R; r++)
                sum[r][i] = v_fma(weight, xk[r], sum[r][i]);
        }
#endif
        w += G * UNITS;
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL
        for (int i = 0; i < G * V; i++) {
            float *t = total[r] + i / V * UNITS + i % V * LANES;
            v_store(t, v_add(v_load(t), sum[r][i]));
        }
}

/* The same for any number of rows up to ROW_GROUP and one whole block of UNITS. A block of
 * K_BLOCK inputs is 16 KiB of weights at most: it serves all rows from L1. */
INLINE void many_rows_of(const int G, const float *w, size_t n_k, size_t n, const float *const *x,
                         float *const *total)
{
    /* All vectors of a block at once where one gate alone leaves registers free. */
    const int V = G == 1 ? NV : TILE;
    for (size_t first = 0; first < n_k; first += K_BLOCK) {
        const size_t count = n_k - first < K_BLOCK ? n_k - first : K_BLOCK;
        for (size_t r = 0; r < n;) {
            const size_t left = n - r;
            /* The first G groups of rows fetch one of the lines of each k. */
            const uintptr_t soon =
                (uintptr_t)w + ((first + 4 * K_BLOCK) * G + r / ROWS % G) * UNITS * sizeof *w;
            for (int v = 0; v < NV; v += V) {
                const float *weight = w + first * G * UNITS + v * LANES;
                float *t[ROWS];
                const size_t rows = left < ROWS ? left : ROWS;
                for (size_t i = 0; i < rows; i++) t[i] = total[r + i] + v * LANES;
                switch (rows) {
#define CASE(R)                                                                                    \
    case R: some_rows(R, G, V, weight, count, x + r, first, (float *const *)t, soon); break
                    CASE(1);
                    CASE(2);
                    CASE(3);
#if ROWS > 3
                    CASE(4);
#endif
#if ROWS > 4
                    CASE(5);
                    CASE(6);
#endif
#undef CASE
                }
            }
            r += left < ROWS ? left : ROWS;
        }
    }
}

/* One copy for each number of gates, or every caller would hold all of it. */
#define MANY_ROWS(G)                                                                               \
    NOINLINE void many_rows_##G(const float *w, size_t n_k, size_t n, const float *const *x,       \
                                float *const *total)                                               \
    {                                                                                              \
        many_rows_of(G, w, n_k, n, x, total);                                                      \
    }
MANY_ROWS(1)
MANY_ROWS(2)
MANY_ROWS(3)
MANY_ROWS(4)
#undef MANY_ROWS

INLINE void many_rows(const int G, const float *w, size_t n_k, size_t n, const float *const *x,
                      float *const *total)
{
    if (!n_k) return;
    if (G == 1) many_rows_1(w, n_k, n, x, total);
    else if (G == 2) many_rows_2(w, n_k, n, x, total);
    else if (G == 3) many_rows_3(w, n_k, n, x, total);
    else many_rows_4(w, n_k, n, x, total);
}

INLINE void product_gates(const int G, const struct panels *p, size_t n, const float *x,
                          size_t x_stride, struct values y)
{
    const size_t n_k = p->n_x + p->n_h + p->n_c;
    for (size_t row = 0; row < n; row += ROW_GROUP) {
        const size_t rows = n - row < ROW_GROUP ? n - row : ROW_GROUP;
        const float *in[ROW_GROUP];
        for (size_t r = 0; r < rows; r++) in[r] = x + (row + r) * x_stride;
        for (size_t b = 0; b < p->n_blocks; b++) {
            const float *w = p->weight + b * n_k * G * UNITS;
            const float *bias = p->bias + b * G * UNITS;
            float *out[ROW_GROUP];
            for (size_t r = 0; r < rows; r++) out[r] = y.at + (row + r) * y.stride + b * G * UNITS;
            if (rows == 1) {
                vf total[GATES_MAX * NV];
                UNROLL for (int i = 0; i < G * NV; i++)
                    total[i] = v_load(bias + i * LANES);
                one_row(1, G, total, &w, p->n_x, in[0]);
                UNROLL for (int i = 0; i < G * NV; i++)
                    v_store(out[0] + i * LANES, total[i]);
            } else {
                for (size_t r = 0; r < rows; r++) memcpy(out[r], bias, G * UNITS * sizeof *bias);
                many_rows(G, w, p->n_x, rows, in, out);
            }
        }
    }
}

static void product(const struct panels *p, size_t n, const float *x, size_t x_stride,
                    struct values y)
{
    switch (p->n_gates) {
    case 1: product_gates(1, p, n, x, x_stride, y); break;
    case 2: product_gates(2, p, n, x, x_stride, y); break;
    case 3: product_gates(3, p, n, x, x_stride, y); break;
    default: product_gates(4, p, n, x, x_stride, y);
    }
    v_leave();
}
