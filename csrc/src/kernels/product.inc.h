// SPDX-License-Identifier: MIT
/* Sums of products over packed panels. NV vectors make one block of UNITS. */
#define NV (UNITS / LANES)

/* sum[b][g][v] += the products of n inputs with P neighbouring panels, which move on. */
INLINE void one_block(const int P, const int G, vf *sum, const float **w, size_t n, const float *x)
{
    UNROLL_4 for (size_t k = 0; k < n; k++) {
        const vf xk = v_all(x[k]);
        UNROLL for (int b = 0; b < P; b++) {
            UNROLL for (int i = 0; i < G * NV; i++)
                sum[b * G * NV + i] = v_fma(v_load(w[b] + i * LANES), xk, sum[b * G * NV + i]);
            w[b] += G * UNITS;
        }
    }
}

INLINE void begin(const int N, vf *sum)
{
    UNROLL for (int i = 0; i < N; i++)
        sum[i] = v_all(0.0f);
}

INLINE void add(const int N, vf *total, const vf *sum)
{
    UNROLL for (int i = 0; i < N; i++)
        total[i] = v_add(total[i], sum[i]);
}

/* total[b][g][v] += the products of one row with P neighbouring panels, which move on. The totals
 * stay in registers over all blocks of inputs. */
INLINE void one_row(const int P, const int G, vf *total, const float **w, size_t n_k,
                    const float *x)
{
    for (size_t first = 0; first < n_k; first += K_BLOCK) {
        vf sum[PANELS * GATES_MAX * NV]; /* P * G <= PANELS * GATES_MAX */
        begin(P * G * NV, sum);
        one_block(P, G, sum, w, n_k - first < K_BLOCK ? n_k - first : K_BLOCK, x + first);
        add(P * G * NV, total, sum);
    }
}

/* Sums that are too few to hide each other's latency: two blocks of inputs are taken side by
 * side, for they begin from zero and do not wait for each other. */
#define FEW(P, G) ((G) < 3 && (P) * (G) * NV <= 4)

/* What such sums take in, part by part; parts may be empty. */
struct inputs {
    const float *x[3];
    size_t n[3];
    size_t part, at; /* how far it is */
};

/* The next block: how many inputs, 0 behind the last; they begin at *x. */
INLINE size_t next_block(struct inputs *in, const float **x)
{
    while (in->part < 3 && in->at >= in->n[in->part]) in->at = 0, in->part++;
    if (in->part == 3) return 0;
    const size_t left = in->n[in->part] - in->at, n = left < K_BLOCK ? left : K_BLOCK;
    *x = in->x[in->part] + in->at;
    in->at += n;
    return n;
}

/* As one_row over all parts. */
INLINE void few_sums(const int P, const int G, vf *total, const float **w, struct inputs in)
{
    const float *x, *x2 = NULL, *w2[PANELS * GATES_MAX];
    for (size_t n; (n = next_block(&in, &x));) {
        vf sum[PANELS * GATES_MAX * NV], sum2[PANELS * GATES_MAX * NV];
        const size_t n2 = next_block(&in, &x2), both = n < n2 ? n : n2;
        begin(P * G * NV, sum);
        begin(P * G * NV, sum2);
        UNROLL for (int b = 0; b < P; b++)
            w2[b] = w[b] + n * G * UNITS;
        UNROLL_4 for (size_t k = 0; k < both; k++) {
            one_block(P, G, sum, w, 1, x + k);
            one_block(P, G, sum2, w2, 1, x2 + k);
        }
        one_block(P, G, sum, w, n - both, x + both);
        one_block(P, G, sum2, w2, n2 - both, x2 + both);
        add(P * G * NV, total, sum);
        if (n2) add(P * G * NV, total, sum2); /* 0 is no number to add: -0 + 0 is 0 */
        UNROLL for (int b = 0; b < P; b++)
            w[b] = w2[b];
    }
}

/* How the sums of many rows are tiled: V vectors of each gate, of P neighbouring blocks, so that
 * few gates keep as many registers busy as four. */
#define TILE_WIDTH (4 * TILE)
#define V_OF(G) ((G) > 2 ? TILE : TILE_WIDTH / (G) < NV ? TILE_WIDTH / (G) : NV)
#define P_OF(G) ((G) > 2 ? 1 : TILE_WIDTH / ((G) * V_OF(G)))

/* total[r] = from[r] + the products of R rows with one tile, one block of inputs; `apart` floats
 * lie from one block of units to the next. Weights larger than L2 come too late by the hardware's
 * own prefetching, so that the sums would wait for them: each k fetches one line of `soon`. */
INLINE void some_rows(const int R, const int P, const int G, const int V, const float *w,
                      size_t apart, size_t n_k, const float *const *x, size_t at,
                      const float *const *from, float *const *total, uintptr_t soon)
{
    vf sum[ROWS][TILE_WIDTH];
    UNROLL for (int r = 0; r < R; r++) UNROLL
        for (int i = 0; i < P * G * V; i++) sum[r][i] = v_all(0.0f);
#define WEIGHT(i) v_load(w + (i) / (G * V) * apart + (i) / V % G * UNITS + (i) % V * LANES)
    UNROLL_4 for (size_t k = 0; k < n_k; k++) {
        if (R > 3) PREFETCH(soon + k * G * UNITS * sizeof *w);
        /* What is held while the other runs: the weights, where registers are many. */
#if HOLD_WEIGHTS
        vf weight[TILE_WIDTH];
        UNROLL for (int i = 0; i < P * G * V; i++)
            weight[i] = WEIGHT(i);
        UNROLL for (int r = 0; r < R; r++) {
            const vf xk = v_all(x[r][at + k]);
            UNROLL for (int i = 0; i < P * G * V; i++)
                sum[r][i] = v_fma(weight[i], xk, sum[r][i]);
        }
#else
        vf xk[ROWS];
        UNROLL for (int r = 0; r < R; r++)
            xk[r] = v_all(x[r][at + k]);
        UNROLL for (int i = 0; i < P * G * V; i++) {
            const vf weight = WEIGHT(i);
            UNROLL for (int r = 0; r < R; r++)
                sum[r][i] = v_fma(weight, xk[r], sum[r][i]);
        }
#endif
        w += G * UNITS;
    }
#undef WEIGHT
    UNROLL for (int r = 0; r < R; r++) UNROLL
        for (int i = 0; i < P * G * V; i++) {
            const size_t place = i / V * UNITS + i % V * LANES;
            v_store(total[r] + place, v_add(v_load(from[r] + place), sum[r][i]));
        }
}

/* The same for any number of rows up to ROW_GROUP and P whole blocks of UNITS. A block of
 * K_BLOCK inputs is 16 KiB of weights at most: it serves all rows from L1. */
INLINE void many_rows_of(const int P, const int G, const float *w, size_t apart, size_t n_k,
                         size_t n, const float *const *x, const float *const *from,
                         float *const *total)
{
    const int V = V_OF(G);
    /* Groups of equal size: one of few rows would wait for its own sums. */
    const size_t n_groups = (n + ROWS - 1) / ROWS;
    for (size_t first = 0; first < n_k; first += K_BLOCK, from = (const float *const *)total) {
        const size_t count = n_k - first < K_BLOCK ? n_k - first : K_BLOCK;
        for (size_t g = 0, r = 0; g < n_groups; g++) {
            const size_t rows = (n - r + n_groups - g - 1) / (n_groups - g);
            /* The first P * G groups fetch one of the lines of each k. */
            const size_t line = g % (P * G);
            const uintptr_t soon =
                (uintptr_t)w +
                (line / G * apart + ((first + 4 * K_BLOCK) * G + line % G) * UNITS) * sizeof *w;
            for (int v = 0; v < NV; v += V) {
                const float *weight = w + first * G * UNITS + v * LANES;
                const float *f[ROWS];
                float *t[ROWS];
                for (size_t i = 0; i < rows; i++) {
                    f[i] = from[r + i] + v * LANES;
                    t[i] = total[r + i] + v * LANES;
                }
                switch (rows) {
#define CASE(R)                                                                                    \
    case R: some_rows(R, P, G, V, weight, apart, count, x + r, first, f, t, soon); break
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
            r += rows;
        }
    }
}

/* One copy for each number of gates and blocks, or every caller would hold all of it. */
#define MANY_ROWS(NAME, P, G)                                                                      \
    NOINLINE void NAME(const float *w, size_t apart, size_t n_k, size_t n, const float *const *x,  \
                       const float *const *from, float *const *total)                              \
    {                                                                                              \
        many_rows_of(P, G, w, apart, n_k, n, x, from, total);                                      \
    }
MANY_ROWS(rows_1, 1, 1)
MANY_ROWS(rows_2, 1, 2)
MANY_ROWS(rows_3, 1, 3)
MANY_ROWS(rows_4, 1, 4)
#if TILE_WIDTH > NV
MANY_ROWS(tile_1, P_OF(1), 1)
#else
#define tile_1 rows_1
#endif
#if TILE_WIDTH > 2 * NV
MANY_ROWS(tile_2, P_OF(2), 2)
#else
#define tile_2 rows_2
#endif
#undef MANY_ROWS

/* P_OF(G) blocks at once, or P = 1. */
INLINE void many_rows(size_t P, const int G, const float *w, size_t apart, size_t n_k, size_t n,
                      const float *const *x, const float *const *from, float *const *total)
{
    if (G == 4) rows_4(w, apart, n_k, n, x, from, total);
    else if (G == 3) rows_3(w, apart, n_k, n, x, from, total);
    else if (G == 2) (P > 1 ? tile_2 : rows_2)(w, apart, n_k, n, x, from, total);
    else (P > 1 ? tile_1 : rows_1)(w, apart, n_k, n, x, from, total);
}

INLINE void product_gates(const int G, const struct panels *p, size_t n, const float *x,
                          size_t x_stride, struct values y)
{
    const size_t n_k = p->n_x + p->n_h + p->n_c, apart = n_k * G * UNITS;
    for (size_t row = 0; row < n; row += ROW_GROUP) {
        const size_t rows = n - row < ROW_GROUP ? n - row : ROW_GROUP;
        const float *in[ROW_GROUP], *from[ROW_GROUP];
        for (size_t r = 0; r < rows; r++) in[r] = x + (row + r) * x_stride;
        for (size_t b = 0, P; b < p->n_blocks; b += P) {
            const float *w = p->weight + b * apart, *bias = p->bias + b * G * UNITS;
            float *out[ROW_GROUP];
            P = rows > 1 && p->n_blocks - b >= (size_t)P_OF(G) ? P_OF(G) : 1;
            for (size_t r = 0; r < rows; r++) {
                out[r] = y.at + (row + r) * y.stride + b * G * UNITS;
                from[r] = bias;
            }
            if (rows == 1) {
                vf total[GATES_MAX * NV];
                UNROLL for (int i = 0; i < G * NV; i++)
                    total[i] = v_load(bias + i * LANES);
                one_row(1, G, total, &w, p->n_x, in[0]);
                UNROLL for (int i = 0; i < G * NV; i++)
                    v_store(out[0] + i * LANES, total[i]);
            } else many_rows(P, G, w, apart, p->n_x, rows, in, from, out);
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
