// base/memory.h: zeroed anonymous memory, page aligned, given back when its owner goes. Pages cost nothing until touched.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

namespace tenth {

// Has the kernel provide these bytes now, unchanged, on the calling thread's NUMA node; a wish, which kernels before 5.14 do not know.
inline void provide(uint8_t* from, size_t bytes) {
  constexpr uintptr_t kPage = 4096;
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers lack
  const uintptr_t before = reinterpret_cast<uintptr_t>(from) % kPage;
  madvise(from - before, bytes + before, kPopulateWrite);
}

class Buffer {
 public:
  Buffer() = default;
  // Throws std::bad_alloc.
  explicit Buffer(size_t bytes) : bytes_(bytes ? bytes : 1), data_(take(bytes_)) {
    if (!data_) throw std::bad_alloc();
  }
  Buffer(Buffer&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() {
    if (data_) give_back(data_, bytes_);
  }
  void want_huge_pages() { madvise(data_, bytes_, MADV_HUGEPAGE); }  // a wish: nothing is checked
  void touch(size_t at, size_t bytes) { provide(data_ + at, bytes); }
  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
#ifdef __SANITIZE_ADDRESS__  // which knows the ends of what malloc gave, not of mappings
  static uint8_t* take(size_t bytes) { return static_cast<uint8_t*>(calloc(bytes, 1)); }
  static void give_back(uint8_t* data, size_t) { free(data); }
#else
  static uint8_t* take(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<uint8_t*>(p);
  }
  static void give_back(uint8_t* data, size_t bytes) { munmap(data, bytes); }
#endif
  size_t bytes_ = 0;
  uint8_t* data_ = nullptr;
};

// Hands out pieces of large buffers one after the other, so that small matrices share huge pages too: with 4 KiB pages
// a product of 1 MB read 21 GB/s where 28 GB/s were reached with 2 MiB pages. Pieces live as long as the slabs.
class Slabs {
 public:
  // 64-byte aligned, zeroed.
  uint8_t* take(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (slabs_.empty() || bytes > left_) {
      const size_t size = bytes > kSlab ? bytes : kSlab;
      slabs_.emplace_back(size + kHuge);
      slabs_.back().want_huge_pages();
      const auto start = reinterpret_cast<uintptr_t>(slabs_.back().data());
      next_ = slabs_.back().data() + (kHuge - start % kHuge) % kHuge;
      left_ = size;
    }
    uint8_t* piece = next_;
    next_ += bytes;
    left_ -= bytes;
    return piece;
  }

 private:
#ifdef __SANITIZE_ADDRESS__  // a buffer for each piece, so that its end is known
  static constexpr size_t kSlab = 0, kHuge = 64;
#else
  static constexpr size_t kSlab = size_t(256) << 20, kHuge = size_t(2) << 20;
#endif
  std::vector<Buffer> slabs_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace tenth
