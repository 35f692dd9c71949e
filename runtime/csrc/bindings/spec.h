// Reads the decoded plan.json (dicts, lists, numbers, strings) field by field; errors say where.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

namespace moesaic {

namespace nb = nanobind;

// A value of the spec and its place in it, such as "tensors[3].parts[0]". Everything throws
// Error(kPlan).
class SpecValue {
 public:
  SpecValue(nb::handle value, std::string where) : value_(value), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& what) const;
  const std::string& where() const { return where_; }
  nb::handle handle() const { return value_; }
  bool is_none() const { return value_.is_none(); }

  SpecValue field(const char* name) const;  // of a dict
  int64_t i64() const;                      // an int that fits, no bool
  int i32() const;
  std::string str() const;

  // Calls fn(SpecValue) for each item of a list.
  template <class Fn>
  void each(Fn&& fn) const {
    if (!PyList_Check(value_.ptr())) fail("expected a list");
    if (PyList_GET_SIZE(value_.ptr()) > kMaxItems) fail("expected at most 1000000 items");
    // By index and with the length read anew: the list is the caller's.
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value_.ptr()); ++i) {
      fn(SpecValue(PyList_GET_ITEM(value_.ptr(), i), where_ + "[" + std::to_string(i) + "]"));
    }
  }

 private:
  static constexpr Py_ssize_t kMaxItems = 1'000'000;

  nb::handle value_;
  std::string where_;
};

}  // namespace moesaic
