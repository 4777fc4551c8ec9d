// A stand-in for libcuda.so.1, the driver of NVIDIA GPUs: what PyCUDA and the runtime ask of a driver, done by the CPU, so that
// tests execute every call on a machine without a GPU. It is no simulation of a GPU: nothing about its speed means anything.
//
// In place of a cubin it loads a shared library that was compiled from the kernels with `emulator.h`. It is stricter than a
// driver where that finds mistakes: see `driver_memory.h` and `driver_streams.h`; what it can be told to be is in
// `driver_faults.h`. Functions that PyCUDA links and that are not here are made by the build, and give "not supported".
#include "driver_calls.h"

using namespace standin;

namespace {

bool is_live(CUdeviceptr address, std::size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    return memory.holder(address, bytes) != nullptr;
}

CUresult copy(CUstream stream, void* to, const void* from, std::size_t bytes, bool to_device, bool from_device) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    const Allocation *target = memory.holder(number(to), bytes), *source = memory.holder(number(from), bytes);
    if ((to_device && !target) || (from_device && !source) || (!to_device && target && target->on_device) ||
        (!from_device && source && source->on_device)) {
        misuse("a copy of " + std::to_string(bytes) + " bytes leaves its allocation, or goes the other way");
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!target || !source) ++calls["copies of pageable memory"];
    return enqueue(stream, [=] {
        if ((to_device && !is_live(number(to), bytes)) || (from_device && !is_live(number(from), bytes))) {
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        }
        std::memmove(to, from, bytes);
        return CUDA_SUCCESS;
    });
}

// Copies that return when they are done wait for everything else, as those of the default stream do.
CUresult copy_now(void* to, const void* from, std::size_t bytes, bool to_device, bool from_device) {
    if (const CUresult failed = unsafe_in_capture()) return failed;
    const CUresult result = copy(nullptr, to, from, bytes, to_device, from_device);
    return result ? result : drain(&legacy);
}

CUresult fill(CUstream stream, CUdeviceptr to, std::size_t bytes, unsigned value, std::size_t unit) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    if (!memory.holder(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return enqueue(stream, [=] {
        if (!is_live(to, bytes)) return CUDA_ERROR_ILLEGAL_ADDRESS;
        for (std::size_t i = 0; i < bytes; i += unit) std::memcpy(pointer(to + i), &value, unit);
        return CUDA_SUCCESS;
    });
}

std::string list_of_live() {
    const std::lock_guard<std::recursive_mutex> guard(state);
    std::string text = "allocations " + std::to_string(memory.count()) + "\nbytes " +
                       std::to_string(memory.device_bytes + memory.host_bytes) + "\nstreams " +
                       std::to_string(streams.size() - 1) + "\ncontexts in this thread " + std::to_string(contexts.size()) +
                       "\n";
    for (const auto& [name, number] : live) text += name + " " + std::to_string(number) + "\n";
    return text;
}

}  // namespace

extern "C" {

// What tests ask the stand-in itself.

void standin_reset() {
    LOCKED;
    settings = Settings();
    calls.clear();
    misuses.clear();
}

// As in a new process, which alone gets back a GPU that was lost. What was on it is gone.
void standin_restart() {
    LOCKED;
    lost = CUDA_SUCCESS;
    memory.forget();
    streams = {&legacy};
    pending.clear();
    for (auto& [name, number] : live) number = 0;
    contexts.clear();
}

long standin_calls(const char* name) {
    LOCKED;
    const auto found = calls.find(name);
    return found == calls.end() ? 0 : found->second;
}

const char* standin_misuses() {
    LOCKED;
    static std::string text;
    text = misuses;
    return text.c_str();
}

const char* standin_live() {
    static std::string text;
    text = list_of_live();
    return text.c_str();
}

CUresult standin_unsupported(const char* name) {
    LOCKED;
    misuse(std::string(name) + " is not in the stand-in driver");
    return CUDA_ERROR_NOT_SUPPORTED;
}

// Devices and contexts.

CUresult cuInit(unsigned) {
    if (const CUresult failed = count("cuInit")) return failed;
    LOCKED;
    if (!settings.devices) return CUDA_ERROR_NO_DEVICE;
    initialised = true;
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
    LOCKED;
    *version = static_cast<int>(settings.driver_version);
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
    static const std::map<int, const char*> texts{{1, "invalid argument"},
                                                  {2, "out of memory"},
                                                  {3, "initialization error"},
                                                  {46, "CUDA-capable device(s) is/are busy or unavailable"},
                                                  {100, "no CUDA-capable device is detected"},
                                                  {201, "invalid device context"},
                                                  {209, "no kernel image is available for execution on the device"},
                                                  {222, "the provided PTX was compiled with an unsupported toolchain."},
                                                  {500, "named symbol not found"},
                                                  {600, "device not ready"},
                                                  {700, "an illegal memory access was encountered"},
                                                  {701, "too many resources requested for launch"},
                                                  {719, "unspecified launch failure"},
                                                  {801, "operation not supported"},
                                                  {900, "operation not permitted when stream is capturing"},
                                                  {901, "operation failed due to a previous error during capture"}};
    const auto found = texts.find(error);
    *text = found == texts.end() ? "an error" : found->second;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* devices) {
    CALL("cuDeviceGetCount");
    *devices = static_cast<int>(settings.devices);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    CALL("cuDeviceGet");
    *device = ordinal;
    return ordinal < settings.devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    CALL("cuDeviceGetName");
    std::snprintf(name, static_cast<std::size_t>(length), "stand-in for a GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
    CALL("cuDeviceComputeCapability");
    *major = static_cast<int>(settings.arch / 10);
    *minor = static_cast<int>(settings.arch % 10);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(std::size_t* bytes, CUdevice) {
    CALL("cuDeviceTotalMem");
    *bytes = static_cast<std::size_t>(settings.memory_bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    CALL("cuDeviceGetAttribute");
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = kMostThreads; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = kSharedBytes; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = kMostSharedBytes; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 16; break;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 4 << 20; break;
        case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = static_cast<int>(settings.integrated); break;
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = static_cast<int>(settings.arch / 10); break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = static_cast<int>(settings.arch % 10); break;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    CALL("cuDevicePrimaryCtxRetain");
    LOCKED;
    ++primary.retained;
    *context = &primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    CALL("cuDevicePrimaryCtxRelease");
    LOCKED;
    --primary.retained;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
    CALL("cuCtxPushCurrent");
    contexts.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
    CALL("cuCtxPopCurrent");
    if (contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = contexts.back();
    contexts.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
    CALL_IN_CONTEXT("cuCtxGetDevice");
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    CALL_UNSAFE_IN_CAPTURE("cuCtxSynchronize");
    return drain(nullptr);
}

// Memory.

CUresult cuMemGetInfo(std::size_t* free, std::size_t* total) {
    CALL_IN_CONTEXT("cuMemGetInfo");
    LOCKED;
    const std::size_t taken = memory.device_bytes + (settings.integrated ? memory.host_bytes : 0);
    *total = static_cast<std::size_t>(settings.memory_bytes);
    *free = *total > taken ? *total - taken : 0;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* address, std::size_t bytes) {
    CALL_UNSAFE_IN_CAPTURE("cuMemAlloc");
    LOCKED;
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (memory.device_bytes + bytes > static_cast<std::size_t>(settings.memory_bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = memory.allocate(bytes, true, 0);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFree(CUdeviceptr address) {
    CALL_UNSAFE_IN_CAPTURE("cuMemFree");
    LOCKED;
    return memory.free(address, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostAlloc(void** address, std::size_t bytes, unsigned flags) {
    CALL_UNSAFE_IN_CAPTURE("cuMemHostAlloc");
    LOCKED;
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    *address = pointer(memory.allocate(bytes, false, flags));
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void* address) {
    CALL_UNSAFE_IN_CAPTURE("cuMemFreeHost");
    LOCKED;
    return memory.free(number(address), false) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* device, void* host, unsigned) {
    CALL_IN_CONTEXT("cuMemHostGetDevicePointer");
    LOCKED;
    const Allocation* found = memory.holder(number(host), 1);
    if (!found || !(found->flags & CU_MEMHOSTALLOC_DEVICEMAP)) return CUDA_ERROR_INVALID_VALUE;
    *device = number(host);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, std::size_t bytes) {
    CALL_IN_CONTEXT("cuMemcpyHtoD");
    return copy_now(pointer(to), from, bytes, true, false);
}

CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, std::size_t bytes) {
    CALL_IN_CONTEXT("cuMemcpyDtoH");
    return copy_now(to, pointer(from), bytes, false, true);
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    CALL_IN_CONTEXT("cuMemcpyDtoD");
    return copy_now(pointer(to), pointer(from), bytes, true, true);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, std::size_t bytes, CUstream stream) {
    CALL_IN_CONTEXT("cuMemcpyHtoDAsync");
    return copy(stream, pointer(to), from, bytes, true, false);
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    CALL_IN_CONTEXT("cuMemcpyDtoHAsync");
    return copy(stream, to, pointer(from), bytes, false, true);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    CALL_IN_CONTEXT("cuMemcpyDtoDAsync");
    return copy(stream, pointer(to), pointer(from), bytes, true, true);
}

CUresult cuMemsetD8(CUdeviceptr to, unsigned char value, std::size_t count) {
    CALL_IN_CONTEXT("cuMemsetD8");
    return fill(nullptr, to, count, value, 1);
}

CUresult cuMemsetD32(CUdeviceptr to, unsigned value, std::size_t count) {
    CALL_IN_CONTEXT("cuMemsetD32");
    return fill(nullptr, to, 4 * count, value, 4);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
    CALL_IN_CONTEXT("cuMemsetD8Async");
    return fill(stream, to, count, value, 1);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, std::size_t count, CUstream stream) {
    CALL_IN_CONTEXT("cuMemsetD32Async");
    return fill(stream, to, 4 * count, value, 4);
}

}  // extern "C"
