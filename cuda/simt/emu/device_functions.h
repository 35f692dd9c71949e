// Barriers, shuffles, votes, reductions and atomics.
#pragma once

#define SIMT_WHERE simt::Location where = simt::Location::current()

inline void __syncthreads(SIMT_WHERE) { simt::block_barrier(simt::Vote::kNone, 0, where); }
inline int __syncthreads_count(int p, SIMT_WHERE) {
  return simt::block_barrier(simt::Vote::kCount, p, where);
}
inline int __syncthreads_and(int p, SIMT_WHERE) {
  return simt::block_barrier(simt::Vote::kAnd, p, where);
}
inline int __syncthreads_or(int p, SIMT_WHERE) {
  return simt::block_barrier(simt::Vote::kOr, p, where);
}
inline void __syncwarp(unsigned mask = ~0u, SIMT_WHERE) {
  simt::warp_collective(mask, "__syncwarp", nullptr, nullptr, where);
}
inline unsigned __activemask() { return simt::live_lanes(); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() {}

namespace simt {

template <class T>
T shuffle(unsigned mask, T value, int source, const char* operation, Location where) {
  struct Operands {
    T in, out;
    int source;
  } mine{value, value, source};
  warp_collective(
      mask, operation, &mine,
      [](void** operands, unsigned lanes) {
        for (int i = 0; i < 32; ++i) {
          if (!(lanes >> i & 1)) continue;
          auto* me = static_cast<Operands*>(operands[i]);
          if (!(lanes >> me->source & 1)) {
            fail("shuffle: lane %d reads lane %d, which is not in mask %08x", i, me->source, lanes);
          }
          me->out = static_cast<Operands*>(operands[me->source])->in;
        }
      },
      where);
  return mine.out;
}

template <class T, class F>
T reduce(unsigned mask, T value, const char* operation, Location where, F) {
  struct Operands {
    T value;
  } mine{value};
  warp_collective(
      mask, operation, &mine,
      [](void** operands, unsigned lanes) {
        T result{};
        bool first = true;
        for (int i = 0; i < 32; ++i) {
          if (!(lanes >> i & 1)) continue;
          const T x = static_cast<Operands*>(operands[i])->value;
          result = first ? x : F{}(result, x);
          first = false;
        }
        for (int i = 0; i < 32; ++i) {
          if (lanes >> i & 1) static_cast<Operands*>(operands[i])->value = result;
        }
      },
      where);
  return mine.value;
}

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Smallest {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Union {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};

}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_WHERE) {
  const int source = (simt::lane_id() & ~(width - 1)) | (lane & (width - 1));
  return simt::shuffle(mask, value, source, "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_WHERE) {
  const int lane = simt::lane_id(), other = lane ^ bits;
  const bool inside = other < (lane & ~(width - 1)) + width;
  return simt::shuffle(mask, value, inside ? other : lane, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  const int lane = simt::lane_id(), step = static_cast<int>(delta);
  const bool inside = (lane & (width - 1)) + step < width;
  return simt::shuffle(mask, value, inside ? lane + step : lane, "__shfl_down_sync", where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_WHERE) {
  const int lane = simt::lane_id(), step = static_cast<int>(delta);
  const bool inside = (lane & (width - 1)) >= step;
  return simt::shuffle(mask, value, inside ? lane - step : lane, "__shfl_up_sync", where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_WHERE) {
  const unsigned mine = predicate ? 1u << simt::lane_id() : 0u;
  return simt::reduce(mask, mine, "__ballot_sync", where, simt::Union{});
}
inline int __any_sync(unsigned mask, int predicate, SIMT_WHERE) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_WHERE) {
  return __ballot_sync(mask, predicate, where) == mask;
}

#define SIMT_REDUCTION(name, F)                                     \
  inline unsigned name(unsigned mask, unsigned value, SIMT_WHERE) { \
    return simt::reduce(mask, value, #name, where, simt::F{});      \
  }                                                                 \
  inline int name(unsigned mask, int value, SIMT_WHERE) {           \
    return simt::reduce(mask, value, #name, where, simt::F{});      \
  }
SIMT_REDUCTION(__reduce_add_sync, Sum)
SIMT_REDUCTION(__reduce_max_sync, Largest)
SIMT_REDUCTION(__reduce_min_sync, Smallest)

// Not instrumented: the checker hears of atomics through begin_atomic alone.
#define SIMT_ATOMIC(name, result)                                                           \
  template <class T>                                                                        \
  __attribute__((noinline, no_sanitize_thread)) T name(T* p, std::type_identity_t<T> value, \
                                                       SIMT_WHERE) {                        \
    simt::begin_atomic(p, sizeof(T), where);                                                \
    const T old = *p;                                                                       \
    *p = (result);                                                                          \
    return old;                                                                             \
  }
SIMT_ATOMIC(atomicAdd, static_cast<T>(old + value))
SIMT_ATOMIC(atomicSub, static_cast<T>(old - value))
SIMT_ATOMIC(atomicMax, old > value ? old : value)
SIMT_ATOMIC(atomicMin, old < value ? old : value)
SIMT_ATOMIC(atomicExch, value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicInc, old >= value ? T{0} : static_cast<T>(old + 1))

template <class T>
__attribute__((noinline, no_sanitize_thread)) T atomicCAS(T* p, std::type_identity_t<T> expected,
                                                          std::type_identity_t<T> value,
                                                          SIMT_WHERE) {
  simt::begin_atomic(p, sizeof(T), where);
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
