// experts/usage.h: how much each expert has been used lately. Counts are of all experts, kept in memory or not: what was
// evicted is remembered, which is where a policy of counts gains over one of recency.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace tenth {

// A use counts 2^(-age / half_life), age in tokens. Instead of shrinking old counts, new ones grow ("forward decay";
// Cormode et al. 2009), so that two experts keep their order until one of them is used.
class Usage {
 public:
  Usage() = default;
  Usage(int64_t n_experts, double half_life_tokens) : counts_(n_experts, 0.0), half_life_(half_life_tokens) {}

  // So many tokens go by. True: all counts were scaled down together, and keys taken before are void.
  bool advance(int64_t n_tokens) {
    exponent_ += double(n_tokens) / half_life_;
    const bool is_large = exponent_ > 400;
    if (is_large) {
      const double factor = std::exp2(-exponent_);
      for (double& c : counts_) c *= factor;
      exponent_ = 0;
    }
    weight_ = std::exp2(exponent_);
    return is_large;
  }
  void use(int64_t expert, double times) { counts_[expert] += times * weight_; }
  // Larger is more used; comparable between experts until the next scaling.
  double key(int64_t expert) const { return counts_[expert]; }

  // What is kept between runs: uses as they count now.
  std::vector<double> counts() const {
    std::vector<double> now(counts_);
    for (double& c : now) c /= weight_;
    return now;
  }
  void restore(const std::vector<double>& now) {
    for (size_t i = 0; i < counts_.size() && i < now.size(); i++) counts_[i] = now[i] * weight_;
  }
  int64_t size() const { return int64_t(counts_.size()); }
  void set_half_life(double tokens) { half_life_ = tokens; }

 private:
  std::vector<double> counts_;
  double half_life_ = 1, exponent_ = 0, weight_ = 1;
};

}  // namespace tenth
