// The exception that native code throws; bindings turn it into the Python exception of the same
// kind.
#pragma once

#include <stdexcept>
#include <string>

namespace moesaic {

enum class ErrorKind { kPlan, kDevice, kRequest };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, std::string hint = {})
      : std::runtime_error(message), kind(kind), hint(std::move(hint)) {}

  ErrorKind kind;
  std::string hint;  // What the user can do about it; may be empty.
};

}  // namespace moesaic
