#include "dispatch.h"

#include <stdexcept>

namespace flawline {
namespace {

std::vector<const Kernels*> detect() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    // These ask the operating system too whether it saves the wide registers.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        found.push_back(avx512_kernels());
    }
    // Every processor with AVX2 has F16C; not every compiler knows F16C by name here.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(avx2_kernels());
#elif defined(__aarch64__)
    found.push_back(neon_kernels());
#endif
    found.push_back(generic_kernels());
    return found;
}

}  // namespace

const std::vector<const Kernels*>& available_kernels() {
    static const std::vector<const Kernels*> available = detect();
    return available;
}

const Kernels& kernels_named(const std::string& name) {
    for (const Kernels* kernels : available_kernels()) {
        if (name == kernels->name) return *kernels;
    }
    throw std::invalid_argument("no implementation " + name);
}

}  // namespace flawline
