// threads/pool.cpp: workers, meetings, pinning.
#include "threads/pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "threads/topology.h"

namespace tenth {
namespace {

// How long a waiting thread spins before it sleeps: longer than the gap between two steps (about 0.15 ms of Python), for
// waking a sleeper takes that long again. An idle pool has slept since half a millisecond after its last step.
constexpr int64_t kSpinNanoseconds = 500'000;

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void pin_to(pthread_t thread, int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  pthread_setaffinity_np(thread, sizeof set, &set);  // best effort: an unpinned worker is slower, not wrong
}

// Whether they are of several nodes.
bool sort_by_node(std::vector<int>& processors) {
  const std::vector<int> nodes = nodes_of(processors);
  std::vector<std::pair<int, int>> pairs;
  for (size_t i = 0; i < nodes.size(); i++) pairs.emplace_back(nodes[i], processors[i]);
  std::sort(pairs.begin(), pairs.end());
  for (size_t i = 0; i < pairs.size(); i++) processors[i] = pairs[i].second;
  return pairs.front().first != pairs.back().first;
}

}  // namespace

void Signal::raise() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0)
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

void Signal::wait_while(uint32_t old, int64_t spin_ns, Idle idle, void* argument) {
  for (int64_t end = 0;;) {
    for (int i = 0; i < 64; i++) {
      if (value() != old) return;
      if (idle && idle(argument)) continue;
      idle = nullptr;
      _mm_pause();
    }
    const int64_t now = now_ns();
    if (!end) end = now + spin_ns;
    if (now > end) break;
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == old)
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

Pool::Pool(int n_threads) : n_threads_(n_threads < 1 ? 1 : n_threads) {
  processors_ = physical_processors();
  const bool has_nodes = sort_by_node(processors_);
  pinned_ = n_threads_ > 1 && n_threads_ == int(processors_.size());
  spans_nodes_ = pinned_ && has_nodes;
  // More workers than processors: one that spins keeps another from working.
  spin_ns_ = n_threads_ > int(processors_.size()) ? 0 : kSpinNanoseconds;
  try {
    for (int i = 1; i < n_threads_; i++) {
      threads_.emplace_back(&Pool::worker, this, i);
      if (pinned_) pin_to(threads_.back().native_handle(), processors_[i]);
    }
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stopping_ = true;
  start_.raise();
  for (auto& t : threads_) t.join();
}

void Pool::worker(int thread) {
  for (uint32_t seen = 0;;) {
    start_.wait_while(seen, spin_ns_);
    seen = start_.value();
    if (stopping_) return;
    call(thread);
    meet();
  }
}

void Pool::call(int thread) noexcept {
  try {
    work_(argument_, thread);
  } catch (...) {
    note_error();
  }
}

void Pool::note_error() noexcept {
  std::lock_guard<std::mutex> guard(error_lock_);
  if (!error_) error_ = std::current_exception();
}

namespace {

thread_local bool has_place = false;  // this thread, in some pool

}  // namespace

Pool::Place::Place(const Pool& pool) {
  if (!pool.pinned_ || has_place) return;
  has_place = moved_ = pthread_getaffinity_np(pthread_self(), sizeof before_, &before_) == 0;
  if (moved_) pin_to(pthread_self(), pool.processors_[0]);
}

Pool::Place::~Place() {
  if (!moved_) return;
  pthread_setaffinity_np(pthread_self(), sizeof before_, &before_);
  has_place = false;
}

void Pool::run(void (*work)(void*, int), void* argument) {
  std::lock_guard<std::mutex> guard(one_run_);
  const Place place(*this);
  work_ = work;
  argument_ = argument;
  if (n_threads_ > 1) start_.raise();
  call(0);
  meet();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

bool Pool::arrive(Signal::Idle idle, void* argument) {
  if (n_threads_ == 1) return true;
  const uint32_t round = met_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) return true;
  met_.wait_while(round, spin_ns_, idle, argument);
  return false;
}

void Pool::release() {
  if (n_threads_ == 1) return;
  arrived_.store(0, std::memory_order_relaxed);
  met_.raise();
}

}  // namespace tenth
