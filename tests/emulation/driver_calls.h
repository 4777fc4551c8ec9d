// What every function of the stand-in driver begins with.
#pragma once

#include "driver_streams.h"

struct CUctx_st {
    long retained = 0;
};

namespace standin {

inline CUctx_st primary;
inline thread_local std::vector<CUcontext> contexts;
// Objects that exist, by kind.
inline std::map<std::string, long> live{{"modules", 0}, {"events", 0}, {"graphs", 0}};

inline std::uintptr_t number(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }
inline void* pointer(std::uintptr_t number) { return reinterpret_cast<void*>(number); }

inline CUresult enter(const char* name, bool in_context) {
    if (const CUresult failed = count(name)) return failed;
    if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (in_context && (contexts.empty() || !primary.retained)) return CUDA_ERROR_INVALID_CONTEXT;
    return CUDA_SUCCESS;
}

}  // namespace standin

#define CALL(name) \
    if (const CUresult failed = standin::enter(name, false)) return failed
#define CALL_IN_CONTEXT(name) \
    if (const CUresult failed = standin::enter(name, true)) return failed
#define CALL_UNSAFE_IN_CAPTURE(name)                           \
    CALL_IN_CONTEXT(name);                                     \
    if (const CUresult failed = standin::unsafe_in_capture()) return failed
#define LOCKED const std::lock_guard<std::recursive_mutex> locked(standin::state)
