// Streams of the stand-in driver. Work waits until somebody waits for its stream, and runs then: what is read too early is
// what was there before. Streams that wait for the default stream, and that one, run in the order in which work came; others
// each on its own. A stream that is captured keeps its work for a graph.
#pragma once

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "driver_memory.h"

using Work = std::function<CUresult()>;

struct CUgraph_st {
    std::vector<Work> work;
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<Work>> work;
};

struct CUstream_st {
    unsigned flags = 0;
    std::unique_ptr<CUgraph_st> captured;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    std::thread::id owner;
    bool invalidated = false;
};

struct CUevent_st {
    CUstream stream = nullptr;
    bool recorded = false, done = false;
    int64_t time_ns = 0;
};

namespace standin {

inline CUstream_st legacy;
inline std::set<CUstream> streams{&legacy};
inline std::deque<std::pair<CUstream, Work>> pending;
// Held by whoever runs work. Never asked for by calls that PyCUDA makes with Python's lock: work may ask for that lock.
inline std::mutex execution;

inline thread_local sigjmp_buf fault_exit;
inline thread_local bool guarded = false;
inline struct sigaction outer_handler;

inline void on_fault(int number, siginfo_t*, void*) {
    if (guarded) siglongjmp(fault_exit, 1);
    // Not ours: as it was before, and once more.
    sigaction(number, &outer_handler, nullptr);
}

// Runs a kernel; a bad address in it is an error of the device, not the end of the process.
inline CUresult guard(const Work& kernel) {
    struct sigaction handler = {};
    handler.sa_sigaction = on_fault;
    handler.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &handler, &outer_handler);
    CUresult result = CUDA_ERROR_ILLEGAL_ADDRESS;
    if (sigsetjmp(fault_exit, 1) == 0) {
        guarded = true;
        result = kernel();
    }
    guarded = false;
    sigaction(SIGSEGV, &outer_handler, nullptr);
    return result;
}

inline bool is_idle(CUstream stream) {
    return std::none_of(pending.begin(), pending.end(), [stream](const auto& one) { return one.first == stream; });
}

// Whether work of one stream has to run before what comes later in another.
inline bool is_before(CUstream one, CUstream other) {
    return one == other || !((one->flags | other->flags) & CU_STREAM_NON_BLOCKING);
}

// Runs what waits, until nothing of a stream does any more; null stands for all streams. What fails stays.
inline CUresult drain(CUstream stream) {
    const std::lock_guard<std::mutex> running(execution);
    for (;;) {
        Work next;
        {
            const std::lock_guard<std::recursive_mutex> guard(state);
            if (lost) return lost;
            if (stream ? is_idle(stream) : pending.empty()) return CUDA_SUCCESS;
            const auto first = std::find_if(pending.begin(), pending.end(), [stream](const auto& one) {
                return !stream || is_before(one.first, stream);
            });
            next = std::move(first->second);
            pending.erase(first);
            memory.open(true);
        }
        const CUresult result = next();
        const std::lock_guard<std::recursive_mutex> guard(state);
        memory.check_borders();
        memory.open(false);
        if (result) return lost = result;
    }
}

// Whether work in the default stream would be part of a capture, since it waits for all streams but the non-blocking ones.
inline bool spoils_captures() {
    bool found = false;
    for (CUstream stream : streams) {
        if (!stream->captured || stream->flags & CU_STREAM_NON_BLOCKING) continue;
        found = stream->invalidated = true;
    }
    return found;
}

inline CUresult enqueue(CUstream stream, Work work) {
    const std::lock_guard<std::recursive_mutex> guard(state);
    if (!stream) stream = &legacy;
    if (stream == &legacy && spoils_captures()) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    if (!streams.count(stream)) {
        misuse("work was given to a stream that does not exist");
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (stream->captured) {
        if (stream->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->captured->work.push_back(std::move(work));
    } else {
        pending.emplace_back(stream, std::move(work));
    }
    return CUDA_SUCCESS;
}

// What may wait for the device must not be called while a capture that forbids it is under way, and spoils that.
inline CUresult unsafe_in_capture() {
    const std::lock_guard<std::recursive_mutex> guard(state);
    CUresult result = CUDA_SUCCESS;
    for (CUstream stream : streams) {
        const bool forbidden = stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                               (stream->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
                                stream->owner == std::this_thread::get_id());
        if (!stream->captured || !forbidden) continue;
        stream->invalidated = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

}  // namespace standin
