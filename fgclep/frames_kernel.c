/* What reading does with every sample of a record whose twelve signals alternate in its file (a frame: one sample of
 * each). numpy does the same one signal after the other, and takes several times as long.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>

enum { SIGNALS = 12, LIMB = 6 };

/* The samples of a few frames, signal by signal: frames a of 8 samples become b, of `count` signals. */
static inline void turn(const __m128i *a, __m128i *b, int count) {
    __m128i pairs[8], fours[8];
    for (int f = 0; f < 4; f++) {
        pairs[f] = _mm_unpacklo_epi16(a[2 * f], a[2 * f + 1]);
        pairs[4 + f] = _mm_unpackhi_epi16(a[2 * f], a[2 * f + 1]);
    }
    for (int half = 0; half < count / 4; half++)
        for (int f = 0; f < 2; f++) {
            fours[4 * half + f] = _mm_unpacklo_epi32(pairs[4 * half + 2 * f], pairs[4 * half + 2 * f + 1]);
            fours[4 * half + 2 + f] = _mm_unpackhi_epi32(pairs[4 * half + 2 * f], pairs[4 * half + 2 * f + 1]);
        }
    for (int s = 0; s < count / 2; s++) {
        b[2 * s] = _mm_unpacklo_epi64(fours[2 * s], fours[2 * s + 1]);
        b[2 * s + 1] = _mm_unpackhi_epi64(fours[2 * s], fours[2 * s + 1]);
    }
}

/* Write `count` frames as twelve leads of as many samples; `order` says which signal each lead is. */
void split_frames(const int16_t *frames, size_t count, const uint8_t *order, int16_t *leads) {
    int16_t *to[SIGNALS];
    for (int lead = 0; lead < SIGNALS; lead++) to[order[lead]] = leads + lead * count;
    size_t at = 0;
    for (; at + 8 <= count; at += 8) {
        const int16_t *from = frames + at * SIGNALS;
        __m128i a[8], b[SIGNALS];
        if (at % 32 == 0) /* the next cache line of each lead: the memory of a batch is larger than the cache */
            for (int s = 0; s < SIGNALS; s++) __builtin_prefetch(to[s] + at + 128);
        for (int f = 0; f < 8; f++) a[f] = _mm_loadu_si128((const void *)(from + f * SIGNALS));
        turn(a, b, 8);
        for (int f = 0; f < 8; f++) a[f] = _mm_loadl_epi64((const void *)(from + f * SIGNALS + 8));
        turn(a, b + 8, 4);
        for (int s = 0; s < SIGNALS; s++) _mm_storeu_si128((void *)(to[s] + at), b[s]);
    }
    for (; at < count; at++)
        for (int s = 0; s < SIGNALS; s++) to[s][at] = frames[at * SIGNALS + s];
}

/* Return the signals that are constant over all of `count` frames, one bit each. */
uint32_t constant_signals(const int16_t *frames, size_t count) {
    uint32_t constant = (1u << SIGNALS) - 1;
    for (size_t at = 1; at < count && constant; at++)
        for (int s = 0; s < SIGNALS; s++)
            if (frames[at * SIGNALS + s] != frames[s]) constant &= ~(1u << s);
    return constant;
}

/* Write the covariance (6, 6) of the first six leads, over every so many of `count` frames. */
void limb_covariance(const int16_t *frames, size_t count, size_t every, const uint8_t *order, double *covariance) {
    double sums[LIMB] = {0}, products[LIMB][LIMB] = {{0}}, looked_at = (double)((count + every - 1) / every);
    for (size_t at = 0; at < count; at += every) {
        double x[LIMB];
        for (int i = 0; i < LIMB; i++) sums[i] += x[i] = frames[at * SIGNALS + order[i]];
        for (int i = 0; i < LIMB; i++)
            for (int j = 0; j <= i; j++) products[i][j] += x[i] * x[j];
    }
    for (int i = 0; i < LIMB; i++)
        for (int j = 0; j <= i; j++)
            covariance[i * LIMB + j] = covariance[j * LIMB + i] =
                (products[i][j] - sums[i] * sums[j] / looked_at) / looked_at;
}
#endif
