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

  // Reads `bytes` bytes at `offset` into the buffer, which must have room(bytes); gives where they begin.
  // Throws std::runtime_error saying at which byte, when they do not all come. May be called by several threads.
  const uint8_t* read(int64_t offset, int64_t bytes, const Buffer& buffer) const;
  static int64_t room(int64_t bytes) { return bytes + 3 * kBlock; }
  // Empty, or how the file differs from what was opened: another size or time of change.
  std::string changed() const;
  const std::string& path() const { return path_; }
  ReadMode mode() const { return mode_; }  // never automatic

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
