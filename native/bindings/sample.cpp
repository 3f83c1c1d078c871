// bindings/sample.cpp: sampling for Python: reading its settings, and choosing tokens for a matrix of logits (tests).
#include "bindings/sample.h"

#include <algorithm>
#include <string>

#include "plan/sampling.h"

namespace nb = nanobind;
using namespace nb::literals;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

namespace {

constexpr int64_t ANY = -1;

template <typename T>
const T* data(const Array& array, int64_t length, const char* name) {
  if (array.dtype() != nb::dtype<T>() || array.ndim() != 1 || (length != ANY && (int64_t)array.shape(0) != length))
    throw nb::value_error((std::string("sampling array ") + name + " has the wrong type or length").c_str());
  return (const T*)array.data();
}

}  // namespace

SampleArrays::SampleArrays(nb::tuple packed, int32_t m, int32_t vocab) {
  if (nb::len(packed) != 17) throw nb::value_error("sampling needs the 17 entries of Sampling.packed()");
  for (size_t i = 0; i < 16; i++) kept_.push_back(nb::cast<Array>(packed[i]));
  view.m = m;
  view.temperature = data<float>(kept_[0], m, "temperature");
  view.top_k = data<int32_t>(kept_[1], m, "top_k");
  view.top_p = data<float>(kept_[2], m, "top_p");
  view.min_p = data<float>(kept_[3], m, "min_p");
  view.repetition = data<float>(kept_[4], m, "repetition");
  view.presence = data<float>(kept_[5], m, "presence");
  view.frequency = data<float>(kept_[6], m, "frequency");
  view.seed = data<uint64_t>(kept_[7], m, "seed");
  view.counter = data<int64_t>(kept_[8], m, "counter");
  view.n_top = data<int32_t>(kept_[9], m, "n_top");
  view.n_prompt = data<int32_t>(kept_[10], m, "n_prompt");
  view.history_starts = data<int32_t>(kept_[11], (int64_t)m + 1, "history_starts");
  view.history = data<int32_t>(kept_[12], view.history_starts[m], "history");
  view.bias_starts = data<int32_t>(kept_[13], (int64_t)m + 1, "bias_starts");
  view.bias_ids = data<int32_t>(kept_[14], view.bias_starts[m], "bias_ids");
  view.bias_values = data<float>(kept_[15], view.bias_starts[m], "bias_values");
  view.mask = nullptr;
  if (!packed[16].is_none()) {
    kept_.push_back(nb::cast<Array>(packed[16]));
    const Array& mask = kept_.back();
    if (mask.dtype() != nb::dtype<uint32_t>() || mask.ndim() != 2 || (int64_t)mask.shape(0) != m ||
        (int64_t)mask.shape(1) != (vocab + 31) / 32)
      throw nb::value_error("sampling mask must be uint32 [m, ceil(vocab/32)]");
    view.mask = (const uint32_t*)mask.data();
  }
  if (const char* wrong = tenth::check_sampling(view, vocab)) throw nb::value_error(wrong);
}

namespace {

template <typename T, typename... Shape>
nb::ndarray<nb::numpy, T> new_array(Shape... shape) {
  const size_t sizes[] = {(size_t)shape...};
  size_t n = 1;
  for (size_t s : sizes) n *= s;
  T* memory = new T[n]();
  nb::capsule owner(memory, [](void* p) noexcept { delete[] (T*)p; });
  return nb::ndarray<nb::numpy, T>(memory, sizeof...(shape), sizes, owner);
}

nb::tuple sample_rows(nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu> logits, nb::tuple packed, int threads) {
  if (logits.shape(0) > 1 << 20 || logits.shape(1) < 1 || logits.shape(1) > 1 << 24)
    throw nb::value_error("logits must be [m, vocab] with m up to 2^20 and vocab from 1 to 2^24");
  if (threads < 1 || threads > 1024) throw nb::value_error("threads must be from 1 to 1024");
  const int32_t m = (int32_t)logits.shape(0), vocab = (int32_t)logits.shape(1);
  const SampleArrays arrays(packed, m, vocab);
  const int32_t n_top = m ? *std::max_element(arrays.view.n_top, arrays.view.n_top + m) : 0;
  auto tokens = new_array<int32_t>(m);
  auto logprobs = new_array<float>(m);
  auto top_ids = new_array<int32_t>(m, n_top);
  auto top_logprobs = new_array<float>(m, n_top);
  {
    nb::gil_scoped_release unlocked;
    tenth::Pool pool(threads);
    tenth::Sampler sampler(pool.size(), vocab);
    sampler.sample(pool, logits.data(), arrays.view, {tokens.data(), top_ids.data(), logprobs.data(), top_logprobs.data(), n_top});
  }
  return nb::make_tuple(tokens, logprobs, top_ids, top_logprobs);
}

}  // namespace

void bind_sample(nb::module_& m) {
  m.def("sample_rows", &sample_rows, "logits"_a, "packed"_a, "threads"_a = 1,
        "Choose a token for each row of logits [m, vocab]. packed: tenth.batch.Sampling.packed().\n\n"
        "Returns (tokens int32 [m], logprobs float32 [m], top_ids int32 [m, k], top_logprobs float32 [m, k]), k the\n"
        "greatest n_top. A negative token is a SAMPLE_ reason of tenth.batch for having none.");
  m.def("random_unit", &tenth::random_unit, "seed"_a, "counter"_a, "The number in [0, 1) that a draw uses.");
}
