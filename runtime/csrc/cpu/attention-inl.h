// Attention of a block of rows with one kv head, page by page. A query's arithmetic depends only on
// its own position: pages in order within a span of 1024 positions, spans folded in order, masked
// slots left out. Neighbours in the block only share the pages' conversion to float32.
#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline float minus_infinity() { return -__builtin_inff(); }

// Partial result of a query: largest score, sum of exponentials, unnormalised values [padded
// v_dim].
struct Partial {
  float* data;
  float& top() const { return data[0]; }
  float& sum() const { return data[1]; }
  float* values() const { return data + kLanes; }

  void reset(int64_t v_dim) const {
    for (int64_t i = 0; i < kLanes + padded(v_dim); ++i) data[i] = 0.0f;
    top() = minus_infinity();
  }
};

inline int64_t partial_floats(const AttentionShape& shape) { return kLanes + padded(shape.v_dim); }

// One block and kv head at work. Query i is row i / group of the block, head i % group of the kv
// head.
struct Attend {
  const AttentionShape& shape;
  const AttentionData& data;
  const AttentionBlock& block;
  int64_t kv_head;
  int64_t queries;
  float* q;             // [queries][padded k_dim]
  float* key_slots;     // [32][padded k_dim]
  float* value_slots;   // [32][padded v_dim]
  float* totals;        // [queries] partial results of all spans so far
  float* partials;      // [queries] of this span, `stride` floats apart per head
  int64_t row_stride;   // floats between partials of rows
  int64_t head_stride;  // and of heads

  int64_t position(int64_t query) const { return block.position + query / shape.group; }
  int64_t head(int64_t query) const { return kv_head * shape.group + query % shape.group; }
  Partial total(int64_t query) const { return {totals + query * partial_floats(shape)}; }
  Partial partial(int64_t query) const {
    const int64_t group = shape.group;
    return {partials + query / group * row_stride + query % group * head_stride};
  }
  // Positions that a query sees: [first, position].
  int64_t first_visible(int64_t query) const {
    const int64_t p = position(query);
    return shape.window && p >= shape.window ? p - shape.window + 1 : 0;
  }
  bool sees_span(int64_t query, int64_t span) const {
    return first_visible(query) / kSpanTokens <= span && span <= position(query) / kSpanTokens;
  }
};

Attend make_attend(const AttentionShape& shape, const AttentionData& data,
                   const AttentionBlock& block, int64_t kv_head, float* workspace) {
  Attend a = {shape, data, block, kv_head, block.rows * shape.group, {}, {}, {}, {}, {}, {}, {}};
  a.key_slots = workspace;
  a.value_slots = a.key_slots + kPageSlots * padded(shape.k_dim);
  a.q = a.value_slots + kPageSlots * padded(shape.v_dim);
  a.totals = a.q + a.queries * padded(shape.k_dim);
  a.partials = a.totals + a.queries * partial_floats(shape);
  a.head_stride = partial_floats(shape);
  a.row_stride = a.head_stride * shape.group;
  return a;
}

void gather_queries(const Attend& a) {
  const AttentionShape& s = a.shape;
  for (int64_t i = 0; i < a.queries; ++i) {
    const int64_t row = a.block.row + i / s.group;
    const float* from = a.data.q + (row * s.heads + a.head(i)) * s.k_dim;
    float* to = a.q + i * padded(s.k_dim);
    for (int64_t d = 0; d < s.k_dim; d += kLanes) {
      store(load_partial(from + d, s.k_dim - d < kLanes ? s.k_dim - d : kLanes), to + d);
    }
  }
}

// The slots of a page of the block's kv head, float32.
const float* page_rows(const Attend& a, const std::byte* data, int32_t page, int64_t dim, int slots,
                       float* buffer) {
  const int64_t bytes = kPageSlots * kv_row_bytes(a.shape.kv_type, dim);
  const std::byte* head = data + (page * a.shape.kv_heads + a.kv_head) * bytes;
  return read_slots(a.shape.kv_type, head, dim, slots, buffer);
}

// Dot products of kQueries queries with the first `slots` keys, 16 at a time: sixteen lanes of
// partial sums over the dimensions, then the tree of reduce_add.
template <int kQueries>
inline void dot_keys(const float* q, const float* keys, int64_t dim, int slots,
                     float (*scores)[kPageSlots]) {
  constexpr int kSlots = kLanes / kQueries;
  for (int slot = 0; slot < slots; slot += kSlots) {
    Vec sums[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) sums[i] = splat(0.0f);
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec query[kQueries];
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) query[i] = load(q + i * dim + d);
#pragma GCC unroll 16
      for (int s = 0; s < kSlots; ++s) {
        const Vec key = load(keys + (slot + s) * dim + d);
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) {
          sums[i * kSlots + s] = fma(query[i], key, sums[i * kSlots + s]);
        }
      }
    }
    float dots[kLanes];
    store(reduce_add_16(sums), dots);
    for (int i = 0; i < kQueries; ++i) {
      __builtin_memcpy(scores[i] + slot, dots + i * kSlots, kSlots * sizeof(float));
    }
  }
}

// Values += p · V over slots lo .. hi - 1, in order.
template <int kQueries, int kVecs>
inline void add_columns(const float (*p)[kPageSlots], const float* v, int64_t dim, int lo, int hi,
                        float* const* values) {
  Vec sums[kQueries][kVecs];
#pragma GCC unroll 4
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < kVecs; ++k) sums[i][k] = load(values[i] + k * kLanes);
  }
  for (int slot = lo; slot < hi; ++slot) {
    Vec value[kVecs];
#pragma GCC unroll 4
    for (int k = 0; k < kVecs; ++k) value[k] = load(v + slot * dim + k * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kQueries; ++i) {
      const Vec weight = splat(p[i][slot]);
#pragma GCC unroll 4
      for (int k = 0; k < kVecs; ++k) sums[i][k] = fma(weight, value[k], sums[i][k]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kQueries; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < kVecs; ++k) store(sums[i][k], values[i] + k * kLanes);
  }
}

template <int kQueries>
inline void add_values(const float (*p)[kPageSlots], const float* v, int64_t dim, int lo, int hi,
                       float* const* values) {
  float* at[kQueries];
  for (int i = 0; i < kQueries; ++i) at[i] = values[i];
  const auto advance = [&](int64_t floats) {
    for (int i = 0; i < kQueries; ++i) at[i] += floats;
  };
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes, advance(4 * kLanes)) {
    add_columns<kQueries, 4>(p, v + d, dim, lo, hi, at);
  }
  for (; d < dim; d += kLanes, advance(kLanes)) {
    add_columns<kQueries, 1>(p, v + d, dim, lo, hi, at);
  }
}

inline Mask lanes_between(int lo, int hi, int first) {
  const auto clamp = [&](int i) { return i < first ? 0 : i > first + kLanes ? kLanes : i - first; };
  return range(clamp(lo), clamp(hi));
}

// Scores of slots lo .. hi - 1 to exponentials (others 0), carrying the partial result over to
// their maximum.
void soften(const AttentionShape& shape, float* scores, int lo, int hi, const Partial& partial) {
  Vec z[2];
  const Mask seen[2] = {lanes_between(lo, hi, 0), lanes_between(lo, hi, kLanes)};
  for (int i = 0; i < 2; ++i) {
    z[i] = load(scores + i * kLanes) * splat(shape.scale);
    if (shape.softcap > 0.0f) {
      z[i] = splat(shape.softcap) * tanh(z[i] / splat(shape.softcap));
    }
    z[i] = select(seen[i], z[i], splat(minus_infinity()));
  }
  const float page_top = reduce_max(max(z[0], z[1]));
  if (page_top > partial.top()) {
    const float shrink = exp_one(partial.top() - page_top);
    partial.top() = page_top;
    partial.sum() *= shrink;
    float* values = partial.values();
    for (int64_t d = 0; d < shape.v_dim; d += kLanes) {
      store(load(values + d) * splat(shrink), values + d);
    }
  }
  Vec p[2];
  for (int i = 0; i < 2; ++i) {
    p[i] = select(seen[i], exp(z[i] - splat(partial.top())), splat(0.0f));
    store(p[i], scores + i * kLanes);
  }
  partial.sum() += reduce_add(p[0] + p[1]);
}

// kQueries queries from `query` on with the page whose first slot is position `base`.
template <int kQueries>
void attend_tile(const Attend& a, int64_t query, int64_t base, const float* keys,
                 const float* values) {
  int lo[kQueries], hi[kQueries], slots = 0;
  bool same = true;
  float* sums[kQueries];
  for (int i = 0; i < kQueries; ++i) {
    const int64_t first = a.first_visible(query + i) - base, end = a.position(query + i) + 1 - base;
    lo[i] = first > 0 ? static_cast<int>(first < kPageSlots ? first : kPageSlots) : 0;
    hi[i] = end > 0 ? static_cast<int>(end < kPageSlots ? end : kPageSlots) : 0;
    if (lo[i] < hi[i] && hi[i] > slots) slots = hi[i];
    same = same && lo[i] == lo[0] && hi[i] == hi[0];
    sums[i] = a.partial(query + i).values();
  }
  if (slots == 0) return;
  float scores[kQueries][kPageSlots] = {};
  const int64_t k_dim = padded(a.shape.k_dim), v_dim = padded(a.shape.v_dim);
  dot_keys<kQueries>(a.q + query * k_dim, keys, k_dim, slots, scores);
  for (int i = 0; i < kQueries; ++i) {
    if (lo[i] < hi[i]) soften(a.shape, scores[i], lo[i], hi[i], a.partial(query + i));
  }
  if (same) return add_values<kQueries>(scores, values, v_dim, lo[0], hi[0], sums);
  for (int i = 0; i < kQueries; ++i) {
    if (lo[i] < hi[i]) add_values<1>(scores + i, values, v_dim, lo[i], hi[i], sums + i);
  }
}

void attend_page(const Attend& a, int64_t page) {
  const int64_t base = page * kPageSlots, end = a.block.position + a.block.rows - base;
  const int slots = end < kPageSlots ? static_cast<int>(end) : kPageSlots;
  const int32_t number = a.block.table[page];
  const float* keys = page_rows(a, a.data.keys, number, a.shape.k_dim, slots, a.key_slots);
  const float* values = page_rows(a, a.data.values, number, a.shape.v_dim, slots, a.value_slots);
  int64_t query = 0;
  for (; query + 4 <= a.queries; query += 4) attend_tile<4>(a, query, base, keys, values);
  for (; query + 2 <= a.queries; query += 2) attend_tile<2>(a, query, base, keys, values);
  for (; query < a.queries; ++query) attend_tile<1>(a, query, base, keys, values);
}

// All of a span that the block sees, into its partial results.
void fill_span(const Attend& a, int64_t span) {
  constexpr int64_t kPages = kSpanTokens / kPageSlots;
  for (int64_t i = 0; i < a.queries; ++i) a.partial(i).reset(a.shape.v_dim);
  const int64_t seen = a.first_visible(0) / kPageSlots;
  const int64_t last = (a.block.position + a.block.rows - 1) / kPageSlots;
  const int64_t begin = seen > span * kPages ? seen : span * kPages;
  const int64_t end = last < (span + 1) * kPages ? last + 1 : (span + 1) * kPages;
  for (int64_t page = begin; page < end; ++page) attend_page(a, page);
}

void fold_span(const Partial& total, const Partial& part, int64_t v_dim) {
  const float top = part.top() > total.top() ? part.top() : total.top();
  const float keep = exp_one(total.top() - top), take = exp_one(part.top() - top);
  total.top() = top;
  total.sum() = total.sum() * keep + part.sum() * take;
  float *to = total.values(), *from = part.values();
  for (int64_t d = 0; d < v_dim; d += kLanes) {
    store(load(to + d) * splat(keep) + load(from + d) * splat(take), to + d);
  }
}

// A sink joins the denominator and carries no value.
void write_output(const Attend& a, int64_t query, const Partial& total) {
  const AttentionShape& s = a.shape;
  float keep = 1.0f, sum = total.sum();
  if (s.sinks) {
    const float sink = s.sinks[a.head(query)];
    const float top = sink > total.top() ? sink : total.top();
    keep = exp_one(total.top() - top);
    sum = sum * keep + exp_one(sink - top);
  }
  const Vec factor = splat(keep / sum);
  const int64_t row = a.block.row + query / s.group;
  float* y = a.data.y + (row * s.heads + a.head(query)) * s.v_dim;
  for (int64_t d = 0; d < s.v_dim; d += kLanes) {
    const int64_t n = s.v_dim - d < kLanes ? s.v_dim - d : kLanes;
    store_partial(load(total.values() + d) * factor, y + d, n);
  }
}

void attend(const AttentionShape& shape, const AttentionData& data, const AttentionBlock& block,
            int64_t kv_head, float* workspace) {
  const Attend a = make_attend(shape, data, block, kv_head, workspace);
  gather_queries(a);
  for (int64_t i = 0; i < a.queries; ++i) a.total(i).reset(shape.v_dim);
  for (int64_t span = block.first_span; span <= block.last_span; ++span) {
    fill_span(a, span);
    for (int64_t i = 0; i < a.queries; ++i) {
      if (a.sees_span(i, span)) fold_span(a.total(i), a.partial(i), shape.v_dim);
    }
  }
  for (int64_t i = 0; i < a.queries; ++i) write_output(a, i, a.total(i));
}

// Points the partial results of a block at a table of all rows, heads and spans of the step.
void use_table(Attend& a, float* partials, int64_t span, int64_t spans) {
  const int64_t floats = partial_floats(a.shape);
  a.head_stride = spans * floats;
  a.row_stride = a.shape.heads * a.head_stride;
  a.partials = partials + a.block.row * a.row_stride + a.head(0) * a.head_stride +
               (span - a.block.first_span) * floats;
}

void attend_span(const AttentionShape& shape, const AttentionData& data,
                 const AttentionBlock& block, int64_t kv_head, int64_t span, int64_t spans,
                 float* partials, float* workspace) {
  Attend a = make_attend(shape, data, block, kv_head, workspace);
  gather_queries(a);
  use_table(a, partials, span, spans);
  fill_span(a, span);
}

void fold_spans(const AttentionShape& shape, const AttentionData& data, const AttentionBlock& block,
                int64_t kv_head, int64_t spans, const float* partials, float* workspace) {
  Attend a = make_attend(shape, data, block, kv_head, workspace);
  for (int64_t i = 0; i < a.queries; ++i) {
    const Partial total = a.total(i);
    total.reset(shape.v_dim);
    for (int64_t span = block.first_span; span <= block.last_span; ++span) {
      use_table(a, const_cast<float*>(partials), span, spans);
      if (a.sees_span(i, span)) fold_span(total, a.partial(i), shape.v_dim);
    }
    write_output(a, i, total);
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
