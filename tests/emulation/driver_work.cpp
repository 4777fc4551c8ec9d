// The stand-in driver (`driver.cpp`): what works on memory. Kernels, streams, events and graphs.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <chrono>

#include "driver_calls.h"

using namespace standin;

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

std::size_t image_bytes(const Elf64_Ehdr& header) {
    return header.e_shoff + std::size_t{header.e_shentsize} * header.e_shnum;
}

// Writes a log where the options want it, and how much of its buffer it takes in place of the buffer's size: whoever asked reads
// no further.
void write_log(unsigned count, const CUjit_option* options, void** values, CUjit_option buffer, CUjit_option size,
               const std::string& log) {
    const auto at = [=](CUjit_option option) { return std::find(options, options + count, option) - options; };
    if (at(buffer) == count || at(size) == count) return;
    const std::size_t bytes = std::min(log.size(), static_cast<std::size_t>(number(values[at(size)])));
    std::memcpy(values[at(buffer)], log.data(), bytes);
    values[at(size)] = pointer(bytes);
}

}  // namespace

extern "C" {

// Modules and kernels.

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count, CUjit_option* options, void** values) {
    LOCKED;
    write_log(count, options, values, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, "");
    write_log(count, options, values, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, settings.log);
    CALL_IN_CONTEXT("cuModuleLoadDataEx");
    Elf64_Ehdr header;
    std::memcpy(&header, image, sizeof(header));
    // A fatbin, PTX or cubin, all of which need a real GPU.
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_type != ET_DYN) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (settings.driver_version < settings.image_version) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    // Kept by content, each in a file that stays open: the loader knows libraries by name, and a number that is free again
    // would be that of the one before.
    static std::map<std::string, void*> libraries;
    const std::string content(static_cast<const char*>(image), image_bytes(header));
    void*& library = libraries[content];
    if (!library) {
        const int file = memfd_create("module", MFD_CLOEXEC);
        if (file >= 0 && write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size())) {
            library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
        }
    }
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

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    CALL_IN_CONTEXT("cuStreamCreate");
    LOCKED;
    *stream = new CUstream_st;
    (*stream)->flags = flags;
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
    if (!is_idle(stream) || stream->captured) misuse("a stream was destroyed with work in it");
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
    return is_idle(stream ? stream : &legacy) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
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
