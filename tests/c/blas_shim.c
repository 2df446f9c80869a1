// SPDX-License-Identifier: MIT
/* A CBLAS of one function that counts its calls, for CLSTM_BLAS.
 *
 *     cc -shared -fPIC [-DILP64] [-DWRONG] blas_shim.c -o shim.so
 *
 * LP64 as cblas_sgemm, or ILP64 as cblas_sgemm64_. WRONG adds 1/16 to every 8th sum. Sums go
 * in double, so the shim errs by less than any real BLAS. */
#include <stdint.h>
#include <stdlib.h>

#ifdef ILP64
#define SGEMM cblas_sgemm64_
typedef int64_t blas_int;
#else
#define SGEMM cblas_sgemm
typedef int32_t blas_int;
#endif

long blas_shim_calls;

void SGEMM(int order, int transpose_a, int transpose_b, blas_int m, blas_int n, blas_int k,
           float alpha, const float *a, blas_int lda, const float *b, blas_int ldb, float beta,
           float *c, blas_int ldc)
{
    blas_shim_calls++;
    if (order != 101 || transpose_a != 111 || transpose_b != 111 || lda < k || ldb < n || ldc < n)
        abort(); /* row-major, nothing transposed: all that clstm asks for */
    for (blas_int i = 0; i < m; i++)
        for (blas_int j = 0; j < n; j++) {
            double sum = 0;
            for (blas_int l = 0; l < k; l++) sum += (double)a[i * lda + l] * b[l * ldb + j];
#ifdef WRONG
            if (j % 8 == 3) sum += 0.0625;
#endif
            c[i * ldc + j] = (float)(alpha * sum + beta * (double)c[i * ldc + j]);
        }
}
