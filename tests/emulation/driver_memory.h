// Memory of the stand-in driver. The host can touch what is "on the device" only while work of a stream runs, as on a real
// machine; every allocation ends, to within sixteen bytes, at a page that nobody may touch, is never used again once freed,
// and is NaN until it is written.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "driver_faults.h"

namespace standin {

constexpr std::uintptr_t kPage = 4096;
constexpr std::uintptr_t kAlignment = 16;
constexpr std::size_t kArenaBytes = std::size_t{1} << 36;
constexpr unsigned char kPoison = 0xff;

inline std::uintptr_t round_up(std::uintptr_t value, std::uintptr_t unit) { return (value + unit - 1) / unit * unit; }

struct Allocation {
    std::uintptr_t first_page;
    std::uintptr_t end;  // of the last page
    std::size_t bytes;
    bool on_device;
    unsigned flags;
};

class Memory {
  public:
    std::size_t device_bytes = 0, host_bytes = 0;

    // Address of the allocation, 0 if there is no room.
    std::uintptr_t allocate(std::size_t bytes, bool on_device, unsigned flags) {
        if (!next_ && !reserve()) return 0;
        const std::uintptr_t end = next_ + round_up(bytes, kPage);
        if (end + kPage > arena_end_) return 0;
        const Allocation made{next_, end, bytes, on_device, flags};
        protect(made, true);
        std::memset(reinterpret_cast<void*>(made.first_page), kPoison, made.end - made.first_page);
        if (on_device && !open_) protect(made, false);
        (on_device ? device_bytes : host_bytes) += bytes;
        next_ = end + kPage;
        const std::uintptr_t address = end - round_up(bytes, kAlignment);
        live_[address] = made;
        return address;
    }

    bool free(std::uintptr_t address, bool on_device) {
        const auto found = live_.find(address);
        if (found == live_.end() || found->second.on_device != on_device) {
            misuse(freed_.count(address) ? "memory was freed twice" : "what was freed had not been allocated that way");
            return false;
        }
        const Allocation gone = found->second;
        check_borders(address, gone);
        protect(gone, false);
        madvise(reinterpret_cast<void*>(gone.first_page), gone.end - gone.first_page, MADV_DONTNEED);
        (on_device ? device_bytes : host_bytes) -= gone.bytes;
        live_.erase(found);
        freed_.insert(address);
        return true;
    }

    // The allocation that holds all these bytes, null if none does.
    const Allocation* holder(std::uintptr_t address, std::size_t bytes) const {
        auto after = live_.upper_bound(address);
        if (after == live_.begin()) return nullptr;
        const auto& [start, found] = *--after;
        return address + bytes <= start + found.bytes ? &found : nullptr;
    }

    void forget() {
        live_.clear();
        device_bytes = host_bytes = 0;
    }

    std::size_t count() const { return live_.size(); }

    // Lets work touch the memory of the device, or nobody.
    void open(bool open) {
        open_ = open;
        for (const auto& [address, allocation] : live_) {
            if (allocation.on_device) protect(allocation, open);
        }
    }

    // Looks for bytes written beside an allocation, on its own pages. Only while open.
    void check_borders() const {
        for (const auto& [address, allocation] : live_) check_borders(address, allocation);
    }

  private:
    std::uintptr_t next_ = 0, arena_end_ = 0;
    bool open_ = false;
    std::map<std::uintptr_t, Allocation> live_;
    std::set<std::uintptr_t> freed_;

    bool reserve() {
        void* arena = mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) return false;
        next_ = reinterpret_cast<std::uintptr_t>(arena) + kPage;
        arena_end_ = next_ - kPage + kArenaBytes;
        return true;
    }

    static void protect(const Allocation& allocation, bool accessible) {
        mprotect(reinterpret_cast<void*>(allocation.first_page), allocation.end - allocation.first_page,
                 accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
    }

    static void check_borders(std::uintptr_t address, const Allocation& allocation) {
        if (allocation.on_device) protect(allocation, true);
        const auto changed = [](std::uintptr_t from, std::uintptr_t to) {
            for (std::uintptr_t i = from; i < to; ++i) {
                if (*reinterpret_cast<unsigned char*>(i) != kPoison) return true;
            }
            return false;
        };
        if (changed(allocation.first_page, address) || changed(address + allocation.bytes, allocation.end)) {
            misuse("something was written beside an allocation of " + std::to_string(allocation.bytes) + " bytes");
        }
    }
};

inline Memory memory;

}  // namespace standin
