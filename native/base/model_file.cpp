// base/model_file.cpp: the ways to read a file, and which of them this disk serves faster.
#include "base/model_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace tenth {
namespace {

// The probe: so many reads by so many threads, spread over the file. About 20 ms a mode on a disk of 1 GB/s.
constexpr int kProbeThreads = 4, kProbeReads = 24;
constexpr int64_t kProbeBytes = 1 << 20;
// Dropped reads cost a copy, five times the processor time of direct ones as measured here, which the products then lack.
constexpr double kDroppedMustWinBy = 1.25;

std::string why(int error) { return std::strerror(error); }

}  // namespace

ModelFile::ModelFile(std::string path, ReadMode mode) : path_(std::move(path)) {
  buffered_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (buffered_ < 0) throw std::runtime_error(path_ + ": cannot be opened: " + why(errno));
  fstat(buffered_, &opened_);
  if (mode == ReadMode::kept) {
    mode_ = mode;
    return;
  }
  posix_fadvise(buffered_, 0, 0, POSIX_FADV_RANDOM);  // no read-ahead: every read is whole
  choose(mode);
}

ModelFile::ModelFile(ModelFile&& other) noexcept
    : path_(std::move(other.path_)), buffered_(std::exchange(other.buffered_, -1)), direct_(std::exchange(other.direct_, -1)), mode_(other.mode_), opened_(other.opened_) {}

ModelFile::~ModelFile() {
  if (buffered_ >= 0) close(buffered_);
  if (direct_ >= 0) close(direct_);
}

void ModelFile::choose(ReadMode wish) {
  if (wish == ReadMode::dropped) return;
  direct_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (direct_ < 0) return;
  const Buffer block = buffer_for(kBlock);  // some file systems open but do not read this way
  if (pread(direct_, start_of(block), kBlock, 0) < 0) return;
  const bool is_large = opened_.st_size > 4 * kProbeReads * kProbeBytes;
  if (wish == ReadMode::direct || !is_large || rate(ReadMode::direct) * kDroppedMustWinBy > rate(ReadMode::dropped)) mode_ = ReadMode::direct;
}

// Bytes per second of a few reads in parallel; 0 when one fails.
double ModelFile::rate(ReadMode mode) const {
  const int file = mode == ReadMode::direct ? direct_ : buffered_;
  const auto place = [&](int i) {  // in another order than the file's, and never what the other mode read
    return (i * 7 % kProbeReads * 2 + (mode == ReadMode::direct)) * (opened_.st_size / (2 * kProbeReads) / kBlock) * kBlock;
  };
  for (int i = 0; i < kProbeReads && mode == ReadMode::dropped; i++) drop(place(i), kProbeBytes);  // or memory would be measured
  std::atomic<int> next{0};
  std::atomic<bool> is_whole{true};
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int t = 0; t < kProbeThreads; t++)
    threads.emplace_back([&] {
      const Buffer buffer = buffer_for(kProbeBytes);
      uint8_t* to = start_of(buffer);
      for (int i; (i = next.fetch_add(1)) < kProbeReads;) {
        if (read_fully(file, to, kProbeBytes, place(i)) != kProbeBytes) is_whole = false;
        if (mode == ReadMode::dropped) drop(place(i), kProbeBytes);
      }
    });
  for (auto& t : threads) t.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return is_whole ? double(kProbeReads * kProbeBytes) / seconds.count() : 0;
}

// Takes the pages of a range out of the page cache; the range is widened, because pages that it only touches would stay.
void ModelFile::drop(int64_t offset, int64_t bytes) const {
  const int64_t first = offset / kBlock * kBlock;
  posix_fadvise(buffered_, first, (offset + bytes + kBlock - 1) / kBlock * kBlock - first, POSIX_FADV_DONTNEED);
}

// How many bytes came, fewer only at the end of the file; -1: errno says why none.
int64_t ModelFile::read_fully(int file, uint8_t* to, int64_t bytes, int64_t offset) const {
  int64_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(file, to + done, bytes - done, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    done += got;
    if (got == 0 || (file == direct_ && got % kBlock)) break;  // the end: a direct read cannot go on from the middle of a block
  }
  return done;
}

Buffer ModelFile::buffer_for(int64_t bytes) {
  Buffer buffer(buffer_bytes(bytes) + kAlignment);
  buffer.want_huge_pages();
  return buffer;
}

uint8_t* ModelFile::start_of(const Buffer& buffer) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(buffer.data()) + kAlignment - 1) / kAlignment * kAlignment);
}

const uint8_t* ModelFile::read(int64_t offset, int64_t bytes, const Buffer& buffer) const {
  const bool is_direct = mode_ == ReadMode::direct;
  uint8_t* to = start_of(buffer);
  const int64_t first = is_direct ? offset / kBlock * kBlock : offset;
  const int64_t end = is_direct ? (offset + bytes + kBlock - 1) / kBlock * kBlock : offset + bytes;
  const int64_t got = read_fully(is_direct ? direct_ : buffered_, to, end - first, first);
  const int error = errno;
  if (mode_ == ReadMode::dropped) drop(offset, bytes);
  if (got < 0) throw std::runtime_error("reading at byte " + std::to_string(offset) + " failed: " + why(error));
  if (first + got < offset + bytes) {
    struct stat now = {};
    const int64_t size = fstat(buffered_, &now) == 0 ? now.st_size : first + got;  // the read may have begun behind it
    throw std::runtime_error("the file ends at byte " + std::to_string(size) + ", expected " + std::to_string(offset + bytes));
  }
  return to + (offset - first);
}

std::string ModelFile::changed() const {
  struct stat now {};
  if (fstat(buffered_, &now) != 0) return path_ + ": cannot be looked at: " + why(errno);
  const bool is_same = now.st_size == opened_.st_size && now.st_mtim.tv_sec == opened_.st_mtim.tv_sec && now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec;
  return is_same ? "" : path_ + ": the file was changed while the model runs";
}

}  // namespace tenth
