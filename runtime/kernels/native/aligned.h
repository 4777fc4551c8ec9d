// Scratch memory that starts on a cache line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace flawline {

class AlignedFloats {
public:
    explicit AlignedFloats(int64_t count)
        : data_(static_cast<float*>(std::aligned_alloc(kLine, (count * sizeof(float) + kLine) / kLine * kLine))) {
        if (!data_) throw std::bad_alloc();
    }
    float* get() const { return data_.get(); }

private:
    static constexpr std::size_t kLine = 64;
    struct Free {
        void operator()(float* data) const { std::free(data); }
    };
    std::unique_ptr<float, Free> data_;
};

}  // namespace flawline
