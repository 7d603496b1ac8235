// Attention inside the groups of packed rows, in bfloat16 on a processor with matrix tiles (AMX): one call forward, one
// backward, whatever the groups. Compiled when it is first needed; see tiled_groups.py, which says what is computed.
//
// A task is one group and one key head, with all query heads that share it. Scores are computed transposed, a block of
// KEYS keys by a block of columns (tokens of one segment, head after head): what softmax does then runs down the
// columns, sixteen at a time, and operands of products lie as tiles want them. Scores live in the first cache only.
//
// Tiles read the right operand in pairs of rows (VNNI): [K / 2, N, 2].

#include <ATen/native/CPUBlas.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = c10::BFloat16;
using at::native::cpublas::brgemm;

constexpr int64_t KEYS = 64, LANES = 16;
constexpr float LOWEST = -1e30f;

struct Segment {  // tokens [start, end) of a row: each sees those before it, and all of [prefix_start, prefix_end)
  int64_t row, start, end, prefix_start, prefix_end;
};

struct Heads {  // [R, H, L, d], of which each token's d numbers lie together
  uint16_t* data;
  int64_t row, head, token;
  uint16_t* at(int64_t r, int64_t h, int64_t t) const { return data + r * row + h * head + t * token; }
};

struct Shape {
  int64_t num_heads, num_key_heads, width;
  float scaling;
  int64_t shared() const { return num_heads / num_key_heads; }
  int64_t tokens() const { return shared() <= 2 ? 64 : shared() <= 4 ? 32 : 16; }  // of a block of columns
  int64_t columns() const { return tokens() * shared(); }
};

struct Layout {
  const Segment* segments;
  const int64_t* first_segments;  // of each group, and behind the last group
  int64_t num_groups, length;
};

struct Task {
  const Segment* segments;
  int64_t first, last, key_head, length;
  const Shape& shape;
  int64_t row() const { return segments[first].row; }
  int64_t head(int64_t s) const { return key_head * shape.shared() + s; }
  int64_t sum(int64_t head, int64_t token) const {  // where it stands
    return (row() * shape.num_heads + head) * length + token;
  }
};

struct KeyBlock {
  int64_t segment, start, size;
};

// Scratch of a task, one piece after another, each on a cache line of its own.
class Arena {
 public:
  explicit Arena(size_t bytes) {
    static thread_local std::vector<uint8_t> memory;
    if (memory.size() < bytes + 64) memory.resize(bytes + 64);
    next_ = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
  }
  template <typename T>
  T* take(int64_t count) {
    auto* piece = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 63) & ~size_t(63);
    return piece;
  }

 private:
  uint8_t* next_;
};

const bf16* numbers(const void* data) { return static_cast<const bf16*>(data); }

__m512 widened(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

// Places of sixteen numbers, each `stride` behind the one before.
__m512i sixteen_apart(int64_t stride) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(stride)));
}

__m256i rounded(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }

void store(uint16_t* to, __m256i halves) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves); }

__m256i load(const uint16_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

// Two halves of every pair, of which the second comes from the odd row.
__m512i paired(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// 2 to the power of values that are not above about 0. The error is below 3e-6 of the result; bfloat16 keeps 4e-3.
__m512 exp2_of(__m512 values) {
  values = _mm512_max_ps(values, _mm512_set1_ps(-126.0f));
  const __m512 whole = _mm512_roundscale_ps(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(values, whole);
  __m512 result = _mm512_set1_ps(1.3333558e-3f);
  for (const float factor : {9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
    result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(result, whole);
}

// Which of sixteen columns, from `first_token` on, see a key of a block: all of them, or those of its token and later.
__mmask16 seeing(const KeyBlock& block, int64_t key, int64_t first_token, bool causal) {
  const int64_t hidden = causal ? block.start + key - first_token : 0;
  if (key >= block.size || hidden >= LANES) return 0;
  return static_cast<__mmask16>(0xFFFF << std::max<int64_t>(hidden, 0));
}

// Rows [count, width] and zeros up to `rows`.
void copy_rows(const uint16_t* from, int64_t stride, int64_t count, int64_t rows, int64_t width, uint16_t* to) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * width, from + i * stride, width * 2);
  std::memset(to + count * width, 0, (rows - count) * width * 2);
}

// [rows, width] -> [width, rows].
void transpose(const uint16_t* from, int64_t rows, int64_t width, uint16_t* to) {
  const __m512i stride = sixteen_apart(width / 2);
  for (int64_t j = 0; j < width; j += 2) {
    for (int64_t i = 0; i < rows; i += LANES) {
      const __m512i pairs = _mm512_i32gather_epi32(stride, reinterpret_cast<const int*>(from + i * width + j), 4);
      store(to + j * rows + i, _mm512_cvtepi32_epi16(pairs));
      store(to + (j + 1) * rows + i, _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
    }
  }
}

// Rows [columns, width] -> their transpose as a right operand, [width / 2, columns, 2].
void pairs_of_transpose(const uint16_t* from, int64_t columns, int64_t width, uint16_t* to) {
  const __m512i stride = sixteen_apart(width / 2);
  for (int64_t j = 0; j < width / 2; ++j)
    for (int64_t m = 0; m < columns; m += LANES)
      _mm512_storeu_si512(
          to + (j * columns + m) * 2,
          _mm512_i32gather_epi32(stride, reinterpret_cast<const int*>(from + m * width + 2 * j), 4));
}

// Rows [rows, width] -> the same as a right operand, [rows / 2, width, 2].
void pairs_of_rows(const uint16_t* from, int64_t rows, int64_t width, uint16_t* to) {
  for (int64_t i = 0; i < rows; i += 2)
    for (int64_t j = 0; j < width; j += LANES)
      _mm512_storeu_si512(
          to + i * width + 2 * j, paired(load(from + i * width + j), load(from + (i + 1) * width + j)));
}

// The tokens of a block of columns, head after head, and zeros behind them: [columns, width].
void gather_columns(
    const Heads& heads, const Shape& shape, int64_t key_head, int64_t row, int64_t start, int64_t size, uint16_t* to) {
  for (int64_t s = 0; s < shape.shared(); ++s)
    copy_rows(
        heads.at(row, key_head * shape.shared() + s, start), heads.token, size, shape.tokens(), shape.width,
        to + s * shape.tokens() * shape.width);
}

// Column `m` of [width, columns], scaled, as bfloat16.
void write_column(const float* from, int64_t columns, int64_t width, float factor, uint16_t* to) {
  const __m512i stride = sixteen_apart(columns);
  for (int64_t j = 0; j < width; j += LANES) {
    const __m512 values = _mm512_mul_ps(_mm512_i32gather_ps(stride, from + j * columns, 4), _mm512_set1_ps(factor));
    store(to + j, rounded(values));
  }
}

void write_rows(const float* from, int64_t count, int64_t width, float factor, uint16_t* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < width; j += LANES) {
      const __m512 values = _mm512_mul_ps(_mm512_loadu_ps(from + i * width + j), _mm512_set1_ps(factor));
      store(to + i * stride + j, rounded(values));
    }
}

std::vector<KeyBlock> key_blocks(const Task& task) {
  std::vector<KeyBlock> blocks;
  for (int64_t s = task.first; s < task.last; ++s)
    for (int64_t start = task.segments[s].start; start < task.segments[s].end; start += KEYS)
      blocks.push_back({s, start, std::min(KEYS, task.segments[s].end - start)});
  return blocks;
}

// work(segment, start, size) for all blocks of columns.
template <typename Work>
void each_columns(const Task& task, const Work& work) {
  const int64_t tokens = task.shape.tokens();
  for (int64_t s = task.first; s < task.last; ++s)
    for (int64_t start = task.segments[s].start; start < task.segments[s].end; start += tokens)
      work(s, start, std::min(tokens, task.segments[s].end - start));
}

// work(number, whether causal, whether first) for the blocks of keys that a block of columns sees.
template <typename Work>
void each_keys(
    const Task& task, const std::vector<KeyBlock>& blocks, int64_t s, int64_t start, int64_t size, const Work& work) {
  const Segment& segment = task.segments[s];
  bool is_first = true;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const auto& block = blocks[b];
    const bool is_own = block.segment == s;
    const bool is_seen = is_own ? block.start < start + size
                                : block.start >= segment.prefix_start && block.start < segment.prefix_end;
    if (!is_seen) continue;
    work(b, is_own && block.start + block.size - 1 > start, is_first);
    is_first = false;
  }
}

void forward_task(
    const Heads& q, const Heads& k, const Heads& v, const Heads& out, float* sums, const Task& task) {
  const Shape& shape = task.shape;
  const int64_t width = shape.width, columns = shape.columns(), tokens = shape.tokens();
  const int64_t row = task.row(), key_head = task.key_head;
  const auto blocks = key_blocks(task);
  const int64_t num_blocks = blocks.size(), block_size = KEYS * width;
  const float factor = shape.scaling * 1.44269504f;
  Arena arena(num_blocks * block_size * 4 + columns * (KEYS * 6 + width * 8 + 16) + 64 * 16);
  auto* keys = arena.take<uint16_t>(num_blocks * block_size);
  auto* values = arena.take<uint16_t>(num_blocks * block_size);
  auto* rows = arena.take<uint16_t>(std::max(columns, KEYS) * width);
  auto* queries = arena.take<uint16_t>(columns * width);
  auto* weights = arena.take<uint16_t>(columns * KEYS);
  auto* scores = arena.take<float>(columns * KEYS);
  auto* result = arena.take<float>(columns * width);
  auto* top = arena.take<float>(columns);
  auto* total = arena.take<float>(columns);
  for (int64_t b = 0; b < num_blocks; ++b) {
    const auto& block = blocks[b];
    copy_rows(k.at(row, key_head, block.start), k.token, block.size, KEYS, width, keys + b * block_size);
    copy_rows(v.at(row, key_head, block.start), v.token, block.size, KEYS, width, rows);
    transpose(rows, KEYS, width, values + b * block_size);
  }
  each_columns(task, [&](int64_t s, int64_t start, int64_t size) {
      gather_columns(q, shape, key_head, row, start, size, rows);
      pairs_of_transpose(rows, columns, width, queries);
      std::fill_n(top, columns, LOWEST);
      std::fill_n(total, columns, 0.0f);
      each_keys(task, blocks, s, start, size, [&](int64_t b, bool causal, bool is_first) {
        const auto& block = blocks[b];
        brgemm(KEYS, columns, width, width, columns, columns, false, numbers(keys + b * block_size),
               numbers(queries), scores);
        for (int64_t m = 0; m < columns; m += LANES) {
          const int64_t token = start + m % tokens;
          const __m512 before = _mm512_loadu_ps(top + m);
          __m512 best = before;
          for (int64_t c = 0; c < block.size; ++c)
            best = _mm512_mask_max_ps(best, seeing(block, c, token, causal), best,
                                      _mm512_mul_ps(_mm512_loadu_ps(scores + c * columns + m), _mm512_set1_ps(factor)));
          const __m512 kept = exp2_of(_mm512_sub_ps(before, best));
          __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(total + m), kept);
          for (int64_t c = 0; c < KEYS; c += 2) {
            __m512 pair[2];
            for (int64_t i = 0; i < 2; ++i) {
              const __mmask16 seen = seeing(block, c + i, token, causal);
              const __m512 score = _mm512_loadu_ps(scores + (c + i) * columns + m);
              pair[i] = _mm512_maskz_mov_ps(seen, exp2_of(_mm512_fmsub_ps(score, _mm512_set1_ps(factor), best)));
              sum = _mm512_add_ps(sum, pair[i]);
            }
            _mm512_storeu_si512(weights + c * columns + 2 * m, paired(rounded(pair[0]), rounded(pair[1])));
          }
          if (!is_first)
            for (int64_t j = 0; j < width; ++j) {
              float* place = result + j * columns + m;
              _mm512_storeu_ps(place, _mm512_mul_ps(_mm512_loadu_ps(place), kept));
            }
          _mm512_storeu_ps(top + m, best);
          _mm512_storeu_ps(total + m, sum);
        }
        brgemm(width, columns, KEYS, KEYS, columns, columns, !is_first, numbers(values + b * block_size),
               numbers(weights), result);
      });
      for (int64_t h = 0; h < shape.shared(); ++h)
        for (int64_t t = 0; t < size; ++t) {
          const int64_t m = h * tokens + t;
          write_column(result + m, columns, width, 1.0f / total[m], out.at(row, task.head(h), start + t));
          sums[task.sum(task.head(h), start + t)] = top[m] + std::log2(total[m]);
        }
  });
}

void backward_task(
    const Heads& q, const Heads& k, const Heads& v, const Heads& out, const Heads& pull, const float* sums,
    const Heads& dq, const Heads& dk, const Heads& dv, const Task& task) {
  const Shape& shape = task.shape;
  const int64_t width = shape.width, columns = shape.columns(), tokens = shape.tokens();
  const int64_t row = task.row(), key_head = task.key_head;
  const auto blocks = key_blocks(task);
  const int64_t num_blocks = blocks.size(), block_size = KEYS * width;
  const float factor = shape.scaling * 1.44269504f;
  Arena arena(num_blocks * block_size * 14 + columns * (KEYS * 14 + width * 16 + 16) + 64 * 24);
  auto* keys = arena.take<uint16_t>(num_blocks * block_size);
  auto* keys_across = arena.take<uint16_t>(num_blocks * block_size);
  auto* values = arena.take<uint16_t>(num_blocks * block_size);
  auto* key_pull = arena.take<float>(num_blocks * block_size);
  auto* value_pull = arena.take<float>(num_blocks * block_size);
  auto* query_rows = arena.take<uint16_t>(columns * width);
  auto* pull_rows = arena.take<uint16_t>(columns * width);
  auto* query_pairs = arena.take<uint16_t>(columns * width);
  auto* pull_pairs = arena.take<uint16_t>(columns * width);
  auto* queries = arena.take<uint16_t>(columns * width);
  auto* pulls = arena.take<uint16_t>(columns * width);
  auto* query_pull = arena.take<float>(columns * width);
  auto* scores = arena.take<float>(columns * KEYS);
  auto* slopes = arena.take<float>(columns * KEYS);
  auto* weight_rows = arena.take<uint16_t>(columns * KEYS);
  auto* slope_rows = arena.take<uint16_t>(columns * KEYS);
  auto* slope_pairs = arena.take<uint16_t>(columns * KEYS);
  auto* sum = arena.take<float>(columns);
  auto* taken = arena.take<float>(columns);
  for (int64_t b = 0; b < num_blocks; ++b) {
    const auto& block = blocks[b];
    copy_rows(k.at(row, key_head, block.start), k.token, block.size, KEYS, width, keys + b * block_size);
    copy_rows(v.at(row, key_head, block.start), v.token, block.size, KEYS, width, values + b * block_size);
    transpose(keys + b * block_size, KEYS, width, keys_across + b * block_size);
  }
  std::memset(key_pull, 0, num_blocks * block_size * sizeof(float));
  std::memset(value_pull, 0, num_blocks * block_size * sizeof(float));
  each_columns(task, [&](int64_t s, int64_t start, int64_t size) {
      gather_columns(q, shape, key_head, row, start, size, query_rows);
      gather_columns(pull, shape, key_head, row, start, size, pull_rows);
      pairs_of_transpose(query_rows, columns, width, queries);
      pairs_of_transpose(pull_rows, columns, width, pulls);
      pairs_of_rows(query_rows, columns, width, query_pairs);
      pairs_of_rows(pull_rows, columns, width, pull_pairs);
      for (int64_t m = 0; m < columns; ++m) {
        const int64_t t = m % tokens, head = task.head(m / tokens);
        if (t >= size) {  // nothing is there: its weights become 0
          sum[m] = -LOWEST;
          taken[m] = 0.0f;
          continue;
        }
        sum[m] = sums[task.sum(head, start + t)];
        const uint16_t* one = out.at(row, head, start + t);
        __m512 product = _mm512_setzero_ps();
        for (int64_t j = 0; j < width; j += LANES)
          product = _mm512_fmadd_ps(
              widened(load(one + j)), widened(load(pull_rows + m * width + j)), product);
        taken[m] = _mm512_reduce_add_ps(product);
      }
      each_keys(task, blocks, s, start, size, [&](int64_t b, bool causal, bool is_first) {
        const auto& block = blocks[b];
        brgemm(KEYS, columns, width, width, columns, columns, false, numbers(keys + b * block_size),
               numbers(queries), scores);
        brgemm(KEYS, columns, width, width, columns, columns, false, numbers(values + b * block_size),
               numbers(pulls), slopes);
        for (int64_t m = 0; m < columns; m += LANES) {
          const int64_t token = start + m % tokens;
          const __m512 log_sum = _mm512_loadu_ps(sum + m), share = _mm512_loadu_ps(taken + m);
          for (int64_t c = 0; c < KEYS; c += 2) {
            __m256i pair[2];
            for (int64_t i = 0; i < 2; ++i) {
              const int64_t place = (c + i) * columns + m;
              const __mmask16 seen = seeing(block, c + i, token, causal);
              const __m512 weight = _mm512_maskz_mov_ps(
                  seen, exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + place), _mm512_set1_ps(factor), log_sum)));
              const __m512 slope = _mm512_mul_ps(weight, _mm512_sub_ps(_mm512_loadu_ps(slopes + place), share));
              pair[i] = rounded(slope);
              store(weight_rows + place, rounded(weight));
              store(slope_rows + place, pair[i]);
            }
            _mm512_storeu_si512(slope_pairs + c * columns + 2 * m, paired(pair[0], pair[1]));
          }
        }
        brgemm(KEYS, width, columns, columns, width, width, true, numbers(weight_rows), numbers(pull_pairs),
               value_pull + b * block_size);
        brgemm(KEYS, width, columns, columns, width, width, true, numbers(slope_rows), numbers(query_pairs),
               key_pull + b * block_size);
        brgemm(width, columns, KEYS, KEYS, columns, columns, !is_first, numbers(keys_across + b * block_size),
               numbers(slope_pairs), query_pull);
      });
      for (int64_t h = 0; h < shape.shared(); ++h)
        for (int64_t t = 0; t < size; ++t)
          write_column(
              query_pull + h * tokens + t, columns, width, shape.scaling, dq.at(row, task.head(h), start + t));
  });
  for (int64_t b = 0; b < num_blocks; ++b) {
    const auto& block = blocks[b];
    uint16_t *key = dk.at(row, key_head, block.start), *value = dv.at(row, key_head, block.start);
    write_rows(key_pull + b * block_size, block.size, width, shape.scaling, key, dk.token);
    write_rows(value_pull + b * block_size, block.size, width, 1.0f, value, dv.token);
  }
}

template <typename Work>
void each_task(const Layout& layout, const Shape& shape, int num_threads, const Work& work) {
#pragma omp parallel num_threads(num_threads)
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t number = 0; number < layout.num_groups * shape.num_key_heads; ++number) {
      const int64_t* first = layout.first_segments + number / shape.num_key_heads;
      work(Task{layout.segments, first[0], first[1], number % shape.num_key_heads, layout.length, shape});
    }
    at::native::cpublas::brgemm_release();
  }
}

}  // namespace

// Whether this torch multiplies in tiles here: [32, 32] ones times twos.
extern "C" int works() {
  std::vector<bf16> ones(32 * 32, bf16(1.0f)), twos(32 * 32, bf16(2.0f));
  std::vector<float> product(32 * 32);
  try {
    brgemm(32, 32, 32, 32, 32, 32, false, ones.data(), twos.data(), product.data());
    at::native::cpublas::brgemm_release();
  } catch (...) {
    return 0;
  }
  return std::all_of(product.begin(), product.end(), [](float value) { return value == 64.0f; });
}

// sums: [R, H, L], logarithms of base 2.
extern "C" void forward(
    const Heads* q, const Heads* k, const Heads* v, const Heads* out, float* sums, const Layout* layout,
    const Shape* shape, int num_threads) {
  each_task(*layout, *shape, num_threads, [&](const Task& task) { forward_task(*q, *k, *v, *out, sums, task); });
}

extern "C" void backward(
    const Heads* q, const Heads* k, const Heads* v, const Heads* out, const Heads* pull, const Heads* dq,
    const Heads* dk, const Heads* dv, const float* sums, const Layout* layout, const Shape* shape, int num_threads) {
  each_task(*layout, *shape, num_threads, [&](const Task& task) {
    backward_task(*q, *k, *v, *out, *pull, sums, *dq, *dk, *dv, task);
  });
}
