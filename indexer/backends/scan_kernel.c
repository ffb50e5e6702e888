/* Products of rows of halves or bytes with queries, as fast as the rows come from memory.
 *
 * Loads and arithmetic of one row are too short to hide the memory's latency, and a processor's own prefetching stops
 * at the end of a page and knows nothing of rows that are picked by number: while one row is multiplied, a later one is
 * asked for. Two variants, chosen by the processor at run time; where it has neither, or on another architecture,
 * scan_kernel_level() is 0 and nothing else here must be called.
 *
 * `rows` are rows of `dim` numbers, one after another; of them the first `count` are multiplied, or, if `which` is not
 * NULL, the `count` rows with those numbers.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define AHEAD 2048 /* bytes: further, and the processor's own prefetching gives up the page it is in */
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

/* Where row `n` lies; one beyond the last is looked for at the last. */
static inline const char *place(const void *rows, size_t count, size_t bytes, const int64_t *which, size_t n) {
    if (n >= count) n = count - 1;
    return (const char *)rows + (which ? (size_t)which[n] : n) * bytes;
}

static inline void ask_for(const char *row, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) _mm_prefetch(row + at, _MM_HINT_T0);
}

static inline size_t rows_ahead(size_t bytes) { return AHEAD / bytes + 1; }

NARROW static inline float sum_of_8(__m256 x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

NARROW static inline int32_t sum_of_8_integers(__m256i x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* One row with one query. */

NARROW static inline float halves_avx2(const uint16_t *row, const float *query, size_t dim) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 32 <= dim; i += 32) {
        const __m128i *from = (const void *)(row + i);
        a = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_loadu_ps(query + i), a);
        b = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(from + 1)), _mm256_loadu_ps(query + i + 8), b);
        c = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(from + 2)), _mm256_loadu_ps(query + i + 16), c);
        d = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_loadu_si128(from + 3)), _mm256_loadu_ps(query + i + 24), d);
    }
    float sum = sum_of_8(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    for (; i < dim; i++) sum += _cvtsh_ss(row[i]) * query[i];
    return sum;
}

WIDE static inline float halves_avx512(const uint16_t *row, const float *query, size_t dim) {
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 64 <= dim; i += 64) {
        const __m256i *from = (const void *)(row + i);
        a = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256(from)), _mm512_loadu_ps(query + i), a);
        b = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256(from + 1)), _mm512_loadu_ps(query + i + 16), b);
        c = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256(from + 2)), _mm512_loadu_ps(query + i + 32), c);
        d = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256(from + 3)), _mm512_loadu_ps(query + i + 48), d);
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
    for (; i < dim; i++) sum += _cvtsh_ss(row[i]) * query[i];
    return sum;
}

NARROW static inline float bytes_avx2(const int8_t *row, const int8_t *query, size_t dim) {
    __m256i a = _mm256_setzero_si256(), b = a;
    size_t i = 0;
    for (; i + 32 <= dim; i += 32) {
        const __m128i *from = (const void *)(row + i), *with = (const void *)(query + i);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(from)),
                                                  _mm256_cvtepi8_epi16(_mm_loadu_si128(with))));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1)),
                                                  _mm256_cvtepi8_epi16(_mm_loadu_si128(with + 1))));
    }
    int32_t sum = sum_of_8_integers(_mm256_add_epi32(a, b));
    for (; i < dim; i++) sum += (int32_t)row[i] * query[i];
    return (float)sum;
}

WIDE static inline float bytes_avx512(const int8_t *row, const int8_t *query, size_t dim) {
    __m512i a = _mm512_setzero_si512(), b = a;
    size_t i = 0;
    for (; i + 64 <= dim; i += 64) {
        const __m256i *from = (const void *)(row + i), *with = (const void *)(query + i);
        a = _mm512_add_epi32(a, _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(from)),
                                                  _mm512_cvtepi8_epi16(_mm256_loadu_si256(with))));
        b = _mm512_add_epi32(b, _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(from + 1)),
                                                  _mm512_cvtepi8_epi16(_mm256_loadu_si256(with + 1))));
    }
    int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
    for (; i < dim; i++) sum += (int32_t)row[i] * query[i];
    return (float)sum;
}

#define EACH_ROW(target, name, number, query_number, product)                                                       \
    target static void name(const number *rows, size_t count, size_t dim, const int64_t *which,                     \
                            const query_number *query, float *out) {                                                \
        size_t bytes = dim * sizeof(number), ahead = rows_ahead(bytes);                                             \
        for (size_t n = 0; n < count; n++) {                                                                        \
            ask_for(place(rows, count, bytes, which, n + ahead), bytes);                                            \
            out[n] = product((const void *)place(rows, count, bytes, which, n), query, dim);                        \
        }                                                                                                           \
    }

EACH_ROW(NARROW, each_halves_avx2, uint16_t, float, halves_avx2)
EACH_ROW(WIDE, each_halves_avx512, uint16_t, float, halves_avx512)
EACH_ROW(NARROW, each_bytes_avx2, int8_t, int8_t, bytes_avx2)
EACH_ROW(WIDE, each_bytes_avx512, int8_t, int8_t, bytes_avx512)

/* Some rows with many queries, which lie side by side: a number of a row is multiplied with a vector of queries, so
 * nothing has to be summed up across a vector. `columns` is how many queries there are room for, a multiple of 16. */

#define GROUP 6 /* rows at once: six times four sums, a row's number and four of queries fit the registers of AVX-512 */

static inline void keep(float *out, const float *made, size_t from, size_t to) {
    for (size_t q = from; q < to; q++) out[q] = made[q - from];
}

#define BLOCK(target, name, vector, lanes, zero, load, spread, multiply_add, store, rows_at_once, vectors)          \
    target static inline void name(const float *wide, size_t dim, const float *queries, size_t columns, size_t q,   \
                                   size_t asked, size_t left, float *out) {                                         \
        for (size_t r = 0; r < left; r += rows_at_once) {                                                           \
            vector sums[rows_at_once][vectors];                                                                     \
            for (int s = 0; s < rows_at_once; s++)                                                                  \
                for (int v = 0; v < vectors; v++) sums[s][v] = zero();                                              \
            for (size_t i = 0; i < dim; i++) {                                                                      \
                vector with[vectors];                                                                               \
                for (int v = 0; v < vectors; v++) with[v] = load(queries + i * columns + q + v * lanes);            \
                for (int s = 0; s < rows_at_once; s++) {                                                            \
                    vector number = spread(wide[(r + s) * dim + i]);                                                \
                    for (int v = 0; v < vectors; v++) sums[s][v] = multiply_add(number, with[v], sums[s][v]);       \
                }                                                                                                   \
            }                                                                                                       \
            for (size_t s = 0; s < rows_at_once && r + s < left; s++) {                                             \
                float made[vectors * lanes];                                                                        \
                for (int v = 0; v < vectors; v++) store(made + v * lanes, sums[s][v]);                              \
                keep(out + (r + s) * asked, made, q, q + vectors * lanes < asked ? q + vectors * lanes : asked);    \
            }                                                                                                       \
        }                                                                                                           \
    }

BLOCK(WIDE, four_avx512, __m512, 16, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps, GROUP, 4)
BLOCK(WIDE, one_avx512, __m512, 16, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps, GROUP, 1)
BLOCK(NARROW, four_avx2, __m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps, 2, 4)
BLOCK(NARROW, one_avx2, __m256, 8, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps, GROUP, 1)

NARROW static inline void widen(const uint16_t *row, size_t dim, float *wide) {
    size_t i = 0;
    for (; i + 8 <= dim; i += 8) _mm256_storeu_ps(wide + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(row + i))));
    for (; i < dim; i++) wide[i] = _cvtsh_ss(row[i]);
}

#define MANY(target, name, four, one, lanes)                                                                        \
    target static void name(const uint16_t *rows, size_t count, size_t dim, const int64_t *which,                   \
                            const float *queries, size_t asked, size_t columns, float *wide, float *out) {          \
        size_t bytes = dim * sizeof(uint16_t), ahead = rows_ahead(bytes);                                           \
        for (size_t n = 0; n < count; n += GROUP) {                                                                 \
            size_t left = count - n < GROUP ? count - n : GROUP, q = 0;                                             \
            for (size_t r = 0; r < GROUP; r++) {                                                                    \
                ask_for(place(rows, count, bytes, which, n + r + ahead), bytes);                                    \
                widen((const void *)place(rows, count, bytes, which, n + r), dim, wide + r * dim);                  \
            }                                                                                                       \
            for (; q + 4 * lanes <= columns; q += 4 * lanes)                                                        \
                four(wide, dim, queries, columns, q, asked, left, out + n * asked);                                 \
            for (; q < asked; q += lanes) one(wide, dim, queries, columns, q, asked, left, out + n * asked);        \
        }                                                                                                           \
    }

MANY(NARROW, many_halves_avx2, four_avx2, one_avx2, 8)
MANY(WIDE, many_halves_avx512, four_avx512, one_avx512, 16)

/* One query: `dim` floats; out: `count` floats. */
void scan_halves(int level, const uint16_t *rows, size_t count, size_t dim, const int64_t *which, const float *query,
                 float *out) {
    (level == 2 ? each_halves_avx512 : each_halves_avx2)(rows, count, dim, which, query, out);
}

/* queries: `dim` times `columns` floats, of whose columns the first `asked` are queries; wide: room for 6 * `dim`
 * floats; out: `count` times `asked` floats. */
void scan_halves_many(int level, const uint16_t *rows, size_t count, size_t dim, const int64_t *which,
                      const float *queries, size_t asked, size_t columns, float *wide, float *out) {
    (level == 2 ? many_halves_avx512 : many_halves_avx2)(rows, count, dim, which, queries, asked, columns, wide, out);
}

/* rows and query of bytes from -127 to 127; sums are exact up to 133,000 dimensions, then rounded to float. */
void scan_bytes(int level, const int8_t *rows, size_t count, size_t dim, const int64_t *which, const int8_t *query,
                float *out) {
    (level == 2 ? each_bytes_avx512 : each_bytes_avx2)(rows, count, dim, which, query, out);
}

#else

int scan_kernel_level(void) { return 0; }
void scan_halves(void) {}
void scan_halves_many(void) {}
void scan_bytes(void) {}

#endif
