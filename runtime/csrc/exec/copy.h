// The Copy op, which is between providers and so belongs to none of them.
#pragma once

#include <memory>

#include "ep/ep.h"

namespace moesaic {

// Host memory that the largest Copy step of a program passes through; copies run one at a time, so
// all of them share it.
int64_t staging_bytes(const Program& program);

// Copies rows through `staging`. `step`, `program` and `staging` outlive the kernel.
std::unique_ptr<Kernel> make_copy(const Program& program, const Step& step, Provider& from,
                                  Provider& to, std::byte* staging);

}  // namespace moesaic
