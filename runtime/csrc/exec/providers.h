// The one place that knows which execution providers there are.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "ep/ep.h"

namespace moesaic {

// The provider of a device. Throws Error(kDevice) when it is not on this machine.
std::unique_ptr<Provider> make_provider(const Device& device, ThreadPool& pool);

}  // namespace moesaic
