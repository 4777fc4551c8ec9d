// CUDA C++ on a CPU, for tests. A kernel compiled with this header in front runs thread by thread: every CUDA thread is a
// fiber, which runs until it waits at a barrier or for the other lanes of its warp.
//
// What it finds: wrong results; a barrier that some threads never reach; an exchange that some lanes of a warp do not
// take part in; and, under AddressSanitizer, every access past an array or past the shared memory that was asked for.
// A missing barrier shows as a wrong result under some order of the threads, so tests run several (`emulator_order`);
// shared memory is NaN until it is written. What it cannot find: anything about speed, caches or memory ordering.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __device__
#define __global__
#define __forceinline__ inline

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emulator {

constexpr unsigned kLanes = 32;
constexpr std::size_t kStackBytes = 256 << 10;
// What every device gives to a block without being asked for more.
constexpr unsigned kMostSharedBytes = 48 << 10;

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Context;
extern "C" void emulator_switch(Context** from, Context* to);

// Saves what the calling convention leaves to the callee, changes stacks, and restores the same.
#if defined(__x86_64__)
asm(R"(
.text
.weak emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");
#else
#error "the emulator runs on x86-64 only"
#endif

struct Fiber {
    uint3 thread{};
    unsigned number = 0;
    State state = State::kReady;
    Context* context = nullptr;
    char* stack = nullptr;
    void* fake_stack = nullptr;
};

struct Warp {
    uint64_t values[2][kLanes] = {};
    unsigned exchanges[kLanes] = {};
};

struct Block {
    uint3 index{}, size{}, grid{};
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    unsigned char* shared = nullptr;
    std::function<void()> kernel;
    Context* scheduler = nullptr;
    void* fake_stack = nullptr;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
};

inline Block* block = nullptr;
inline Fiber* fiber = nullptr;
inline std::string failure;
// 0: threads in order; 1: in reverse; others: shuffled by this seed.
inline unsigned order = 0;

inline void to_scheduler(bool for_ever) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber->fake_stack, block->scheduler_stack,
                                   block->scheduler_stack_bytes);
#else
    (void)for_ever;
#endif
    emulator_switch(&fiber->context, block->scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber->fake_stack, nullptr, nullptr);
#endif
}

inline void to_fiber(Fiber& next) {
    fiber = &next;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&block->fake_stack, next.stack, kStackBytes);
#endif
    emulator_switch(&block->scheduler, next.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(block->fake_stack, nullptr, nullptr);
#endif
}

inline void wait(State state) {
    fiber->state = state;
    to_scheduler(false);
}

inline void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_bytes);
#endif
    block->kernel();
    fiber->state = State::kDone;
    to_scheduler(true);
    std::abort();
}

inline void prepare(Fiber& one) {
    // Kept from block to block: fresh memory costs more than what runs on it.
    static std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() <= one.number) stacks.emplace_back(new char[kStackBytes]);
    one.stack = stacks[one.number].get();
#if defined(__SANITIZE_ADDRESS__)
    // Frames that were never left, because their thread ended or hung, would look out of bounds to the next thread.
    ASAN_UNPOISON_MEMORY_REGION(one.stack, kStackBytes);
#endif
    auto top = reinterpret_cast<uintptr_t>(one.stack + kStackBytes) & ~uintptr_t{63};
    auto* words = reinterpret_cast<void**>(top);
    // Where `run_thread` would return to, then what `emulator_switch` takes off: its address and six registers.
    *--words = nullptr;
    *--words = reinterpret_cast<void*>(&run_thread);
    words -= 6;
    std::memset(words, 0, 6 * sizeof(void*));
    one.context = reinterpret_cast<Context*>(words);
}

// Lets go of those whose wait is over. False if nobody can go on although not all are done.
inline bool release() {
    bool ready = false, done = true, at_barrier = true;
    for (std::size_t w = 0; w < block->warps.size(); ++w) {
        bool together = true;
        const std::size_t first = w * kLanes, last = std::min(first + kLanes, block->fibers.size());
        for (std::size_t i = first; i < last; ++i) together = together && block->fibers[i].state == State::kInWarp;
        for (std::size_t i = first; i < last; ++i) {
            Fiber& one = block->fibers[i];
            if (together) one.state = State::kReady;
            ready = ready || one.state == State::kReady;
            done = done && one.state == State::kDone;
            at_barrier = at_barrier && one.state == State::kAtBarrier;
        }
    }
    if (at_barrier) {
        for (Fiber& one : block->fibers) one.state = State::kReady;
    }
    return ready || at_barrier || done;
}

inline bool all_done() {
    for (const Fiber& one : block->fibers) {
        if (one.state != State::kDone) return false;
    }
    return true;
}

inline void run_block(Block& running) {
    block = &running;
    std::vector<std::size_t> turns(running.fibers.size());
    std::iota(turns.begin(), turns.end(), std::size_t{0});
    if (order == 1) std::reverse(turns.begin(), turns.end());
    std::mt19937 random(order);
    for (Fiber& one : running.fibers) prepare(one);
    while (!all_done()) {
        if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
        for (const std::size_t turn : turns) {
            if (running.fibers[turn].state == State::kReady) to_fiber(running.fibers[turn]);
        }
        if (!release()) {
            failure = "threads of a block wait for each other: a barrier or an exchange that not all of them reach";
            break;
        }
    }
    block = nullptr;
}

// Runs a kernel over a grid. Returns 0, or 1 and leaves the reason in `failure`.
inline int launch(const unsigned* grid, const unsigned* size, unsigned shared_bytes, unsigned most_threads,
                  const std::function<void()>& kernel) {
    failure.clear();
    const unsigned threads = size[0] * size[1] * size[2];
    if (!threads || threads > most_threads || threads % kLanes || !grid[0] || !grid[1] || !grid[2]) {
        failure = "a block of " + std::to_string(threads) + " threads; expected whole warps, at most " +
                  std::to_string(most_threads) + ", in a grid that is not empty";
        return 1;
    }
    if (shared_bytes > kMostSharedBytes) {
        failure = std::to_string(shared_bytes) + " bytes of shared memory; expected at most " +
                  std::to_string(kMostSharedBytes);
        return 1;
    }
    for (unsigned i = 0; i < grid[0] * grid[1] * grid[2] && failure.empty(); ++i) {
        Block running;
        running.index = {i % grid[0], i / grid[0] % grid[1], i / (grid[0] * grid[1])};
        running.size = {size[0], size[1], size[2]};
        running.grid = {grid[0], grid[1], grid[2]};
        running.kernel = kernel;
        running.fibers.resize(threads);
        running.warps.resize(threads / kLanes);
        for (unsigned t = 0; t < threads; ++t) {
            running.fibers[t].number = t;
            running.fibers[t].thread = {t % size[0], t / size[0] % size[1], t / (size[0] * size[1])};
        }
        // Of its exact size, so that the sanitizer sees an access past it; all bits set is NaN.
        std::unique_ptr<unsigned char[]> shared(new unsigned char[shared_bytes]);
        std::memset(shared.get(), 0xff, shared_bytes);
        running.shared = shared.get();
        run_block(running);
    }
    return failure.empty() ? 0 : 1;
}

template <class Value>
Value exchange(Value value, unsigned from) {
    Warp& warp = block->warps[fiber->number / kLanes];
    const unsigned lane = fiber->number % kLanes;
    // Two sets of values in turn: nobody writes to one before all have read it.
    uint64_t* values = warp.values[warp.exchanges[lane]++ % 2];
    std::memcpy(&values[lane], &value, sizeof(value));
    wait(State::kInWarp);
    std::memcpy(&value, &values[from % kLanes], sizeof(value));
    return value;
}

}  // namespace emulator

#define threadIdx (emulator::fiber->thread)
#define blockIdx (emulator::block->index)
#define blockDim (emulator::block->size)
#define gridDim (emulator::block->grid)

#define FLAWLINE_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::block->shared)

#define FLAWLINE_KERNEL(most_threads, name, Job)                                                              \
    static void name(const Job& job);                                                                         \
    extern "C" unsigned name##_job_bytes() { return sizeof(Job); }                                            \
    extern "C" int name##_emulated(const unsigned* grid, const unsigned* size, unsigned shared_bytes,         \
                                   const void* parameters) {                                                  \
        Job job;                                                                                              \
        std::memcpy(&job, parameters, sizeof(Job));                                                           \
        return emulator::launch(grid, size, shared_bytes, most_threads, [&job] { name(job); });               \
    }                                                                                                         \
    static void name(const Job& job)

#define FLAWLINE_RESIDENT_KERNEL(most_threads, least_blocks, name, Job) FLAWLINE_KERNEL(most_threads, name, Job)

extern "C" inline __attribute__((used)) void emulator_order(unsigned value) { emulator::order = value; }
extern "C" inline __attribute__((used)) const char* emulator_failure() { return emulator::failure.c_str(); }

inline void __syncthreads() { emulator::wait(emulator::State::kAtBarrier); }
inline void __syncwarp() { emulator::wait(emulator::State::kInWarp); }

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, unsigned mask) {
    return emulator::exchange(value, emulator::fiber->number % emulator::kLanes ^ mask);
}
template <class Value>
Value __shfl_down_sync(unsigned, Value value, unsigned delta) {
    const unsigned lane = emulator::fiber->number % emulator::kLanes;
    return emulator::exchange(value, lane + delta < emulator::kLanes ? lane + delta : lane);
}

inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline unsigned atomicMax(unsigned* target, unsigned value) {
    const unsigned before = *target;
    if (value > before) *target = value;
    return before;
}
inline unsigned atomicAdd(unsigned* target, unsigned value) {
    const unsigned before = *target;
    *target = before + value;
    return before;
}
// Blocks run one after the other.
inline void __threadfence() {}

using std::max;
using std::min;
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }

inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}
inline float from_half(uint16_t bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof(value));
    return static_cast<float>(value);
}
// Four of the eight bytes of two words, as the digits of the selector number them.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t bytes = uint64_t{high} << 32 | low;
    uint32_t chosen = 0;
    for (int i = 0; i < 4; ++i) chosen |= static_cast<uint32_t>(bytes >> (8 * (selector >> 4 * i & 7)) & 0xff) << 8 * i;
    return chosen;
}

inline uint4 load_once(const uint4* source) {
    if (reinterpret_cast<uintptr_t>(source) % alignof(uint4)) {
        std::fprintf(stderr, "a load of 16 bytes from an address that is not a multiple of 16\n");
        std::abort();
    }
    return *source;
}
// Fetches nothing: reads the byte, so that the sanitizer sees an address past an array.
inline void prefetch(const void* byte) { static_cast<void>(*static_cast<const volatile char*>(byte)); }
