// A small pool of persistent threads, and how they share work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace flawline {

// Hands out ranges of `count` items to whichever thread is free, several to each: a thread that wakes late, or whose core
// is busy, takes fewer. Every item is worked on by itself, so results do not depend on who takes it.
class Shares {
public:
    Shares(int64_t count, int threads)
        : count_(count), size_(threads == 1 ? count : std::max<int64_t>(1, count / (kPerThread * threads))) {}

    // Moves [begin, end) to the next range; false when all are taken.
    bool take(int64_t& begin, int64_t& end) {
        begin = next_.fetch_add(size_, std::memory_order_relaxed);
        end = std::min(begin + size_, count_);
        return begin < count_;
    }

private:
    static constexpr int kPerThread = 8;
    const int64_t count_, size_;
    std::atomic<int64_t> next_{0};
};

class Pool {
public:
    // `threads` counts the calling thread, which does part 0.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int parts() const { return parts_; }

    // Calls work(part) for every part and returns when all are done. Calls from several threads wait for each other.
    // In a process forked from the one that made the pool, which has no copies of its threads, the caller does all parts.
    template <class Work>
    void run(const Work& work) {
        dispatch([](const void* context, int part) { (*static_cast<const Work*>(context))(part); }, &work);
    }

private:
    using Call = void (*)(const void* context, int part);
    struct Shared;

    void dispatch(Call call, const void* context);

    int parts_;
    int64_t owner_;
    std::unique_ptr<Shared> shared_;
};

// One pool per number of threads, for functions that keep no state of their own. Never destroyed: its threads may
// outlive every static object.
Pool& shared_pool(int threads);

}  // namespace flawline
