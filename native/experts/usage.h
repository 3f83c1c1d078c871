// experts/usage.h: how much each expert has been used lately. Counts are of all experts, kept in memory or not: what was
// evicted is remembered, which is where a policy of counts gains over one of recency.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace tenth {

// A use counts 2^(-age / half_life), age in steps; in a step of several tokens, the share of them that used the expert. A
// prompt thus ages what generation used by no more than a token does. Instead of shrinking old counts, new ones grow
// ("forward decay"; Cormode et al. 2009), so that two experts keep their order until one of them is used.
class Usage {
 public:
  Usage() = default;
  Usage(int64_t n_experts, double half_life_steps) : counts_(n_experts, 0.0), tokens_(n_experts, 0.0), growth_(std::exp2(1 / half_life_steps)) {}

  // A step goes by. True: all counts were scaled down together, and keys taken before are void.
  bool advance() {
    weight_ *= growth_;
    const bool is_large = weight_ > 1e120;
    if (is_large) {
      for (double& c : counts_) c /= weight_;
      weight_ = 1;
    }
    return is_large;
  }
  // So many tokens of the step's all used it.
  void use(int64_t expert, double tokens, double all) {
    counts_[expert] += tokens / all * weight_;
    tokens_[expert] += tokens;
  }
  // Larger is more used; comparable between experts until the next scaling.
  double key(int64_t expert) const { return counts_[expert]; }
  // By how much more a use counts than one of a step earlier.
  double growth() const { return growth_; }

  // What is kept between runs: how many tokens used each expert, and on the way back anything proportional to it. Real
  // uses soon outweigh that; among experts not used since, it says which are worth more.
  const std::vector<double>& tokens() const { return tokens_; }
  void restore(const std::vector<double>& shares) {
    for (size_t i = 0; i < counts_.size() && i < shares.size(); i++) counts_[i] = shares[i] * weight_;
  }

 private:
  std::vector<double> counts_, tokens_;
  double growth_ = 2, weight_ = 1;
};

}  // namespace tenth
