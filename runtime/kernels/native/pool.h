// A small pool of persistent threads that divides work statically.
#pragma once

#include <cstdint>
#include <memory>

namespace flawline {

// The half-open range of `count` items that falls to one of `parts`.
struct Slice {
    int64_t begin, end;
    Slice(int64_t count, int part, int parts) : begin(count * part / parts), end(count * (part + 1) / parts) {}
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
