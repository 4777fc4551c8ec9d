// The instruction sets that this machine can run, the fastest first.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace flawline {

const std::vector<const Kernels*>& available_kernels();

// Throws std::invalid_argument where there is none of that name.
const Kernels& kernels_named(const std::string& name);

}  // namespace flawline
