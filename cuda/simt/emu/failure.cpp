#include "failure.h"

#include <cstdarg>
#include <cstdlib>

#include "execution.h"

namespace simt {

cudaError_t sticky_error = cudaSuccess;
std::string failure_text;

namespace {
void record(const char* format, va_list arguments) {
  char text[600];
  vsnprintf(text, sizeof text, format, arguments);
  if (failure_text.empty()) failure_text = text;
  sticky_error = cudaErrorLaunchFailure;
}
}  // namespace

void report(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  record(format, arguments);
  va_end(arguments);
  running.aborted = true;
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  record(format, arguments);
  va_end(arguments);
  char where[160];
  snprintf(where, sizeof where, " [block (%u,%u,%u) thread (%u,%u,%u)]", blockIdx.x, blockIdx.y,
           blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  failure_text += where;
  running.aborted = true;
  if (current) leave(*current);
  fprintf(stderr, "%s\n", failure_text.c_str());  // not in a kernel: nobody could ask for it
  abort();
}

void reset() {
  sticky_error = cudaSuccess;
  failure_text.clear();
}

}  // namespace simt
