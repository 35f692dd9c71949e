// The Copy op, which is between providers and so belongs to none of them.
#pragma once

#include <memory>

#include "ep/ep.h"

namespace moesaic {

// Copies rows through host memory allocated here. `step` and `program` outlive the kernel.
std::unique_ptr<Kernel> make_copy(const Program& program, const Step& step, Provider& from,
                                  Provider& to);

}  // namespace moesaic
