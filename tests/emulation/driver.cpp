// A stand-in for libcuda.so.1, the driver of NVIDIA GPUs: what PyCUDA and the runtime ask of a driver, done by the CPU, so that
// tests execute every call on a machine without a GPU. It is no simulation of a GPU: nothing about its speed means anything.
//
// In place of a cubin it loads a shared library that was compiled from the kernels with `emulator.h`. It is stricter than a
// driver where that finds mistakes: see `driver_memory.h` and `driver_streams.h`; what it can be told to be is in
// `driver_faults.h`. Functions that PyCUDA links and that are not here are made by the build, and give "not supported".
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "driver_streams.h"

using namespace standin;

struct CUctx_st {
    long retained = 0;
};

struct CUmod_st {
    void* library;
};

struct CUfunc_st {
    std::string name;
    int (*run)(const unsigned* grid, const unsigned* block, unsigned shared_bytes, const void* job);
    const char* (*failure)();
    unsigned job_bytes;
    unsigned most_shared_bytes;
};

namespace {

constexpr unsigned kSharedBytes = 48 << 10, kMostSharedBytes = 163 << 10;
constexpr unsigned kMostThreads = 1024;

CUctx_st primary;
thread_local std::vector<CUcontext> stack;
std::map<std::string, long> live{{"modules", 0}, {"events", 0}, {"graphs", 0}};

bool is_live(CUdeviceptr address, std::size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    return memory.holder(address, bytes) != nullptr;
}

std::uintptr_t number(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }
void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

CUresult enter(const char* name, bool in_context) {
    if (const CUresult failed = count(name)) return failed;
    if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (in_context && (stack.empty() || !primary.retained)) return CUDA_ERROR_INVALID_CONTEXT;
    return CUDA_SUCCESS;
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
    if (const CUresult failed = drain_all()) return failed;
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

std::size_t image_bytes(const Elf64_Ehdr& header) {
    return header.e_shoff + std::size_t{header.e_shentsize} * header.e_shnum;
}

std::string list_of_live() {
    const std::lock_guard<std::recursive_mutex> guard(state);
    std::string text = "allocations " + std::to_string(memory.count()) + "\nbytes " +
                       std::to_string(memory.device_bytes + memory.host_bytes) + "\nstreams " +
                       std::to_string(streams.size() - 1) + "\ncontexts in this thread " + std::to_string(stack.size()) +
                       "\n";
    for (const auto& [name, number] : live) text += name + " " + std::to_string(number) + "\n";
    return text;
}

}  // namespace

#define CALL(name) \
    if (const CUresult failed = enter(name, false)) return failed
#define CALL_IN_CONTEXT(name) \
    if (const CUresult failed = enter(name, true)) return failed
#define CALL_UNSAFE_IN_CAPTURE(name)                           \
    CALL_IN_CONTEXT(name);                                     \
    if (const CUresult failed = unsafe_in_capture()) return failed
#define LOCKED const std::lock_guard<std::recursive_mutex> locked(state)

extern "C" {

// What tests ask the stand-in itself.

void standin_reset() {
    LOCKED;
    settings = Settings();
    calls.clear();
    misuses.clear();
    lost = CUDA_SUCCESS;
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
    stack.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
    CALL("cuCtxPopCurrent");
    if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
    CALL_IN_CONTEXT("cuCtxGetDevice");
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    CALL_UNSAFE_IN_CAPTURE("cuCtxSynchronize");
    return drain_all();
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

// Modules and kernels.

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
    CALL_IN_CONTEXT("cuModuleLoadDataEx");
    LOCKED;
    Elf64_Ehdr header;
    std::memcpy(&header, image, sizeof(header));
    // A fatbin, PTX or cubin, all of which need a real GPU.
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_type != ET_DYN) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (settings.driver_version < settings.image_version) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    const int file = memfd_create("module", MFD_CLOEXEC);
    const std::size_t bytes = image_bytes(header);
    void* library = nullptr;
    if (file >= 0 && write(file, image, bytes) == static_cast<ssize_t>(bytes)) {
        library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (file >= 0) close(file);
    if (!library) {
        misuse(std::string("an image cannot be loaded: ") + dlerror());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    ++live["modules"];
    *module = new CUmod_st{library};
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

CUresult cuModuleUnload(CUmodule module) {
    CALL_UNSAFE_IN_CAPTURE("cuModuleUnload");
    LOCKED;
    // The library stays: functions of it may still be on their way.
    delete module;
    --live["modules"];
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    CALL_IN_CONTEXT("cuModuleGetFunction");
    LOCKED;
    // One for each name, for ever, as a module's functions are the module's.
    static std::map<std::pair<void*, std::string>, CUfunc_st> functions;
    void* run = dlsym(module->library, (std::string(name) + "_emulated").c_str());
    void* bytes = dlsym(module->library, (std::string(name) + "_job_bytes").c_str());
    if (!run || !bytes) return CUDA_ERROR_NOT_FOUND;
    CUfunc_st made{name, nullptr, nullptr, reinterpret_cast<unsigned (*)()>(bytes)(), kSharedBytes};
    made.run = reinterpret_cast<decltype(made.run)>(run);
    made.failure = reinterpret_cast<decltype(made.failure)>(dlsym(module->library, "emulator_failure"));
    *function = &functions.try_emplace({module->library, name}, made).first->second;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    CALL_IN_CONTEXT("cuFuncGetAttribute");
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        *value = static_cast<int>(function->most_shared_bytes);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    CALL_IN_CONTEXT("cuFuncSetAttribute");
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
        value > static_cast<int>(kMostSharedBytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    function->most_shared_bytes = static_cast<unsigned>(value);
    return CUDA_SUCCESS;
}

CUresult cuFuncSetBlockShape(CUfunction, int, int, int) {
    CALL_IN_CONTEXT("cuFuncSetBlockShape");
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters,
                        void** extra) {
    CALL_IN_CONTEXT("cuLaunchKernel");
    const void* job = parameters ? parameters[0] : nullptr;
    std::size_t bytes = function->job_bytes;
    for (int i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) job = extra[i + 1];
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = *static_cast<std::size_t*>(extra[i + 1]);
    }
    if (!job || bytes != function->job_bytes) {
        misuse(function->name + " was launched with " + std::to_string(bytes) + " bytes of parameters; it takes " +
               std::to_string(function->job_bytes));
        return CUDA_ERROR_INVALID_VALUE;
    }
    const std::size_t threads = std::size_t{block_x} * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || !threads || threads > kMostThreads || block_z > 64 || grid_y > 65535 ||
        grid_z > 65535 || shared_bytes > function->most_shared_bytes) {
        misuse(function->name + " was launched with a layout that no GPU takes");
        return CUDA_ERROR_INVALID_VALUE;
    }
    // Taken now: the caller may write over them as soon as this returns.
    const std::string kept(static_cast<const char*>(job), bytes);
    return enqueue(stream, [=] {
        if (const CUresult failed = count("kernel")) return failed;
        return guard([&] {
            const unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
            if (!function->run(grid, block, shared_bytes, kept.data())) return CUDA_SUCCESS;
            LOCKED;
            misuse(function->name + ": " + function->failure());
            return CUDA_ERROR_LAUNCH_FAILED;
        });
    });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
    CALL_IN_CONTEXT("cuLaunchHostFunc");
    return enqueue(stream, [=] {
        function(data);
        return CUDA_SUCCESS;
    });
}

// Streams and events.

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    CALL_IN_CONTEXT("cuStreamCreate");
    LOCKED;
    *stream = new CUstream_st;
    streams.insert(*stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
    CALL_IN_CONTEXT("cuStreamDestroy");
    LOCKED;
    if (!streams.erase(stream)) {
        misuse("a stream was destroyed that does not exist");
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!stream->pending.empty() || stream->captured) misuse("a stream was destroyed with work in it");
    delete stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    CALL_UNSAFE_IN_CAPTURE("cuStreamSynchronize");
    return drain(stream ? stream : &legacy);
}

CUresult cuStreamQuery(CUstream stream) {
    CALL_UNSAFE_IN_CAPTURE("cuStreamQuery");
    LOCKED;
    return (stream ? stream : &legacy)->pending.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
    CALL_IN_CONTEXT("cuEventCreate");
    LOCKED;
    *event = new CUevent_st;
    ++live["events"];
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    CALL_IN_CONTEXT("cuEventDestroy");
    LOCKED;
    delete event;
    --live["events"];
    return CUDA_SUCCESS;
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
    CALL_IN_CONTEXT("cuEventRecordWithFlags");
    LOCKED;
    CUstream target = stream ? stream : &legacy;
    // Inside a capture an event marks a dependency and has no time, unless it is asked for as a node of its own.
    if (target->captured && !(flags & CU_EVENT_RECORD_EXTERNAL)) return CUDA_SUCCESS;
    event->stream = target;
    event->recorded = true;
    event->done = false;
    return enqueue(target, [event] {
        event->time_ns = std::chrono::steady_clock::now().time_since_epoch().count();
        event->done = true;
        return CUDA_SUCCESS;
    });
}

CUresult cuEventRecord(CUevent event, CUstream stream) { return cuEventRecordWithFlags(event, stream, 0); }

CUresult cuEventSynchronize(CUevent event) {
    CALL_UNSAFE_IN_CAPTURE("cuEventSynchronize");
    return event->recorded ? drain(event->stream) : CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
    CALL_UNSAFE_IN_CAPTURE("cuEventQuery");
    return event->done || !event->recorded ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    CALL_IN_CONTEXT("cuEventElapsedTime");
    if (!start->recorded || !end->recorded) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->done || !end->done) return CUDA_ERROR_NOT_READY;
    *milliseconds = static_cast<float>(end->time_ns - start->time_ns) / 1e6f;
    return CUDA_SUCCESS;
}

// Its name before CUDA 12.8.
#undef cuEventElapsedTime
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

// Graphs.

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    CALL_IN_CONTEXT("cuStreamBeginCapture");
    LOCKED;
    if (!stream || stream->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    stream->captured = std::make_unique<CUgraph_st>();
    stream->mode = mode;
    stream->owner = std::this_thread::get_id();
    stream->invalidated = false;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    // Even a lost device lets go of a capture.
    if (const CUresult failed = enter("cuStreamEndCapture", true)) {
        stream->captured.reset();
        return failed;
    }
    LOCKED;
    *graph = nullptr;
    if (!stream->captured) return CUDA_ERROR_ILLEGAL_STATE;
    const std::unique_ptr<CUgraph_st> captured = std::move(stream->captured);
    if (stream->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *graph = new CUgraph_st(*captured);
    ++live["graphs"];
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    CALL_IN_CONTEXT("cuGraphInstantiate");
    LOCKED;
    *executable = new CUgraphExec_st{std::make_shared<const std::vector<Work>>(graph->work)};
    ++live["graphs"];
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    CALL_IN_CONTEXT("cuGraphLaunch");
    return enqueue(stream, [work = executable->work] {
        for (const Work& one : *work) {
            if (const CUresult result = one()) return result;
        }
        return CUDA_SUCCESS;
    });
}

CUresult cuGraphDestroy(CUgraph graph) {
    CALL_IN_CONTEXT("cuGraphDestroy");
    LOCKED;
    delete graph;
    --live["graphs"];
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec executable) {
    CALL_IN_CONTEXT("cuGraphExecDestroy");
    LOCKED;
    delete executable;
    --live["graphs"];
    return CUDA_SUCCESS;
}

}  // extern "C"
