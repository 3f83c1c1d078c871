// experts/reader.h: one model file as the expert store reads it: pieces of about a mebibyte at any offset, past the page cache.
#pragma once
#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "base/memory.h"

namespace tenth {

// How a file is read. direct: O_DIRECT, nothing stays in the page cache. dropped: buffered, and the pages dropped after
// each read. Both leave no more than what is being read in memory that counts as this process's.
enum class ReadMode : int { automatic = 0, direct = 1, dropped = 2 };

class ModelFileReader {
 public:
  // Throws std::runtime_error when it cannot be opened. `direct` where the file system cannot: dropped.
  ModelFileReader(std::string path, ReadMode mode);
  ~ModelFileReader();
  ModelFileReader(ModelFileReader&& other) noexcept;
  ModelFileReader& operator=(ModelFileReader&&) = delete;

  // Reads `bytes` bytes at `offset` into the buffer, which must have room(bytes); gives where they begin.
  // Throws std::runtime_error naming file and offset when they do not all come. May be called by several threads.
  const uint8_t* read(int64_t offset, int64_t bytes, const Buffer& buffer) const;
  static int64_t room(int64_t bytes) { return bytes + 3 * kBlock; }
  // Empty, or how the file differs from what was opened: another size or time of change.
  std::string changed() const;
  const std::string& path() const { return path_; }
  ReadMode mode() const { return mode_; }  // direct or dropped

 private:
  static constexpr int64_t kBlock = 4096;  // covers the alignment that any disk asks of direct reads
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
