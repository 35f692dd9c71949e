// From addresses to names.
#pragma once

#include <string>

namespace simt {

// "function at file:line" of a return address.
std::string source_line(const void* pc);

// Whether p lies in the program or a library: constants and tables.
bool is_in_module(const void* p);

}  // namespace simt
