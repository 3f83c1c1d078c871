// plan/building.cpp: building a plan: what is added to it, each checked as it comes, and the layout of what steps need; its weights
// are in weights.cpp.
#include <algorithm>
#include <cstring>

#include "base/expect.h"
#include "plan/bounds.h"
#include "plan/plan.h"

namespace tenth {

static int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

void Plan::expect_building() const { expect(!finished_, "plan: it is finished, nothing can be added"); }

int Plan::add_vector(const float* data, int64_t n) {
  expect_building();
  expect(n > 0, "plan: an empty vector");
  vectors_.emplace_back(data, data + n);
  return int(vectors_.size()) - 1;
}

void Plan::add_layer(int layer, int n_kv_heads, int head_dim, int latent, std::vector<float> levels) {
  expect_building();
  expect(within(n_kv_heads, 1, kMostRows) && within(head_dim, 1, kMostRows) && !layers_.count(layer), "plan: layer " + std::to_string(layer));
  expect(limits_.kv_format != KvFormat::q8_0 || head_dim % 32 == 0, "plan: q8_0 keys need heads of a multiple of 32");
  expect(within(latent, 0, head_dim - 1) && (latent == 0 || n_kv_heads == 1), "plan: latents of layer " + std::to_string(layer));
  expect(levels.empty() || (!latent && int64_t(levels.size()) == int64_t(n_kv_heads) * head_dim), "plan: levels of layer " + std::to_string(layer));
  for (float level : levels) expect(level > 0 && level <= 1e9f, "plan: a level is a positive number");
  layers_[layer] = LayerKv{KvShape{n_kv_heads, head_dim, limits_.kv_format, latent}, 0, std::move(levels)};
}

void Plan::add_recurrence(int64_t n_floats) {
  expect_building();
  expect(within(n_floats, 1, kMostNumber) && recurrences_.size() < size_t(kMostRows), "plan: size of a recurrence");
  recurrences_.push_back(Recurrence{n_floats, slot_bytes_});
  slot_bytes_ = round_up(slot_bytes_ + n_floats * 4, 64);
}

void Plan::set_hidden(int64_t width) {
  expect_building();
  expect(listings_[0].instructions.empty() && within(width, 1, kMostNumber), "plan: width of hidden rows");
  hidden_width_ = width;
}

void Plan::check_operand(const Operand& o, const std::string& where) const {
  switch (o.kind) {
    case Operand::Kind::arena: {
      expect(within(o.at, 0, limits_.arena_bytes) && o.at % 64 == 0 && within(o.width, 1, kMostNumber), where + ": place or width");
      expect(within(o.inner, 1, o.width) && o.width % o.inner == 0, where + ": last dimension");
      expect(o.dtype != Dtype::q8 || o.inner % Q8_BLOCK == 0, where + ": q8 rows are whole blocks");
      const int64_t rows = capacity(o.rows);
      const int64_t bytes = buffer_bytes(o.dtype, rows * o.inner_rows(), o.inner);
      expect(bytes <= limits_.arena_bytes - o.at, where + " leaves the arena");
      break;
    }
    case Operand::Kind::experts: expect(o.at >= 0 && o.at < int64_t(experts_.size()), where + ": no such experts"); break;
    case Operand::Kind::matrix: expect(o.at >= 0 && o.at < int64_t(matrices_.size()), where + ": no such matrix"); break;
    case Operand::Kind::vector:
      expect(o.at >= 0 && o.at < int64_t(vectors_.size()) && o.width == int64_t(vectors_[o.at].size()), where + ": no such vector");
      break;
    default: break;
  }
}

void Plan::add_instruction(Instruction instruction, Which which) {
  expect_building();
  const std::string name = instruction.op->name;
  // What a drafter may not have: a batch of its has no slots, and the store knows the model's layers only.
  const bool is_draft = which == Which::drafter;
  expect(!is_draft || (name != "short_conv" && name != "delta_net" && name != "expert_read" && name != "expert_predict"), "plan: " + name + " in a drafter");
  expect(is_draft || name != "hidden_load", "plan: " + name + " outside a drafter");
  for (const auto* list : {&instruction.in, &instruction.out})
    for (const Operand& o : *list) {
      check_operand(o, "plan: operand of " + name);
      if (o.kind == Operand::Kind::matrix && name != "embed") instruction.weight_bytes += matrices_[o.at].n_panels() * matrices_[o.at].panel_bytes();
      if (o.kind == Operand::Kind::experts && name == "expert_linear") instruction.weight_bytes += experts_[o.at].expert_bytes() * instruction.in[1].width;
    }
  instruction.op->rule(instruction, parts());
  // Slots are filled in order of stages: products in another order would wait for each other's for ever.
  if (name == "expert_linear")
    if (const StreamedFrom& from = experts_[instruction.in[2].at].from(); from.store)
      expect(!is_draft && from.stage == stages_[from.layer]++, "plan: expert_linear: a product of another stage comes next");
  Listing& listing = listings_[size_t(which)];
  listing.instructions.push_back(std::move(instruction));
  if (name.ends_with("_store")) listing.n_keeping = listing.instructions.size();
}

void Plan::finish_listing(Listing& listing, const Operand& output) {
  check_operand(output, "plan: output");
  expect(output.kind == Operand::Kind::arena && output.rows == Rows::outputs && output.dtype == Dtype::f32, "plan: output is not rows of floats");
  listing.output = output;
  for (size_t i = 0; i + 1 < listing.instructions.size(); i++)
    listing.instructions[i].gates_next = gates_next(listing.instructions[i], listing.instructions[i + 1], parts(), limits_.max_rows);
  for (int thread = 0; thread < pool_.size(); thread++)
    listing.next_products.push_back(next_products(listing.instructions, matrices_, thread, pool_.size()));
  listing.taken = std::vector<std::atomic<uint64_t>>(listing.instructions.size() * size_t(pool_.size()));
}

void Plan::lay_out_pages() {
  int64_t at = 0;
  for (auto& [number, layer] : layers_) {
    layer.offset = at;
    at = round_up(at + layer.shape.layer_bytes(), 64);
    expect(at <= kMostBytes, "plan: the pages would be too large");
  }
  page_bytes_ = std::max<int64_t>(round_up(at, 4096), 4096);
  expect(page_bytes_ <= kMostBytes / limits_.n_pages, "plan: the KV cache would be too large");
  kv_ = Buffer(page_bytes_ * limits_.n_pages);
  kv_.want_huge_pages();
}

void Plan::lay_out_slots() {
  expect(recurrences_.empty() || limits_.n_slots > 0, "plan: recurrences and no slots for them");
  expect(!limits_.n_slots || slot_bytes_ <= kMostBytes / limits_.n_slots, "plan: what sequences keep would be too large");
  slots_ = Buffer(slot_bytes_ * limits_.n_slots);
  slots_.want_huge_pages();
  slot_tokens_.assign(size_t(limits_.n_slots), kUnknown);
}

// What a worker needs for itself in the instruction that needs most.
int64_t Plan::scratch_floats() const {
  int64_t most = 0;
  for (const auto& [number, layer] : layers_) {
    most = std::max(most, layer.shape.latent ? latent_scratch(layer.shape) : attention_scratch(layer.shape.head_dim));
    most = std::max(most, int64_t(layer.shape.n_kv_heads) * layer.shape.head_dim);  // a token's key, levelled or zero
    if (!layer.levels.empty())  // levelled queries of a tile, behind the rest
      most = std::max(most, attention_scratch(layer.shape.head_dim) + kQueryTile * round_up_32(layer.shape.head_dim));
  }
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      for (const Operand& o : i.out) {
        if (o.is_rounded()) most = std::max(most, o.inner * TILE_ROWS);  // one tile of floats, before rounding
        if (i.op->scratch) most = std::max(most, (i.op->scratch(i, parts(), capacity(o.rows)) + 3) / 4);
      }
  return most;
}

// Of the widest attention.
int64_t Plan::partials_bytes() const {
  int64_t most = 0;
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      if (!std::strcmp(i.op->name, "attention")) {
        const int64_t head_dim = layers_.at(i.attributes.layer).shape.head_dim;
        most = std::max(most, partial_sums_bytes(i.in[0].width / head_dim, head_dim, limits_.context_tokens));
      }
  return most;
}

void Plan::finish(const Operand& output, const Operand* drafted) {
  expect_building();
  finish_listing(listings_[0], output);
  expect((drafted != nullptr) == !listings_[1].instructions.empty() && (!drafted || hidden_width_), "plan: a drafter has instructions, logits and hidden rows");
  if (drafted) finish_listing(listings_[1], *drafted);
  hidden_ = Buffer(hidden_width_ * limits_.max_rows * 4);
  lay_out_pages();
  lay_out_slots();
  const int64_t scratch = scratch_floats();
  for (int thread = 0; thread < pool_.size(); thread++) scratch_.emplace_back((scratch + 16) * 4);
  expect(!store_ || store_->is_finished(), "plan: the expert store is not finished");
  if (pool_.size() > 1) partials_ = Buffer(partials_bytes());
  finished_runs_ = std::vector<std::atomic<int>>(size_t(kRunsPerThread) * pool_.size());
  fetches_ = std::vector<Fetch>(size_t(pool_.size()));
  finished_ = true;
}

}  // namespace tenth
