// base/model_file.h: a model file to read from: pieces of about a mebibyte at any offset, with or without the page cache.
#pragma once
#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "base/memory.h"

namespace tenth {

// How a file is read. kept: through the page cache, from which the next process may read it. direct: O_DIRECT, past the
// page cache. dropped: through the page cache, and dropped from it after each read. The last two leave no more than what is being
// read in memory that counts as this process's. automatic: direct, or dropped where a probe finds it clearly faster.
enum class ReadMode : int { automatic = 0, direct = 1, dropped = 2, kept = 3 };

class ModelFile {
 public:
  // Throws std::runtime_error when it cannot be opened. `direct` where the file system cannot: dropped.
  ModelFile(std::string path, ReadMode mode);
  ~ModelFile();
  ModelFile(ModelFile&& other) noexcept;
  ModelFile& operator=(ModelFile&&) = delete;

  // Reads `bytes` bytes at `offset` into a buffer_for(at least so many); gives where they begin.
  // Throws std::runtime_error saying at which byte, when they do not all come. May be called by several threads.
  const uint8_t* read(int64_t offset, int64_t bytes, const Buffer& buffer) const;
  // In huge pages, where the system gives them. A disk takes so many pieces of memory at a time (virtio as some hosts have it: 256 of
  // all requests together): a mebibyte in pages of 4 KiB is 256, and the next read waits for it. Eight threads read 1.35 GB/s
  // that way and 3.7 GB/s into huge pages.
  static Buffer buffer_for(int64_t bytes);
  static int64_t buffer_bytes(int64_t bytes) { return (bytes + 2 * kBlock + kAlignment - 1) / kAlignment * kAlignment; }  // that are used
  // Empty, or how the file differs from what was opened: another size or time of change.
  std::string changed() const;
  const std::string& path() const { return path_; }
  ReadMode mode() const { return mode_; }  // never automatic

 private:
  static constexpr int64_t kBlock = 4096;  // covers the alignment that any disk asks of direct reads
#ifdef __SANITIZE_ADDRESS__  // the end of a buffer is to be near what is read
  static constexpr int64_t kAlignment = kBlock;
#else
  static constexpr int64_t kAlignment = 2 << 20;  // a huge page
#endif
  static uint8_t* start_of(const Buffer& buffer);
  void choose(ReadMode wish);
  double rate(ReadMode mode) const;
  void drop(int64_t offset, int64_t bytes) const;
  int64_t read_fully(int file, uint8_t* to, int64_t bytes, int64_t offset) const;

  std::string path_;
  int buffered_ = -1, direct_ = -1;
  ReadMode mode_ = ReadMode::dropped;
  struct stat opened_ {};
};

}  // namespace tenth
