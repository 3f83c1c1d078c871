// bindings/texts.h: texts of a header as they are stored, and what a tokenizer needs of them without making Python strings.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tenth {

namespace nb = nanobind;

using Marks = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;  // one for each text
using Alphabet = nb::ndarray<const uint16_t, nb::shape<512>, nb::c_contig, nb::device::cpu>;

inline std::string_view bytes_of(const nb::bytes& raw) { return {raw.c_str(), raw.size()}; }

// Where a text begins and how long it says it is; false when its length lies outside the bytes.
struct Text {
  size_t at = 0;
  uint64_t length = 0;
  bool read(std::string_view raw, size_t position) {
    if (position > raw.size() || raw.size() - position < 8) return false;
    std::memcpy(&length, raw.data() + position, 8);
    at = position + 8;
    return true;
  }
  bool is_whole(std::string_view raw) const { return length <= raw.size() - at; }
};

inline nb::str decoded(std::string_view text) {
  PyObject* made = PyUnicode_DecodeUTF8(text.data(), Py_ssize_t(text.size()), nullptr);
  if (!made) throw nb::python_error();
  return nb::steal<nb::str>(made);
}

// Whether a text is UTF-8 of at most three bytes a character; of others, and of what comes near surrogates, Python decides.
inline bool is_plain(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* end = p + text.size();
  auto follows = [](unsigned char c) { return (c & 0xC0) == 0x80; };
  while (p < end) {
    if (*p < 0x80) p++;
    else if (*p >= 0xC2 && *p < 0xE0 && end - p >= 2 && follows(p[1])) p += 2;
    else if (*p > 0xE0 && *p < 0xED && end - p >= 3 && follows(p[1]) && follows(p[2])) p += 3;
    else return false;
  }
  return true;
}

inline constexpr std::string_view SPACE = "\xe2\x96\x81";  // U+2581, SentencePiece's space

// Texts that stay as they are stored until one is asked for: as Python strings 150 thousand would take 10 MB and 15 ms.
class Texts {
 public:
  Texts(nb::bytes raw, size_t at, size_t count) : owner_(std::move(raw)), raw_(bytes_of(owner_)), first_(at) {
    if (raw_.size() >> 32) throw nb::value_error("the bytes are more than 4 GB");
    ends_.reserve(std::min(count, raw_.size() / 8));
    for (size_t i = 0; i < count; i++) {
      Text text;
      if (!text.read(raw_, at) || !text.is_whole(raw_)) throw nb::value_error("a string ends outside the bytes");
      at = text.at + text.length;
      ends_.push_back(uint32_t(at));
      if (!is_plain(view(i))) decoded(view(i));
    }
  }

  size_t size() const { return ends_.size(); }
  size_t end() const { return ends_.empty() ? first_ : ends_.back(); }
  std::string_view view(size_t i) const {
    const size_t begin = (i ? ends_[i - 1] : first_) + 8;
    return {raw_.data() + begin, ends_[i] - begin};
  }

  nb::str item(Py_ssize_t i) const {
    const Py_ssize_t n = Py_ssize_t(size());
    if (i < -n || i >= n) throw nb::index_error();
    return decoded(view(size_t(i < 0 ? i + n : i)));
  }

  nb::list list() const {
    nb::list found;
    for (size_t i = 0; i < size(); i++) found.append(decoded(view(i)));
    return found;
  }

  nb::dict ids() const {
    nb::dict found;
    for (size_t i = 0; i < size(); i++) {
      const nb::str key = decoded(view(i));
      const nb::object value = nb::steal(PyLong_FromSize_t(i));
      if (PyDict_SetItem(found.ptr(), key.ptr(), value.ptr())) throw nb::python_error();
    }
    return found;
  }

  nb::dict find(nb::iterable wanted) const {
    std::unordered_map<std::string, size_t> places;
    for (nb::handle text : wanted) places.emplace(nb::cast<std::string>(text), size());
    bool begins[256] = {};  // few texts begin as one that is wanted
    for (const auto& [text, place] : places) begins[text.empty() ? 0 : uint8_t(text[0])] = true;
    std::string text;
    for (size_t i = 0; i < size(); i++) {
      if (!begins[view(i).empty() ? 0 : uint8_t(view(i)[0])]) continue;
      text = view(i);
      if (auto place = places.find(text); place != places.end()) place->second = i;
    }
    nb::dict found;
    for (const auto& [wanted_text, place] : places)
      if (place < size()) found[decoded(wanted_text)] = place;
    return found;
  }

  bool joins_words(std::optional<Marks> without) const {
    check(without);
    for (size_t i = 0; i < size(); i++) {
      if (without && without->data()[i]) continue;
      const std::string_view text = view(i);
      for (size_t at = text.find(SPACE, 1); at != text.npos; at = text.find(SPACE, at + 1))
        if (text[at - 1] && !text.substr(0, at).ends_with(SPACE)) return true;
    }
    return false;
  }

  nb::tuple token_bytes(Marks kinds, std::optional<Alphabet> alphabet) const {
    check(kinds);
    std::string blob;
    blob.reserve(end() - first_);
    auto ends = std::make_unique<uint32_t[]>(size());
    for (size_t i = 0; i < size(); i++) {
      const std::string_view text = view(i);
      const uint8_t kind = kinds.data()[i];
      if (kind == BYTE && is_byte(text)) blob.push_back(char(std::stoi(std::string(text.substr(3, 2)), nullptr, 16)));
      else if (kind != WRITTEN) blob += text;
      else if (!alphabet) add_spaced(text, blob);
      else if (!add_spelt(text, alphabet->data(), blob)) blob += text;
      ends[i] = uint32_t(blob.size());
    }
    uint32_t* data = ends.release();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint32_t*>(p); });
    return nb::make_tuple(nb::bytes(blob.data(), blob.size()), nb::ndarray<nb::numpy, uint32_t>(data, {size()}, owner));
  }

  void check(const std::optional<Marks>& marks) const {
    if (marks && marks->shape(0) != size()) throw nb::value_error("not one mark for each text");
  }

 private:
  enum Kind : uint8_t { WRITTEN, LITERAL, BYTE };

  static bool is_byte(std::string_view text) {  // <0x41>
    return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && std::isxdigit(uint8_t(text[3])) && std::isxdigit(uint8_t(text[4]));
  }

  static void add_spaced(std::string_view text, std::string& blob) {
    for (size_t at; (at = text.find(SPACE)) != text.npos; text.remove_prefix(at + SPACE.size())) {
      blob += text.substr(0, at);
      blob += ' ';
    }
    blob += text;
  }

  // Adds the byte of every character; false, with nothing added, when one is none of the alphabet's 256.
  static bool add_spelt(std::string_view text, const uint16_t* alphabet, std::string& blob) {
    const size_t before = blob.size();
    for (size_t at = 0; at < text.size(); at++) {
      unsigned point = uint8_t(text[at]);
      if (point >= 0xC2 && point < 0xC8) point = (point & 0x1F) << 6 | (uint8_t(text[++at]) & 0x3F);
      else if (point >= 0x80) point = 0;  // beyond U+01FF; NUL is none of the alphabet's
      if (alphabet[point] > 255) {
        blob.resize(before);
        return false;
      }
      blob.push_back(char(alphabet[point]));
    }
    return true;
  }

  nb::bytes owner_;
  std::string_view raw_;
  size_t first_;
  std::vector<uint32_t> ends_;  // of each text; the next begins eight bytes on
};

// The place of a text, without a Python string for each: for 262 thousand a dictionary takes 60 ms and 25 MB.
class TextIndex {
 public:
  TextIndex(nb::object owner, const Texts& texts, const std::optional<Marks>& without) : owner_(std::move(owner)), texts_(texts) {
    texts.check(without);
    slots_.resize(std::bit_ceil(2 * texts.size() + 1), Slot{0, NONE});
    for (size_t i = 0; i < texts.size(); i++) {
      if (without && without->data()[i]) continue;
      const uint32_t hash = hash_of(texts.view(i));
      slots_[slot_of(texts.view(i), hash)] = {hash, uint32_t(i)};
    }
  }

  std::optional<uint32_t> get(const nb::str& text) const {
    Py_ssize_t length = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
    if (!bytes) throw nb::python_error();
    const std::string_view wanted(bytes, size_t(length));
    const uint32_t place = slots_[slot_of(wanted, hash_of(wanted))].place;
    return place == NONE ? std::nullopt : std::optional(place);
  }

 private:
  struct Slot {
    uint32_t hash, place;
  };
  static constexpr uint32_t NONE = UINT32_MAX;

  static uint64_t mixed(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
  }

  // With a key of this process, so that no file can hold texts that collide.
  static uint32_t hash_of(std::string_view text) {
    static const uint64_t key = uint64_t(std::random_device()()) << 32 | std::random_device()();
    constexpr uint64_t SPREAD = 0x9E3779B97F4A7C15;  // 2^64 over the golden ratio
    uint64_t hash = key ^ text.size(), part = 0;
    for (; text.size() >= 8; text.remove_prefix(8)) {
      std::memcpy(&part, text.data(), 8);
      hash = mixed(hash ^ part, SPREAD);
    }
    part = 0;
    std::memcpy(&part, text.data(), text.size());
    return uint32_t(mixed(hash ^ part, SPREAD ^ key));
  }

  // Where the text is, or the free slot where it would be.
  size_t slot_of(std::string_view text, uint32_t hash) const {
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].place != NONE && (slots_[at].hash != hash || texts_.view(slots_[at].place) != text)) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  nb::object owner_;
  const Texts& texts_;
  std::vector<Slot> slots_;
};

}  // namespace tenth
