// What the stand-in driver is told to be and where it is told to fail, from the environment; what was called, and what was
// called wrongly.
//
//   STANDIN_DEVICES=0           devices; one by default
//   STANDIN_ARCH=87             compute capability, times ten
//   STANDIN_INTEGRATED=1        a GPU that shares the memory of the host
//   STANDIN_MEMORY_BYTES=N      memory of the device, 8 GiB by default
//   STANDIN_DRIVER_VERSION=N    CUDA version of the driver, times 1000
//   STANDIN_IMAGE_VERSION=N     CUDA version that images of kernels need
//   STANDIN_LOG=TEXT            what the log says of an image that is not taken, in any bytes
//   STANDIN_FAIL=NAME@N=CODE,.. the N-th call of that function, counted from the reset, gives that error; with "+" behind it
//                               every later one as well; with "!", or an error after which a context is dead, every later
//                               call of anything: the device is lost until the process ends. The name "kernel" counts kernels
//                               as they run, which is later than they are launched.
#pragma once

#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace standin {

constexpr unsigned kSharedBytes = 48 << 10, kMostSharedBytes = 163 << 10;
constexpr unsigned kMostThreads = 1024;

inline long from_environment(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

struct Fault {
    std::string name;
    long call;
    CUresult code;
    bool lasting;
    bool sticky;
};

// An illegal address, a timeout, a context that is destroyed, an assertion, a fault of the hardware and the like.
inline bool kills_context(int code) {
    return code == 700 || code == 702 || code == 709 || code == 710 || (code >= 713 && code <= 719);
}

inline std::vector<Fault> faults_from_environment() {
    std::vector<Fault> faults;
    const char* text = std::getenv("STANDIN_FAIL");
    std::istringstream list(text ? text : "");
    for (std::string item; std::getline(list, item, ',');) {
        const std::size_t at = item.find('@'), equals = item.find('=');
        if (at == std::string::npos || equals == std::string::npos) {
            std::fprintf(stderr, "STANDIN_FAIL holds '%s'; expected NAME@N=CODE\n", item.c_str());
            std::abort();
        }
        faults.push_back({item.substr(0, at), std::atol(item.c_str() + at + 1),
                          static_cast<CUresult>(std::atoi(item.c_str() + equals + 1)), item.back() == '+',
                          item.back() == '!'});
    }
    return faults;
}

// Read anew at every reset.
struct Settings {
    long devices = from_environment("STANDIN_DEVICES", 1);
    long arch = from_environment("STANDIN_ARCH", 87);
    long integrated = from_environment("STANDIN_INTEGRATED", 0);
    long memory_bytes = from_environment("STANDIN_MEMORY_BYTES", 8L << 30);
    long driver_version = from_environment("STANDIN_DRIVER_VERSION", CUDA_VERSION);
    long image_version = from_environment("STANDIN_IMAGE_VERSION", 0);
    std::string log = std::getenv("STANDIN_LOG") ? std::getenv("STANDIN_LOG") : "";
    std::vector<Fault> faults = faults_from_environment();
};

// Guards everything but the work that runs on streams.
inline std::recursive_mutex state;
inline Settings settings;
inline std::map<std::string, long> calls;
inline std::string misuses;
inline CUresult lost = CUDA_SUCCESS;
inline bool initialised = false;

inline void misuse(const std::string& what) { misuses += what + "\n"; }

// Counts a call and says how it must end, success if as it will.
inline CUresult count(const std::string& name) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    const long call = ++calls[name];
    if (lost) return lost;
    for (const Fault& fault : settings.faults) {
        if (fault.name != name || !(fault.call == call || (fault.lasting && call > fault.call))) continue;
        if (fault.sticky || kills_context(fault.code)) lost = fault.code;
        return fault.code;
    }
    return CUDA_SUCCESS;
}

}  // namespace standin
