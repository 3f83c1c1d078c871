// tests/experts/store_race.cpp: workers of a pool multiply (here: compare) slices while readers fetch others, for a build with a sanitizer.
// CONTRIBUTING.md has the command. Takes a file that it may overwrite; ends with 1 when a slice had the wrong bytes.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

#include "experts/store.h"

using namespace tenth;

namespace {

constexpr int kLayers = 3, kExperts = 24, kUsed = 6, kThreads = 3, kSteps = 150;
constexpr int64_t kRows = 64, kRowBytes = 4096, kSlotBytes = kRows * kRowBytes, kSlots = 20, kPassingSlots = 3;

uint8_t byte_of(int layer, int expert) { return uint8_t(layer * kExperts + expert + 1); }

std::string land(const void*, int64_t first, int64_t n, const uint8_t* rows, uint8_t* slot) {
  std::memcpy(slot + first * kRowBytes, rows, size_t(n * kRowBytes));
  return "";
}

bool write_experts(const char* path) {
  FILE* file = std::fopen(path, "wb");
  if (!file) return false;
  std::vector<uint8_t> slice(kSlotBytes);
  for (int i = 0; i < kLayers * kExperts; i++) {
    std::memset(slice.data(), byte_of(0, i), slice.size());
    std::fwrite(slice.data(), 1, slice.size(), file);
  }
  return std::fclose(file) == 0;
}

struct Job {
  ExpertStore& store;
  Pool& pool;
  int layer;
  std::vector<TouchedExpert> touched;
  std::vector<int32_t> guessed;
  std::atomic<int64_t> wrong{0};
};

// As an expert layer does it: one worker names the experts, all multiply their part of each.
void work(void* argument, int thread) {
  Job& job = *static_cast<Job*>(argument);
  if (thread == 0) job.store.want(job.layer, job.touched);
  job.pool.meet();
  if (thread == 1 && job.layer + 1 < kLayers) job.store.predict(job.layer + 1, job.guessed);
  for (const TouchedExpert& touched : job.store.order()) {
    const uint8_t* slot = job.store.acquire(job.layer, touched.expert);
    const uint8_t expected = byte_of(job.layer, touched.expert);
    for (int64_t row = thread; row < kRows; row += kThreads)
      job.wrong += slot[row * kRowBytes] != expected || slot[(row + 1) * kRowBytes - 1] != expected;
    (void)job.store.is_here((job.layer + 1) % kLayers, touched.expert);
    job.store.finished(job.layer, touched.expert, 1);
  }
}

void build(ExpertStore& store, const char* path) {
  const int file = store.add_file(path);
  for (int layer = 0; layer < kLayers; layer++) {
    store.add_layer(kExperts);
    ExpertRows rows;
    rows.layer = layer;
    rows.file = file;
    rows.offset = layer * kExperts * kSlotBytes;
    rows.stride = rows.slot_bytes = kSlotBytes;
    rows.n_rows = kRows;
    rows.row_bytes = kRowBytes;
    rows.parts = kThreads;
    rows.land = land;
    store.add_matrix(rows);
  }
  store.finish({{kSlotBytes, kSlots}}, 2.0, kPassingSlots);
  store.restore_usage(std::vector<double>(kLayers * kExperts, 1.0));
}

int64_t run(ReadMode mode, const char* path) {
  ExpertStore store(mode, 8);
  build(store, path);
  Pool pool(kThreads);
  std::mt19937 random(1);
  int64_t wrong = 0;
  for (int step = 0; step < kSteps; step++) {
    store.begin_step(1 + step % 5);
    for (int layer = 0; layer < kLayers; layer++) {
      Job job{store, pool, layer, {}, {}};
      std::vector<int32_t> experts(kExperts);
      for (int i = 0; i < kExperts; i++) experts[i] = i;
      std::shuffle(experts.begin(), experts.end(), random);
      for (int i = 0; i < kUsed; i++) job.touched.push_back({experts[i], 1});
      job.guessed.assign(experts.begin() + kUsed / 2, experts.begin() + kUsed / 2 + kUsed);
      pool.run(work, &job);
      wrong += job.wrong;
    }
    store.end_step();
    if (step % 40 == 0) (void)store.usage();
  }
  const StoreCounts counts = store.counts();
  std::printf("%ld slices wanted, %ld ready, %ld reads, %ld rows wrong\n", long(counts.cache.wanted), long(counts.cache.ready), long(counts.reads), long(wrong));
  return wrong;
}

}  // namespace

int main(int n, char** arguments) {
  if (n != 2 || !write_experts(arguments[1])) return 2;
  return run(ReadMode::dropped, arguments[1]) + run(ReadMode::direct, arguments[1]) != 0;
}
