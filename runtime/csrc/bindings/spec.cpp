#include "bindings/spec.h"

#include <climits>

#include "base/error.h"

namespace moesaic {

void SpecValue::fail(const std::string& what) const {
  throw Error(ErrorKind::kPlan, "plan: " + where_ + ": " + what);
}

SpecValue SpecValue::field(const char* name) const {
  if (!PyDict_Check(value_.ptr())) fail("expected a dict");
  PyObject* found = PyDict_GetItemString(value_.ptr(), name);  // borrowed
  const std::string where = where_.empty() ? name : where_ + "." + name;
  if (!found) SpecValue(value_, where).fail("is missing");
  return SpecValue(found, where);
}

int64_t SpecValue::i64() const {
  if (!PyLong_CheckExact(value_.ptr())) fail("expected an integer");
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(value_.ptr(), &overflow);
  if (overflow != 0) fail("does not fit 64 bits");
  return value;
}

int SpecValue::i32() const {
  const int64_t value = i64();
  if (value < INT_MIN || value > INT_MAX) fail("does not fit 32 bits");
  return static_cast<int>(value);
}

std::string SpecValue::str() const {
  if (!PyUnicode_Check(value_.ptr())) fail("expected a string");
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(value_.ptr(), &size);
  if (!text) {
    PyErr_Clear();
    fail("is not valid Unicode");
  }
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace moesaic
