// plan/weights.cpp: the weights of a plan: files, matrices and experts as they are added, where their memory lies, and when they are
// read (by reader.cpp).
#include <algorithm>

#include "base/expect.h"
#include "plan/bounds.h"
#include "plan/plan.h"

namespace tenth {

// Threads that read experts. Four reads in flight already give this kind of disk's full rate; while one packs what it read, it
// does not read.
static constexpr int kReaders = 8;

const FormatKernels& Plan::checked_format(uint32_t gguf_id, int64_t offset, int64_t out_rows, int64_t columns) const {
  const FormatKernels* kernels = find_format(*table_, gguf_id);
  expect(kernels, "plan: no kernels for format number " + std::to_string(gguf_id));
  expect(within(out_rows, 1, kMostNumber) && within(columns, 1, kMostNumber) && columns % kernels->block_weights == 0,
         std::string("plan: matrix shape does not fit ") + kernels->name);
  expect(within(offset, 0, int64_t(1) << 60), "plan: matrix offset");
  return *kernels;
}

int Plan::add_file(const std::string& path, ReadMode mode) {
  expect_building();
  files_.emplace_back(path, mode);
  return int(files_.size()) - 1;
}

void Plan::close_files() {
  expect(!reading_ && n_read_ == int64_t(weights_.size()), "plan: weights have not been read");
  files_.clear();
  if (store_) store_->start_warming();
}

const ModelFile& Plan::file(int number) const {
  expect(within(number, 0, int64_t(files_.size()) - 1), "plan: no such file");
  return files_[number];
}

int Plan::add_matrix(uint32_t gguf_id, int file, int64_t offset, int64_t out_rows, int64_t columns) {
  expect_building();
  const FormatKernels& kernels = checked_format(gguf_id, offset, out_rows, columns);
  matrices_.push_back(add_unread(Matrix{&kernels, out_rows, columns, nullptr}, 1, file, offset).of(0));
  return int(matrices_.size()) - 1;
}

ExpertMatrix Plan::checked_experts(uint32_t gguf_id, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) const {
  const FormatKernels& kernels = checked_format(gguf_id, offset, out_rows, columns);
  const ExpertMatrix one(Matrix{&kernels, out_rows, columns, nullptr}, 1);
  expect(within(stride, out_rows * one.shape().row_bytes(), kMostBytes), "plan: bytes from one expert to the next");
  expect(within(n_experts, 1, std::min(kMostExperts, kMostBytes / one.expert_bytes())), "plan: number of experts");
  return ExpertMatrix(one.shape(), n_experts);
}

int Plan::add_experts(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) {
  expect_building();
  const Matrix each = checked_experts(gguf_id, offset, stride, n_experts, out_rows, columns).shape();
  experts_.push_back(add_unread(each, n_experts, file, offset, stride, true));
  return int(experts_.size()) - 1;
}

int Plan::add_streamed(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns, int layer, int stage) {
  expect_building();
  const ModelFile& from = this->file(file);
  expect(from.mode() != ReadMode::kept, "plan: experts are streamed from a file that leaves no pages in memory");
  const Matrix shape = checked_experts(gguf_id, offset, stride, n_experts, out_rows, columns).shape();
  if (!store_) store_ = std::make_unique<ExpertStore>(from.mode(), kReaders);
  expect(within(layer, 0, store_->n_layers()), "plan: the layers of streamed experts are numbered in order");
  if (layer == store_->n_layers()) store_->add_layer(n_experts);
  expect(store_->n_experts(layer) == n_experts, "plan: the matrices of a layer are of different numbers of experts");
  streamed_shapes_.push_back(shape);
  ExpertRows rows = expert_rows(streamed_shapes_.back());
  rows.layer = layer;
  rows.stage = stage;
  rows.file = store_->add_file(from.path());
  rows.offset = offset;
  rows.stride = stride;
  experts_.emplace_back(shape, n_experts, StreamedFrom{store_.get(), layer, stage, store_->add_matrix(rows)});
  return int(experts_.size()) - 1;
}

void Plan::finish_store(const StoreLimits& limits) {
  expect_building();
  expect(store_ != nullptr, "plan: nothing is streamed");
  store_->finish(limits.n_slots, limits.half_life_steps, limits.passing_slots);
}

ExpertMatrix Plan::add_unread(Matrix each, int64_t n_experts, int file, int64_t offset, int64_t stride, bool has_experts) {
  this->file(file);  // before anything is taken
  each.panels = slabs_.take(n_experts * each.n_panels() * each.panel_bytes());
  const ExpertMatrix matrices(each, n_experts);
  std::lock_guard<std::mutex> guard(weights_lock_);
  weights_.push_back({matrices, has_experts, &this->file(file), offset, stride});
  return matrices;
}

std::vector<Stretch> Plan::stretches_of(int thread) const {
  std::vector<Stretch> stretches;
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      for (const PanelRange& range : panels_of(i, matrices_, thread, pool_.size())) {
        const Matrix& m = matrices_[range.matrix];
        const auto address = [&](int64_t panel) { return reinterpret_cast<uintptr_t>(m.panels + panel * m.panel_bytes()); };
        stretches.push_back({address(range.first), address(range.last)});
      }
  return stretches;
}

void Plan::place_weights() {
  expect(finished_, "plan: it is not finished");
  const auto place = [](void* plan, int thread) {
    constexpr uintptr_t kHuge = 2 << 20;  // one is provided whole, by whom its first byte belongs to
    for (const Stretch& s : static_cast<Plan*>(plan)->stretches_of(thread)) {
      const uintptr_t from = (s.from + kHuge - 1) / kHuge * kHuge;
      if (from < s.to) provide(reinterpret_cast<uint8_t*>(from), s.to - from);
    }
  };
  pool_.run(place, this);
}

WeightReader::Failure Plan::read_weights() {
  expect(!reading_.exchange(true), "plan: weights are being read");
  struct Done {
    std::atomic<bool>& reading;
    ~Done() { reading = false; }
  } done{reading_};
  const int64_t first = n_read_;
  std::vector<UnreadWeight> unread;
  {
    std::lock_guard<std::mutex> guard(weights_lock_);
    unread.assign(weights_.begin() + first, weights_.end());
  }
  WeightReader::Failure failure = reader_.read(pool_, unread);
  if (failure.weight >= 0) failure.weight += first;
  else if (!reader_.stopped()) n_read_ = first + int64_t(unread.size());
  return failure;
}

int64_t Plan::weight_bytes() const {
  int64_t bytes = 0;
  for (const Matrix& m : matrices_) bytes += m.n_panels() * m.panel_bytes();
  for (const ExpertMatrix& e : experts_) bytes += e.resident_bytes();
  for (const auto& v : vectors_) bytes += int64_t(v.size()) * 4;
  return bytes;
}

}  // namespace tenth
