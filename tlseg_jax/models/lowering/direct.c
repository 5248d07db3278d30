/* 3x3 and 3x3x3 convolutions of stride 1 with zero padding, and their kernel's gradient, for XLA's CPU programs.

   direct.py compiles this file for the machine's own processor and says what the two functions take and give. An array
   is (batch, depth, height, width, channels), of a 2D one the depth is 1 and has no neighbours.

   Along a row two neighbouring results take four products and not six (minimal filtering F(2, 3); Winograd 1980, in
   convolutions Lavin & Gray 2016). Of values d0 to d3 around a pair and a kernel's taps g0 to g2 the products are

       p0 = (d0 - d2) g0          p1 = (d1 + d2) (g0 + g1 + g2) / 2
       p3 = (d1 - d3) g2          p2 = (d2 - d1) (g0 - g1 + g2) / 2

   and p0 + p1 + p2 and p1 - p2 - p3 are the results; the products of all channels and lines are added up before. Of the
   kernel's gradient the same four factors of values are multiplied with as many of the results' gradient.

   What is not a number spoils the results that it is a value of, and no others; so does what is infinite, and neither
   leaves a number there. Of the kernel's gradient it spoils all three taps of a row, also at the image's edge.

   A piece of work is some rows of one plane. The factors of their values and of all neighbours are first gathered, as
   float32, in blocks of 8 channels: [plane][row][block][pair][4][8], with zeros beyond the image. So nothing asks for
   edges, and what is gathered stays in the cache. A factor is then multiplied with a vector of features and added to
   sums that stay in registers. An input of one channel is a block of its own. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#ifdef __AVX512F__
/* Floats of a vector, and what has its sums in the registers beside one more vector: pairs of a row; of the kernel's
   gradient factors of a block of channels, or pairs of a single channel. */
enum { WIDEST = 16, PAIRS = 7, FACTORS = 2, APART = 4 };
#else
enum { WIDEST = 8, PAIRS = 3, FACTORS = 1, APART = 2 };
#endif
enum { BLOCK = 8, GATHERED = 384 << 10 /* bytes, which leave a cache of 512 KiB some room */, PARTS = 8 };

typedef float vector8 __attribute__((vector_size(32), aligned(4)));
typedef float vector16 __attribute__((vector_size(64), aligned(4)));

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define UNROLLED _Pragma("GCC unroll 24")

typedef struct Work {
  void (*piece)(struct Work *, int64_t);
  int64_t pieces;
  atomic_llong next, done;
  atomic_int holders, failed;
  const void *image, *gradient;
  const float *kernel;
  float *sums;
  void *out;
  int bfloat16, planes_beside;
  int64_t batch, depth, height, width, channels, features;
  int64_t block, blocks, lanes, vectors; /* channels of a block, blocks, features of a vector, vectors */
  int64_t rows, parts;                   /* of a piece, and pieces of a plane */
  int64_t pairs, wide;                   /* of voxels in a row, and floats of its factors in a block */
  int64_t lines;                         /* taps across rows and planes: 3 or 9 */
} Work;

/* ---- Work for several threads: each takes the next piece, and the caller waits for pieces, never for a thread ---- */

static void release(Work *work) {
  if (atomic_fetch_sub(&work->holders, 1) == 1) free(work);
}

static void take(Work *work) {
  for (int64_t i; (i = atomic_fetch_add(&work->next, 1)) < work->pieces; atomic_fetch_add(&work->done, 1))
    work->piece(work, i);
}

static void help(void *work) {
  take(work);
  release(work);
}

static int fine(const XLA_FFI_Api *api, XLA_FFI_Error *error) {
  if (!error) return 1;
  XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  api->XLA_FFI_Error_Destroy(&destroy);
  return 0;
}

static void finish(XLA_FFI_CallFrame *frame, Work *work) {
  const XLA_FFI_Api *api = frame->api;
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args count = {
      XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx, &threads};
  if (!fine(api, api->XLA_FFI_ThreadPool_NumThreads(&count))) threads = 1;
  for (int64_t i = 1; i < threads && i < work->pieces; i++) {
    atomic_fetch_add(&work->holders, 1);
    XLA_FFI_ThreadPool_Schedule_Args schedule = {
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help, work};
    if (!fine(api, api->XLA_FFI_ThreadPool_Schedule(&schedule))) {
      release(work);
      break;
    }
  }
  take(work);
  while (atomic_load(&work->done) < work->pieces) sched_yield();
}

static XLA_FFI_Error *without_memory(XLA_FFI_CallFrame *frame, Work *work) {
  if (work) release(work);
  XLA_FFI_Error_Create_Args create = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, "no memory is left for a convolution",
                                      XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return frame->api->XLA_FFI_Error_Create(&create);
}

static XLA_FFI_Error *ended(XLA_FFI_CallFrame *frame, Work *work) {
  if (atomic_load(&work->failed)) return without_memory(frame, work);
  release(work);
  return NULL;
}

/* Room that a thread keeps from call to call: fresh memory would cost a page fault for every 4 KiB of it. As the thread
   ends it is given back: a program may begin and end many. */
enum { FOR_ROWS, FOR_GRADIENT, FOR_SUMS, FOR_KERNEL, ROOMS };

typedef struct Room {
  void *at;
  int64_t floats;
} Room;

static pthread_key_t rooms_key;
static int without_key;

static void give_back(void *rooms) {
  for (int i = 0; i < ROOMS; i++) free(((Room *)rooms)[i].at);
  free(rooms);
}

static void make_key(void) { without_key = pthread_key_create(&rooms_key, give_back); }

static void *room(int which, int64_t floats) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_key);
  Room *rooms = without_key ? NULL : pthread_getspecific(rooms_key);
  if (!rooms) {
    rooms = calloc(ROOMS, sizeof *rooms);
    if (!rooms || without_key || pthread_setspecific(rooms_key, rooms)) {
      free(rooms);
      return NULL;
    }
  }
  if (rooms[which].floats < floats) {
    free(rooms[which].at);
    rooms[which].at = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
    rooms[which].floats = rooms[which].at ? floats : 0;
  }
  return rooms[which].at;
}

/* ---- Values ---- */

INLINE float widened(uint16_t value) {
  union {
    uint32_t bits;
    float value;
  } u = {(uint32_t)value << 16};
  return u.value;
}

INLINE uint16_t rounded(float value) { /* to the nearest, of two as near to the even one */
  union {
    float value;
    uint32_t bits;
  } u = {value};
  if ((u.bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(u.bits >> 16 | 64); /* not a number */
  return (uint16_t)((u.bits + 0x7fff + (u.bits >> 16 & 1)) >> 16);
}

INLINE float value_at(const Work *work, const void *array, int64_t at) {
  return work->bfloat16 ? widened(((const uint16_t *)array)[at]) : ((const float *)array)[at];
}

/* ---- A piece of work ---- */

typedef struct Piece {
  int64_t sample, plane, row, rows;
} Piece;

INLINE Piece piece_of(const Work *work, int64_t number) {
  int64_t row = number % work->parts * work->rows, plane = number / work->parts;
  int64_t rows = work->height - row < work->rows ? work->height - row : work->rows;
  return (Piece){plane / work->depth, plane % work->depth, row, rows};
}

INLINE int64_t voxel(const Work *work, int64_t sample, int64_t plane, int64_t row) {
  return ((sample * work->depth + plane) * work->height + row) * work->width;
}

INLINE vector8 eight(const Work *work, int64_t at, int64_t some) {
  vector8 values = {0};
  if (some == BLOCK && !work->bfloat16) return *(const vector8 *)((const float *)work->image + at);
  for (int64_t i = 0; i < some; i++) values[i] = value_at(work, work->image, at + i);
  return values;
}

/* The factors of a row's values, of one block of channels. */
#define WITH_VALUES(NAME, TYPE, BLOCK_OF, VALUE)                                                \
  INLINE void NAME(const Work *work, int64_t at, int64_t some, float *to) {                     \
    (void)some;                                                                                 \
    int64_t channels = work->channels;                                                          \
    TYPE before = {0}, here = VALUE(work, at, some);                                            \
    for (int64_t x = 0; x < work->width; x += 2, at += 2 * channels, to += 4 * BLOCK_OF) {      \
      TYPE next = {0}, last = {0};                                                              \
      if (x + 1 < work->width) next = VALUE(work, at + channels, some);                         \
      if (x + 2 < work->width) last = VALUE(work, at + 2 * channels, some);                     \
      *(TYPE *)to = before - next;                                                              \
      *(TYPE *)(to + BLOCK_OF) = here + next;                                                   \
      *(TYPE *)(to + 2 * BLOCK_OF) = next - here;                                               \
      *(TYPE *)(to + 3 * BLOCK_OF) = here - last;                                               \
      before = next;                                                                            \
      here = last;                                                                              \
    }                                                                                           \
  }
#define ONE(work, at, some) value_at(work, (work)->image, at)
WITH_VALUES(factors_of_eight, vector8, BLOCK, eight)
WITH_VALUES(factors_of_one, float, 1, ONE)

/* The factors of a piece's rows and their neighbours, of some blocks; those outside the image are left as they are. */
static const float *gathered(const Work *work, Piece piece, int64_t first, int64_t blocks) {
  int64_t planes = 2 * work->planes_beside + 1;
  float *rows = room(FOR_ROWS, planes * (piece.rows + 2) * blocks * work->wide), *to = rows;
  if (!rows) return NULL;
  for (int64_t z = piece.plane - work->planes_beside; z <= piece.plane + work->planes_beside; z++)
    for (int64_t y = piece.row - 1; y <= piece.row + piece.rows; y++, to += blocks * work->wide) {
      if (z < 0 || z >= work->depth || y < 0 || y >= work->height) continue;
      int64_t row = voxel(work, piece.sample, z, y) * work->channels;
      for (int64_t b = 0; b < blocks; b++) {
        int64_t channel = (first + b) * work->block, some = work->channels - channel;
        if (work->block == 1)
          factors_of_one(work, row, 1, to);
        else if (some >= BLOCK && !work->bfloat16)
          factors_of_eight(work, row + channel, BLOCK, to + b * work->wide);
        else
          factors_of_eight(work, row + channel, some < BLOCK ? some : BLOCK, to + b * work->wide);
      }
    }
  return rows;
}

/* ---- What is done with vectors of 8 or 16 features ---- */

#define WITH_VECTORS(N)                                                                                               \
  INLINE vector##N load##N(const Work *work, const void *array, int64_t at, int64_t some) {                           \
    if (some >= N && !work->bfloat16) return *(const vector##N *)((const float *)array + at);                         \
    vector##N values = {0};                                                                                           \
    for (int64_t i = 0; i < some && i < N; i++) values[i] = value_at(work, array, at + i);                            \
    return values;                                                                                                    \
  }                                                                                                                   \
                                                                                                                      \
  INLINE void store##N(const Work *work, int64_t at, vector##N sums, int64_t some) {                                  \
    if (work->bfloat16)                                                                                               \
      for (int64_t i = 0; i < some; i++) ((uint16_t *)work->out)[at + i] = rounded(sums[i]);                          \
    else if (some == N)                                                                                               \
      *(vector##N *)((float *)work->out + at) = sums;                                                                 \
    else                                                                                                              \
      for (int64_t i = 0; i < some; i++) ((float *)work->out)[at + i] = sums[i];                                      \
  }                                                                                                                   \
                                                                                                                      \
  /* The results of some pairs of a row, of a vector of features. */                                                  \
  INLINE void convolve_pairs##N(const Work *work, int pairs, int block, const float *const *rows,                     \
                                const float *const *kernels, int lines, int64_t row, int64_t x, int64_t feature) {    \
    vector##N sums[4 * PAIRS];                                                                                        \
    UNROLLED for (int i = 0; i < 4 * pairs; i++) sums[i] = (vector##N){0};                                            \
    for (int line = 0; line < lines; line++) {                                                                        \
      const float *values = rows[line], *kernel = kernels[line];                                                      \
      for (int64_t b = 0; b < work->blocks; b++, values += work->wide)                                                \
        for (int i = 0; i < block; i++)                                                                               \
          UNROLLED for (int factor = 0; factor < 4; factor++, kernel += N) {                                          \
            vector##N by = *(const vector##N *)kernel;                                                                \
            UNROLLED for (int v = 0; v < pairs; v++)                                                                  \
              sums[factor * pairs + v] += values[(v * 4 + factor) * block + i] * by;                                  \
          }                                                                                                           \
    }                                                                                                                 \
    int64_t some = work->features - feature < N ? work->features - feature : N;                                       \
    UNROLLED for (int v = 0; v < pairs; v++, x += 2) {                                                                \
      int64_t at = (row + x) * work->features + feature;                                                              \
      store##N(work, at, sums[v] + sums[pairs + v] + sums[2 * pairs + v], some);                                      \
      if (x + 1 < work->width)                                                                                        \
        store##N(work, at + work->features, sums[pairs + v] - sums[2 * pairs + v] - sums[3 * pairs + v], some);       \
    }                                                                                                                 \
  }                                                                                                                   \
                                                                                                                      \
  /* A row, so many pairs at once; the last of them may be done twice. */                                             \
  NOINLINE void convolve_row##N(const Work *work, int64_t pairs, const float *const *rows,                            \
                                const float *const *kernels, int lines, int64_t row, int64_t feature) {               \
    for (int64_t pair = 0; pair < work->pairs; pair += pairs) {                                                       \
      pair = pair > work->pairs - pairs ? work->pairs - pairs : pair;                                                 \
      const float *here[9];                                                                                           \
      for (int line = 0; line < lines; line++) here[line] = rows[line] + pair * 4 * work->block;                      \
      switch (pairs) { FOR_EACH_NUMBER(N) }                                                                           \
    }                                                                                                                 \
  }                                                                                                                   \
                                                                                                                      \
  /* Add the products of some of the four factors, of each channel of a block and of the gradient, to their sums.     \
     Where these are too few to keep the processor busy, several pairs have sums of their own. */                     \
  INLINE void add_products##N(const Work *work, int block, int factors, int apart, const float *values,               \
                              int64_t to_next, const float *gradient, int64_t features, int64_t rows,                 \
                              float *total) {                                                                         \
    vector##N sums[16];                                                                                               \
    UNROLLED for (int i = 0; i < factors * block * apart; i++) sums[i] = (vector##N){0};                              \
    for (int64_t row = 0; row < rows; row++, values += to_next) {                                                     \
      int64_t pair = 0;                                                                                               \
      for (; pair + apart <= work->pairs; pair += apart)                                                              \
        UNROLLED for (int a = 0; a < apart; a++, gradient += 4 * features)                                            \
          UNROLLED for (int factor = 0; factor < factors; factor++) {                                                 \
            vector##N by = *(const vector##N *)(gradient + factor * features);                                        \
            UNROLLED for (int i = 0; i < block; i++)                                                                  \
              sums[(a * factors + factor) * block + i] += values[((pair + a) * 4 + factor) * block + i] * by;         \
          }                                                                                                           \
      for (; apart > 1 && pair < work->pairs; pair++, gradient += 4 * features)                                       \
        UNROLLED for (int factor = 0; factor < factors; factor++)                                                     \
          UNROLLED for (int i = 0; i < block; i++)                                                                    \
            sums[factor * block + i] +=                                                                               \
                values[(pair * 4 + factor) * block + i] * *(const vector##N *)(gradient + factor * features);         \
    }                                                                                                                 \
    UNROLLED for (int i = 0; i < factors * block; i++) {                                                              \
      UNROLLED for (int a = 1; a < apart; a++) sums[i] += sums[a * factors * block + i];                              \
      *(vector##N *)(total + i * features) += sums[i];                                                                \
    }                                                                                                                 \
  }                                                                                                                   \
                                                                                                                      \
  NOINLINE void add_block##N(const Work *work, const float *values, int64_t to_next, const float *gradient,           \
                             int64_t features, int64_t rows, float *total) {                                          \
    for (int factor = 0; work->block == BLOCK && factor < 4; factor += FACTORS)                                       \
      add_products##N(work, BLOCK, FACTORS, 1, values + factor * BLOCK, to_next, gradient + factor * features,        \
                      features, rows, total + factor * BLOCK * features);                                             \
    if (work->block == 1) add_products##N(work, 1, 4, APART, values, to_next, gradient, features, rows, total);       \
  }                                                                                                                   \
                                                                                                                      \
  /* The gradient of a piece's results as four factors a pair: [row][pair][4][features]. */                           \
  NOINLINE void turn_gradient##N(const Work *work, int64_t at, int64_t rows, float *to) {                             \
    int64_t features = work->vectors * N;                                                                             \
    for (int64_t row = 0; row < rows; row++)                                                                          \
      for (int64_t x = 0; x < work->width; x += 2, to += 4 * features)                                                \
        for (int64_t f = 0; f < features; f += N) {                                                                   \
          vector##N pair[2] = {{0}, {0}};                                                                             \
          for (int64_t v = 0; v < 2 && x + v < work->width; v++) {                                                    \
            int64_t from = (at + row * work->width + x + v) * work->features + f;                                     \
            pair[v] = load##N(work, work->gradient, from, work->features - f);                                        \
          }                                                                                                           \
          *(vector##N *)(to + f) = pair[0];                                                                           \
          *(vector##N *)(to + features + f) = pair[0] + pair[1];                                                      \
          *(vector##N *)(to + 2 * features + f) = pair[0] - pair[1];                                                  \
          *(vector##N *)(to + 3 * features + f) = -pair[1];                                                           \
        }                                                                                                             \
  }                                                                                                                   \
                                                                                                                      \
  /* A kernel as four factors of three taps, [vector][line][channel][4][feature], with zeros for what is too much. */ \
  NOINLINE void turn_kernel##N(const Work *work, const void *kernel, float *to) {                                     \
    int64_t channels = work->blocks * work->block, next = work->channels * work->features;                            \
    for (int64_t f = 0; f < work->features; f += N)                                                                   \
      for (int64_t line = 0; line < work->lines; line++)                                                              \
        for (int64_t channel = 0; channel < channels; channel++, to += 4 * N) {                                       \
          int64_t at = (line * 3 * work->channels + channel) * work->features + f;                                    \
          int64_t some = channel < work->channels ? work->features - f : 0;                                           \
          vector##N first = load##N(work, kernel, at, some), middle = load##N(work, kernel, at + next, some);         \
          vector##N last = load##N(work, kernel, at + 2 * next, some);                                                \
          *(vector##N *)to = first;                                                                                   \
          *(vector##N *)(to + N) = (first + middle + last) * 0.5f;                                                    \
          *(vector##N *)(to + 2 * N) = (first - middle + last) * 0.5f;                                                \
          *(vector##N *)(to + 3 * N) = last;                                                                          \
        }                                                                                                             \
  }

#define FOR_NUMBER(N, V)                                                                         \
  case V:                                                                                        \
    if (work->block == BLOCK)                                                                    \
      convolve_pairs##N(work, V, BLOCK, here, kernels, lines, row, 2 * pair, feature);           \
    else                                                                                         \
      convolve_pairs##N(work, V, 1, here, kernels, lines, row, 2 * pair, feature);               \
    break;
#define FOR_THREE(N) FOR_NUMBER(N, 1) FOR_NUMBER(N, 2) FOR_NUMBER(N, 3)

#ifdef __AVX512F__
#define FOR_EACH_NUMBER(N) FOR_THREE(N) FOR_NUMBER(N, 4) FOR_NUMBER(N, 5) FOR_NUMBER(N, 6) FOR_NUMBER(N, 7)
WITH_VECTORS(16)
#else
#define FOR_EACH_NUMBER(N) FOR_THREE(N)
#define convolve_row16 convolve_row8 /* never called: no vector is so wide */
#define add_block16 add_block8
#define turn_gradient16 turn_gradient8
#define turn_kernel16 turn_kernel8
#endif
WITH_VECTORS(8)

/* ---- The two functions ---- */

/* Bytes of an array of one model: of several that are trained together arrays have more axes, before these. */
static int64_t bytes_of_one(const XLA_FFI_Buffer *buffer, int64_t axes) {
  int64_t bytes = buffer->dtype == XLA_FFI_DataType_BF16 ? 2 : 4;
  for (int64_t i = buffer->rank - axes; i < buffer->rank; i++) bytes *= buffer->dims[i];
  return bytes;
}

static Work *planned(const XLA_FFI_Buffer *image, int64_t sides, int64_t features, int by_blocks) {
  Work *work = calloc(1, sizeof *work);
  if (!work) return NULL;
  const int64_t *last = image->dims + image->rank;
  work->holders = 1;
  work->bfloat16 = image->dtype == XLA_FFI_DataType_BF16;
  work->planes_beside = sides == 3;
  work->batch = last[-sides - 2];
  work->depth = sides == 3 ? last[-4] : 1;
  work->height = last[-3];
  work->width = last[-2];
  work->channels = last[-1];
  work->features = features;
  work->block = work->channels == 1 ? 1 : BLOCK;
  work->blocks = (work->channels + work->block - 1) / work->block;
  work->lanes = features % WIDEST ? 8 : WIDEST;
  work->vectors = (features + work->lanes - 1) / work->lanes;
  work->lines = sides == 3 ? 9 : 3;
  work->pairs = (work->width + 1) / 2;
  work->wide = work->pairs * 4 * work->block;
  int64_t row = (2 * work->planes_beside + 1) * work->wide * (by_blocks ? 1 : work->blocks);
  int64_t most = GATHERED / (int64_t)(row * sizeof(float)) - 2;
  most = most < 1 ? 1 : most > work->height ? work->height : most;
  work->parts = (work->height + most - 1) / most;
  work->rows = (work->height + work->parts - 1) / work->parts;
  work->parts = (work->height + work->rows - 1) / work->rows;
  return work;
}

static void convolve_piece(Work *work, int64_t number) {
  Piece piece = piece_of(work, number);
  const float *values = gathered(work, piece, 0, work->blocks);
  if (!values) {
    atomic_store(&work->failed, 1);
    return;
  }
  int64_t line = work->blocks * work->wide, factors = work->blocks * 4 * work->block * work->lanes;
  int64_t turns = (work->pairs + PAIRS - 1) / PAIRS, pairs = (work->pairs + turns - 1) / turns;
  for (int64_t vector = 0; vector < work->vectors; vector++)
    for (int64_t row = 0; row < piece.rows; row++) {
      const float *rows[9], *kernels[9];
      int lines = 0;
      for (int64_t i = 0; i < work->lines; i++) {
        int64_t z = i / 3, y = i % 3, plane = piece.plane + z - work->planes_beside, other = piece.row + row + y - 1;
        if (plane < 0 || plane >= work->depth || other < 0 || other >= work->height) continue;
        rows[lines] = values + (z * (piece.rows + 2) + row + y) * line;
        kernels[lines++] = work->kernel + (vector * work->lines + i) * factors;
      }
      int64_t at = voxel(work, piece.sample, piece.plane, piece.row + row), feature = vector * work->lanes;
      if (work->lanes == 16)
        convolve_row16(work, pairs, rows, kernels, lines, at, feature);
      else
        convolve_row8(work, pairs, rows, kernels, lines, at, feature);
    }
}

/* The kernel's factors. */
static const float *packed(const Work *work, const void *kernel) {
  float *to = room(FOR_KERNEL, work->vectors * work->lines * work->blocks * work->block * 4 * work->lanes);
  if (to && work->lanes == 16) turn_kernel16(work, kernel, to);
  if (to && work->lanes == 8) turn_kernel8(work, kernel, to);
  return to;
}

/* The factors of the gradient of a piece's results. */
static const float *gradient_of(const Work *work, Piece piece) {
  int64_t at = voxel(work, piece.sample, piece.plane, piece.row);
  float *turned = room(FOR_GRADIENT, piece.rows * work->pairs * 4 * work->vectors * work->lanes);
  if (turned && work->lanes == 16) turn_gradient16(work, at, piece.rows, turned);
  if (turned && work->lanes == 8) turn_gradient8(work, at, piece.rows, turned);
  return turned;
}

/* Add a piece's part of the kernel's gradient, of some blocks of channels, to [line][block][4][channel][feature]. */
static void add_piece(Work *work, int64_t number, int64_t first, int64_t blocks, float *total) {
  Piece piece = piece_of(work, number);
  int64_t features = work->vectors * work->lanes, to_next = blocks * work->wide;
  const float *values = gathered(work, piece, first, blocks), *gradient = gradient_of(work, piece);
  if (!values || !gradient) {
    atomic_store(&work->failed, 1);
    return;
  }
  for (int64_t i = 0; i < work->lines; i++) {
    int64_t z = i / 3, y = i % 3, plane = piece.plane + z - work->planes_beside;
    if (plane < 0 || plane >= work->depth) continue;
    int64_t above = piece.row + y - 1 < 0, below = piece.row + piece.rows - 1 + y - 1 >= work->height;
    int64_t rows = piece.rows - above - below;
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t vector = 0; vector < work->vectors; vector++) {
        const float *from = values + (z * (piece.rows + 2) + above + y) * to_next + b * work->wide;
        const float *by = gradient + above * work->pairs * 4 * features + vector * work->lanes;
        float *to = total + (i * blocks + b) * 4 * work->block * features + vector * work->lanes;
        if (work->lanes == 16)
          add_block16(work, from, to_next, by, features, rows, to);
        else
          add_block8(work, from, to_next, by, features, rows, to);
      }
  }
}

/* From the sums of factors, [line][block][4][channel][feature] of some blocks, to the gradient of three taps. */
static void hand_over(const Work *work, const float *total, int64_t first, int64_t blocks) {
  int64_t features = work->vectors * work->lanes, factor = work->block * features;
  for (int64_t i = 0; i < work->lines * blocks * work->block; i++) {
    int64_t block = i / work->block, channel = (first + block % blocks) * work->block + i % work->block;
    if (channel >= work->channels) continue;
    const float *from = total + block * 4 * factor + i % work->block * features;
    float *to = (float *)work->out + (block / blocks * 3 * work->channels + channel) * work->features;
    for (int64_t f = 0; f < work->features; f++) {
      float both = (from[factor + f] + from[2 * factor + f]) / 2;
      to[f] = from[f] + both;
      to[work->channels * work->features + f] = (from[factor + f] - from[2 * factor + f]) / 2;
      to[2 * work->channels * work->features + f] = from[3 * factor + f] + both;
    }
  }
}

/* A range of places with sums of its own: which they are depends on no thread, so that the same sums are always made. */
static void sum_places(Work *work, int64_t number) {
  int64_t size = work->lines * work->blocks * 4 * work->block * work->vectors * work->lanes;
  int64_t all = work->batch * work->depth * work->parts;
  float *total = work->sums + number * size;
  memset(total, 0, size * sizeof(float));
  for (int64_t i = all * number / work->pieces; i < all * (number + 1) / work->pieces; i++)
    add_piece(work, i, 0, work->blocks, total);
}

/* A block of channels over all places. */
static void sum_block(Work *work, int64_t number) {
  int64_t size = work->lines * 4 * work->block * work->vectors * work->lanes;
  float *total = room(FOR_SUMS, size);
  if (!total) {
    atomic_store(&work->failed, 1);
    return;
  }
  memset(total, 0, size * sizeof(float));
  for (int64_t i = 0; i < work->batch * work->depth * work->parts; i++) add_piece(work, i, number, 1, total);
  hand_over(work, total, number, 1);
}

/* XLA asks for the version of the interface first. */
static int asked_for_version(XLA_FFI_CallFrame *frame) {
  if (!frame->extension_start || frame->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

typedef struct Arrays {
  const char *image, *other;
  char *out;
} Arrays;

static XLA_FFI_Error *convolve(XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *image, int64_t sides, Arrays of,
                               int64_t features) {
  Work *work = planned(image, sides, features, 0);
  if (!work || !(work->kernel = packed(work, of.other))) return without_memory(frame, work);
  work->image = of.image;
  work->out = of.out;
  work->piece = convolve_piece;
  work->pieces = work->batch * work->depth * work->parts;
  finish(frame, work);
  return ended(frame, work);
}

static XLA_FFI_Error *sum_kernel_gradient(XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *image, int64_t sides,
                                          Arrays of, int64_t features) {
  /* Of many channels a sum of all for each of several places would be larger than the image. */
  int by_blocks = image->dims[image->rank - 1] >= PARTS * BLOCK;
  Work *work = planned(image, sides, features, by_blocks);
  if (!work) return without_memory(frame, work);
  work->image = of.image;
  work->gradient = of.other;
  work->out = of.out;
  if (by_blocks) {
    work->piece = sum_block;
    work->pieces = work->blocks;
    finish(frame, work);
    return ended(frame, work);
  }
  int64_t size = work->lines * work->blocks * 4 * work->block * work->vectors * work->lanes;
  work->piece = sum_places;
  work->pieces = PARTS;
  if (!(work->sums = room(FOR_SUMS, PARTS * size))) return without_memory(frame, work);
  finish(frame, work);
  for (int64_t part = 1; part < PARTS; part++)
    for (int64_t i = 0; i < size; i++) work->sums[i] += work->sums[part * size + i];
  hand_over(work, work->sums, 0, work->blocks);
  return ended(frame, work);
}

/* Of several models that are trained together the arrays have more axes, before those of one. */
static XLA_FFI_Error *for_each_model(XLA_FFI_CallFrame *frame,
                                     XLA_FFI_Error *(*one)(XLA_FFI_CallFrame *, const XLA_FFI_Buffer *, int64_t, Arrays,
                                                           int64_t)) {
  if (asked_for_version(frame)) return NULL;
  const XLA_FFI_Buffer *image = frame->args.args[0], *other = frame->args.args[1], *out = frame->rets.rets[0];
  int64_t sides = *(const int64_t *)((const XLA_FFI_Scalar *)frame->attrs.attrs[0])->value, models = 1;
  for (int64_t i = 0; i < image->rank - sides - 2; i++) models *= image->dims[i];
  int64_t given = models * bytes_of_one(image, sides + 2), made = models * bytes_of_one(out, sides + 2);
  if (!given && made) memset(out->data, 0, made); /* sums of nothing */
  if (!given || !made) return NULL;
  Arrays of = {image->data, other->data, out->data};
  for (int64_t model = 0; model < models; model++) {
    XLA_FFI_Error *error = one(frame, image, sides, of, out->dims[out->rank - 1]);
    if (error) return error;
    of.image += bytes_of_one(image, sides + 2);
    of.other += bytes_of_one(other, sides + 2);
    of.out += bytes_of_one(out, sides + 2);
  }
  return NULL;
}

XLA_FFI_Error *tlseg_convolve(XLA_FFI_CallFrame *frame) { return for_each_model(frame, convolve); }

XLA_FFI_Error *tlseg_kernel_gradient(XLA_FFI_CallFrame *frame) { return for_each_model(frame, sum_kernel_gradient); }
