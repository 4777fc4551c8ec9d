#include "pool.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace flawline {
namespace {

// Long enough to catch the next stage or the next call of a loop: a thread that sleeps takes about 100 us to wake. Short
// enough to leave the core to the network that runs next.
constexpr std::chrono::microseconds kSpin{60};

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Ready>
bool spin(const Ready& ready) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < 16; ++i) {
            if (ready()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < deadline);
    return ready();
}

}  // namespace

struct Pool::Shared {
    std::mutex turn;
    std::mutex mutex;
    std::condition_variable started, finished;
    std::atomic<uint64_t> generation{0};
    std::atomic<int> pending{0};
    bool stop = false;
    Call call = nullptr;
    const void* context = nullptr;
    std::vector<std::thread> workers;

    void work(int part) {
        for (uint64_t seen = 0;;) {
            const auto ready = [&] { return generation.load(std::memory_order_acquire) != seen; };
            if (!spin(ready)) {
                std::unique_lock<std::mutex> lock(mutex);
                started.wait(lock, ready);
            }
            ++seen;
            if (stop) return;
            call(context, part);
            if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                // The lock orders this after the caller's test, so that the caller cannot sleep through the notice.
                const std::lock_guard<std::mutex> lock(mutex);
                finished.notify_one();
            }
        }
    }

    void start() {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            generation.fetch_add(1, std::memory_order_release);
        }
        started.notify_all();
    }

    void shut_down() {
        stop = true;
        start();
        for (std::thread& worker : workers) worker.join();
    }
};

Pool::Pool(int threads) : parts_(threads), owner_(getpid()), shared_(std::make_unique<Shared>()) {
    try {
        for (int part = 1; part < parts_; ++part) {
            shared_->workers.emplace_back([shared = shared_.get(), part] { shared->work(part); });
        }
    } catch (...) {
        shared_->shut_down();
        throw;
    }
}

Pool::~Pool() {
    if (getpid() != owner_) {
        // Threads that are not there can neither be joined nor leave a condition variable: nothing may be destroyed.
        static_cast<void>(shared_.release());
        return;
    }
    shared_->shut_down();
}

void Pool::dispatch(Call call, const void* context) {
    if (parts_ == 1 || getpid() != owner_) {
        for (int part = 0; part < parts_; ++part) call(context, part);
        return;
    }
    Shared& shared = *shared_;
    const std::lock_guard<std::mutex> turn(shared.turn);
    shared.call = call;
    shared.context = context;
    shared.pending.store(parts_ - 1, std::memory_order_relaxed);
    shared.start();
    call(context, 0);
    const auto done = [&] { return shared.pending.load(std::memory_order_acquire) == 0; };
    if (!spin(done)) {
        std::unique_lock<std::mutex> lock(shared.mutex);
        shared.finished.wait(lock, done);
    }
}

Pool& shared_pool(int threads) {
    static std::mutex mutex;
    static auto* pools = new std::map<int, std::unique_ptr<Pool>>();
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<Pool>& pool = (*pools)[threads];
    if (!pool) pool = std::make_unique<Pool>(threads);
    return *pool;
}

}  // namespace flawline
