/* Products of rows of halves or bytes with one query, as fast as the rows come from memory.
 *
 * Loads and arithmetic of one row are too short to hide the memory's latency, and a processor's own prefetching stops
 * at the end of a page: each row asks for the memory some rows ahead. Two variants, chosen by the processor at run
 * time; where it has neither, or on another architecture, scan_kernel_level() is 0 and nothing here must be called.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define AHEAD 6144 /* bytes: a page and a half; anything from 4 to 8 KB is as fast */
#define NARROW __attribute__((target("avx2,f16c,fma")))
#define WIDE __attribute__((target("avx512f,avx512bw,f16c,fma")))

/* 0: no variant runs here; 1: AVX2; 2: AVX-512. */
int scan_kernel_level(void) {
    unsigned a, b, c = 0, d; /* not every compiler knows f16c by name */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? 2 : 1;
}

static inline void ask_ahead(const void *place, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) _mm_prefetch((const char *)place + AHEAD + at, _MM_HINT_T0);
}

NARROW static float sum_of_8(__m256 x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

NARROW static int32_t sum_of_8_integers(__m256i x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

NARROW static float tail_of_halves(const uint16_t *row, const float *query, size_t from, size_t dim) {
    float sum = 0;
    for (size_t i = from; i < dim; i++) sum += _cvtsh_ss(row[i]) * query[i];
    return sum;
}

static int32_t tail_of_bytes(const int8_t *row, const int8_t *query, size_t from, size_t dim) {
    int32_t sum = 0;
    for (size_t i = from; i < dim; i++) sum += (int32_t)row[i] * query[i];
    return sum;
}

NARROW static void halves_avx2(const uint16_t *rows, size_t count, size_t dim, const float *query, float *out) {
    for (size_t n = 0; n < count; n++, rows += dim) {
        __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
        size_t i = 0;
        for (; i + 32 <= dim; i += 32) {
            ask_ahead(rows + i, 64);
            a = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128((const void *)(rows + i))), _mm256_loadu_ps(query + i), a);
            b = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128((const void *)(rows + i + 8))), _mm256_loadu_ps(query + i + 8), b);
            c = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128((const void *)(rows + i + 16))), _mm256_loadu_ps(query + i + 16), c);
            d = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128((const void *)(rows + i + 24))), _mm256_loadu_ps(query + i + 24), d);
        }
        out[n] = sum_of_8(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d))) + tail_of_halves(rows, query, i, dim);
    }
}

WIDE static void halves_avx512(const uint16_t *rows, size_t count, size_t dim, const float *query, float *out) {
    for (size_t n = 0; n < count; n++, rows += dim) {
        __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
        size_t i = 0;
        for (; i + 64 <= dim; i += 64) {
            ask_ahead(rows + i, 128);
            a = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(rows + i))), _mm512_loadu_ps(query + i), a);
            b = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(rows + i + 16))), _mm512_loadu_ps(query + i + 16), b);
            c = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(rows + i + 32))), _mm512_loadu_ps(query + i + 32), c);
            d = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(rows + i + 48))), _mm512_loadu_ps(query + i + 48), d);
        }
        out[n] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))) + tail_of_halves(rows, query, i, dim);
    }
}

NARROW static void bytes_avx2(const int8_t *rows, size_t count, size_t dim, const int8_t *query, float *out) {
    for (size_t n = 0; n < count; n++, rows += dim) {
        __m256i a = _mm256_setzero_si256(), b = a;
        size_t i = 0;
        for (; i + 32 <= dim; i += 32) {
            ask_ahead(rows + i, 32);
            a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(rows + i))),
                                                      _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(query + i)))));
            b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(rows + i + 16))),
                                                      _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(query + i + 16)))));
        }
        out[n] = (float)(sum_of_8_integers(_mm256_add_epi32(a, b)) + tail_of_bytes(rows, query, i, dim));
    }
}

WIDE static void bytes_avx512(const int8_t *rows, size_t count, size_t dim, const int8_t *query, float *out) {
    for (size_t n = 0; n < count; n++, rows += dim) {
        __m512i a = _mm512_setzero_si512(), b = a;
        size_t i = 0;
        for (; i + 64 <= dim; i += 64) {
            ask_ahead(rows + i, 64);
            a = _mm512_add_epi32(a, _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(rows + i))),
                                                      _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(query + i)))));
            b = _mm512_add_epi32(b, _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(rows + i + 32))),
                                                      _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)(query + i + 32)))));
        }
        out[n] = (float)(_mm512_reduce_add_epi32(_mm512_add_epi32(a, b)) + tail_of_bytes(rows, query, i, dim));
    }
}

/* rows: `count` rows of `dim` halves, one after another; query: `dim` floats; out: `count` floats. */
void scan_halves(int level, const uint16_t *rows, size_t count, size_t dim, const float *query, float *out) {
    (level == 2 ? halves_avx512 : halves_avx2)(rows, count, dim, query, out);
}

/* rows and query of bytes from -127 to 127; sums are exact up to 133,000 dimensions, then rounded to float. */
void scan_bytes(int level, const int8_t *rows, size_t count, size_t dim, const int8_t *query, float *out) {
    (level == 2 ? bytes_avx512 : bytes_avx2)(rows, count, dim, query, out);
}

#else

int scan_kernel_level(void) { return 0; }
void scan_halves(int level, const uint16_t *rows, size_t count, size_t dim, const float *query, float *out) {
    (void)level, (void)rows, (void)count, (void)dim, (void)query, (void)out;
}
void scan_bytes(int level, const int8_t *rows, size_t count, size_t dim, const int8_t *query, float *out) {
    (void)level, (void)rows, (void)count, (void)dim, (void)query, (void)out;
}

#endif
