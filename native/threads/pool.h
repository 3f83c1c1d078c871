// threads/pool.h: one pool of workers that walk the same list of work and meet where it says so.
//
// The caller of run() is worker 0. Between runs and at meetings a thread spins for a short while (the gap between two
// steps is tens of microseconds), then sleeps: an idle pool uses no processor time.
#pragma once
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace tenth {

// A word that threads wait on: spins briefly, then sleeps in the kernel.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void raise();                      // adds one and wakes all sleepers
  using Idle = bool (*)(void* argument);  // something short to do between two looks; false when nothing is left to do
  // Returns once value() != old; sleeps after spinning so long.
  void wait_while(uint32_t old, int64_t spin_ns, Idle idle = nullptr, void* argument = nullptr);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<int> sleepers_{0};
};

class Pool {
 public:
  // n_threads >= 1. Workers are pinned to one processor each only when the pool fills every physical core it may use:
  // a smaller pool shares the machine, and two pinned to the same core would halve each other. Throws std::system_error
  // when a thread cannot be started.
  explicit Pool(int n_threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return n_threads_; }
  // Keeps the calling thread on worker 0's processor while it lives, if workers are pinned. run() has one; who makes several runs
  // in a row has one around them, for moving there and back takes longer than waking the workers.
  class Place {
   public:
    explicit Place(const Pool& pool);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    bool moved_ = false;
    cpu_set_t before_;
  };

  // Whether workers are pinned to processors of several NUMA nodes; those of one node have neighbouring numbers.
  bool spans_nodes() const { return spans_nodes_; }
  int first_processor() const { return pinned_ ? processors_[0] : -1; }  // where worker 0 is pinned
  // Calls work(argument, thread) on every worker and returns when all have finished, then throws the first exception
  // that reached it or note_error. One run at a time.
  void run(void (*work)(void*, int), void* argument);
  // Called by every worker inside run(): nobody goes on before all have come.
  void meet() {
    if (arrive()) release();
  }
  // A meeting in two parts: true for the worker who came last, at once; he may do something that all wait for, then lets them go.
  // The others hear false, once they may; meanwhile they do `idle`.
  bool arrive(Signal::Idle idle = nullptr, void* argument = nullptr);
  void release();
  // Keeps the exception being handled for the end of the run: for work that still has meetings to come to.
  void note_error() noexcept;

 private:
  void worker(int thread);
  void call(int thread) noexcept;
  void stop();
  int n_threads_;
  bool pinned_ = false, spans_nodes_ = false;
  int64_t spin_ns_;
  std::vector<int> processors_;
  std::vector<std::thread> threads_;
  std::mutex one_run_, error_lock_;
  std::exception_ptr error_;
  void (*work_)(void*, int) = nullptr;
  void* argument_ = nullptr;
  std::atomic<bool> stopping_{false};
  Signal start_, met_;
  std::atomic<int> arrived_{0};
};

}  // namespace tenth
