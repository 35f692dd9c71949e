// A device that computes nothing: it holds every buffer, checks what the executor asks of it, and
// fills outputs with zeros. For tests of plans and of the executor without kernels.
#pragma once

#include <memory>

#include "ep/ep.h"

namespace moesaic {

// Its kernels throw std::logic_error when a row count exceeds a buffer, when reserved rows are
// inconsistent with the cache, or when a page that a token sees is not there.
std::unique_ptr<Provider> make_null_provider();

}  // namespace moesaic
