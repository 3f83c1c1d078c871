// ops/limits.cpp: runs the measuring loops on several threads, pass by pass.
#include "ops/limits.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>
#include <thread>

#include "kernels/table.h"

namespace tenth {
namespace scalar { extern const LimitLoops limit_loops; }
namespace avx2 { extern const LimitLoops limit_loops; }
namespace avxvnni { extern const LimitLoops limit_loops; }
namespace avx512 { extern const LimitLoops limit_loops; }

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Anonymous memory in huge pages where the kernel has them: the rate weights are read at, not the rate of page walks.
class Buffer {
 public:
  explicit Buffer(size_t n_bytes) : n_bytes_(n_bytes) {
    void* at = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    madvise(at, n_bytes, MADV_HUGEPAGE);
    data_ = static_cast<uint8_t*>(at);
  }
  ~Buffer() { munmap(data_, n_bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
  size_t n_bytes_;
};

// Runs work(thread, stopped) on n threads at once, pass after pass, and gives the seconds of each pass.
// prepare(thread, stopped) runs once before the first pass. Both return soon once `stopped` is true.
using Part = std::function<void(int, const std::atomic<bool>&)>;
std::vector<double> timed_passes(int n_threads, double seconds, const Interrupted& interrupted, const Part& prepare, const Part& work) {
  if (n_threads < 1 || n_threads > 1024) throw std::invalid_argument("threads must be from 1 to 1024");
  if (!(seconds > 0 && seconds <= 60)) throw std::invalid_argument("seconds must be above 0 and at most 60");
  std::vector<double> passes;
  std::atomic<int> gate{0};  // 0: wait, 1: go, -1: give up
  std::barrier<> meet(n_threads);
  bool done = false;  // written by thread 0 between two meetings
  std::atomic<bool> stopped{false}, over{false};
  const auto body = [&](int thread) {
    gate.wait(0);
    if (gate.load() < 0) return;
    prepare(thread, stopped);
    meet.arrive_and_wait();
    const Clock::time_point begin = Clock::now();
    while (!done) {
      const Clock::time_point start = Clock::now();
      work(thread, stopped);
      meet.arrive_and_wait();
      if (thread == 0) {
        passes.push_back(seconds_since(start));
        done = stopped || (passes.size() >= 3 && seconds_since(begin) > seconds);
      }
      meet.arrive_and_wait();
    }
    if (thread == 0) over = true;
  };
  std::vector<std::jthread> threads;  // joins on the way out, also when a thread cannot be started
  passes.reserve(1 << 16);
  const auto open = [&](int value) { gate.store(value); gate.notify_all(); };
  try {
    for (int t = 0; t < n_threads; t++) threads.emplace_back(body, t);
  } catch (...) {
    open(-1);
    throw;
  }
  open(1);
  while (!over) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!stopped && interrupted()) stopped = true;
  }
  threads.clear();
  return passes;
}

struct Isa { const char* name; const LimitLoops* loops; };
constexpr Isa ISAS[] = {{"scalar", &scalar::limit_loops},
                        {"avx2", &avx2::limit_loops},
                        {"avxvnni", &avxvnni::limit_loops},
                        {"avx512", &avx512::limit_loops},
                        {"vbmi", &avx512::limit_loops},
                        {"amx", &avx512::limit_loops}};  // the rate of vectors, not of tiles: shares stay comparable

// The loops of `isa`, or of the instruction set that the kernels use when it is empty.
const LimitLoops& loops_of(const std::string& isa) {
  const std::string wanted = isa.empty() ? kernel_table().isa : isa;
  for (const Isa& row : ISAS)
    if (wanted == row.name && kernel_table_for(row.name)) return *row.loops;
  throw std::invalid_argument("this CPU has no instruction set named " + wanted);
}

}  // namespace

std::vector<double> read_bandwidth(int n_threads, double seconds, size_t n_bytes, const Interrupted& interrupted) {
  const LimitLoops& loops = loops_of("");
  if (n_threads < 1 || n_threads > 1024) throw std::invalid_argument("threads must be from 1 to 1024");
  const size_t slice = n_bytes / n_threads / 1024 * 1024;
  if (slice == 0) throw std::invalid_argument("the buffer is smaller than 1024 bytes per thread");
  const Buffer buffer(slice * n_threads);
  std::atomic<int32_t> kept{0};  // keeps the sums, and so the loads, from being optimised away
  constexpr size_t PIECE = 64 << 20;  // some milliseconds
  const auto pieces = [&](int t, const std::atomic<bool>& stopped, const auto& each) {
    for (size_t at = 0; at < slice && !stopped; at += PIECE) each(buffer.data() + t * slice + at, std::min(PIECE, slice - at));
  };
  const auto fill = [&](int t, const std::atomic<bool>& stopped) {
    pieces(t, stopped, [&](uint8_t* data, size_t n) { std::memset(data, t + 1, n); });
  };
  const auto read = [&](int t, const std::atomic<bool>& stopped) {
    pieces(t, stopped, [&](const uint8_t* data, size_t n) { kept += loops.read_all(data, n); });
  };
  std::vector<double> rates = timed_passes(n_threads, seconds, interrupted, fill, read);
  for (double& rate : rates) rate = static_cast<double>(slice) * n_threads / rate;
  return rates;
}

std::vector<double> int8_rate(int n_threads, double seconds, const std::string& isa, const Interrupted& interrupted) {
  const LimitLoops& loops = loops_of(isa);
  const Clock::time_point start = Clock::now();
  const double trial = static_cast<double>(loops.multiply_add(20000));
  const double per_second = trial / seconds_since(start);
  const int64_t n_rounds = static_cast<int64_t>(20000 * (per_second * 0.02 / trial)) + 1;  // passes of about 20 ms
  std::atomic<int64_t> done{0};
  std::vector<double> rates = timed_passes(n_threads, seconds, interrupted, [](int, const auto&) {},
                                           [&](int, const auto&) { done += loops.multiply_add(n_rounds); });
  const double per_pass = static_cast<double>(done.load()) / static_cast<double>(rates.size());
  for (double& rate : rates) rate = per_pass / rate;
  return rates;
}

}  // namespace tenth
