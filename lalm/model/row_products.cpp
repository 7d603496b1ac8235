// Products of bfloat16 with the rows dealt out over the threads, each of which multiplies its own; see row_products.py.

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm_cpu_dispatch.h>

#include <algorithm>
#include <cstdint>
#include <vector>

// Left [rows, inner] and the product [rows, columns] have their rows one behind the other; right [inner, columns] has
// the strides given. A thread takes `step` rows.
extern "C" void product(
    void* left, void* right, void* result, int64_t rows, int64_t inner, int64_t columns, int64_t right_row,
    int64_t right_column, int64_t step) {
  at::parallel_for(0, (rows + step - 1) / step, 1, [&](int64_t first, int64_t last) {
    at::InferenceMode guard;
    const int64_t start = first * step, count = std::min(last * step, rows) - start;
    auto* from = static_cast<c10::BFloat16*>(left) + start * inner;
    auto* to = static_cast<c10::BFloat16*>(result) + start * columns;
    auto share = at::from_blob(from, {count, inner}, at::kBFloat16);
    auto whole = at::from_blob(right, {inner, columns}, {right_row, right_column}, at::kBFloat16);
    auto product = at::from_blob(to, {count, columns}, at::kBFloat16);
    at::cpu::mm_out(product, share, whole);
  });
}

// Whether rows are dealt out and multiplied here: [4, 32] ones times [32, 16] twos, two rows a thread.
extern "C" int works() {
  std::vector<c10::BFloat16> ones(4 * 32, 1.0f), twos(32 * 16, 2.0f), result(4 * 16);
  try {
    product(ones.data(), twos.data(), result.data(), 4, 32, 16, 16, 1, 2);
  } catch (...) {
    return 0;
  }
  return std::all_of(result.begin(), result.end(), [](c10::BFloat16 value) { return value == 64.0f; });
}
