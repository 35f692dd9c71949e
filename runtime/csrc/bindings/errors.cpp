#include "bindings/errors.h"

#include <nanobind/nanobind.h>

#include "base/error.h"

namespace nb = nanobind;

namespace moesaic {
namespace {

const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kDevice:
      return "DeviceError";
    case ErrorKind::kRequest:
      return "RequestError";
    case ErrorKind::kPlan:
      break;
  }
  return "PlanError";
}

nb::str text(const std::string&
                 utf8) {  // Names come from files: bytes that are no UTF-8 are shown, not fatal.
  PyObject* decoded =
      PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "backslashreplace");
  if (!decoded) throw nb::python_error();
  return nb::steal<nb::str>(decoded);
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    try {
      nb::object type = nb::module_::import_("moesaic.errors").attr(class_name(error.kind));
      nb::object hint = error.hint.empty() ? nb::none() : nb::object(text(error.hint));
      nb::object exception = type(text(error.what()), nb::arg("hint") = hint);
      PyErr_SetObject(type.ptr(), exception.ptr());
    } catch (nb::python_error& failure) {
      failure.restore();
    }
  }
}

}  // namespace

void register_errors() { nb::register_exception_translator(translate); }

}  // namespace moesaic
