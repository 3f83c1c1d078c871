// bindings/texts.cpp: texts one behind the other, each after its length in eight bytes, as GGUF has them: Python strings of
// a vocabulary. Nothing is trusted: every length is checked against the bytes that are there.
#include <nanobind/nanobind.h>

#include <cstring>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Where a text begins and how long it says it is; false when its length lies outside the bytes.
struct Text {
  size_t at = 0;
  uint64_t length = 0;
  bool read(const nb::bytes& raw, size_t position) {
    if (position > raw.size() || raw.size() - position < 8) return false;
    std::memcpy(&length, raw.c_str() + position, 8);
    at = position + 8;
    return true;
  }
  bool is_whole(const nb::bytes& raw) const { return length <= raw.size() - at; }
};

nb::tuple texts(const nb::bytes& raw, size_t at, size_t count) {
  nb::list found;
  for (size_t i = 0; i < count; i++) {
    Text text;
    if (!text.read(raw, at) || !text.is_whole(raw)) throw nb::value_error("a string ends outside the bytes");
    PyObject* decoded = PyUnicode_DecodeUTF8(raw.c_str() + text.at, Py_ssize_t(text.length), nullptr);
    if (!decoded) throw nb::python_error();
    found.append(nb::steal(decoded));
    at = text.at + text.length;
  }
  return nb::make_tuple(found, at);
}

nb::tuple skip_texts(const nb::bytes& raw, size_t at, size_t count) {
  Text last;
  size_t n = 0;
  for (; n < count && last.read(raw, at); n++) {
    if (!last.is_whole(raw)) {
      n++;
      break;
    }
    at = last.at + last.length;
  }
  return nb::make_tuple(n, last.at, last.length);
}

}  // namespace

void bind_texts(nb::module_& m) {
  m.def("texts", texts, "raw"_a, "at"_a, "count"_a,
        "(the texts, the byte after the last). Raises ValueError where they leave the bytes or are not UTF-8.");
  m.def("skip_texts", skip_texts, "raw"_a, "at"_a, "count"_a,
        "(how many begin here, where the last of them begins, its length): it alone may reach beyond the bytes.");
}
