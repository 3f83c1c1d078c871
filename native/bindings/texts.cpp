// bindings/texts.cpp: texts one behind the other, each after its length in eight bytes, as GGUF has them: Python strings of
// a vocabulary, and what a tokenizer needs of them. Nothing is trusted: every length is checked against the bytes that are there.
#include "bindings/texts.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>

namespace nb = nanobind;
using namespace nb::literals;
using namespace tenth;

namespace {

// Both sides of each text's first space that is not its first character, one after the other, for who takes and drops them.
struct Pairs {
  nb::object owner;
  const Texts& texts;
  size_t at = 0;
};

PyObject* next_pair(PyObject* self) noexcept {
  Pairs& pairs = *nb::inst_ptr<Pairs>(self);
  if (pairs.at == pairs.texts.size()) return nullptr;
  const std::string_view text = pairs.texts.view(pairs.at++);
  const size_t space = text.find(' ', 1);
  if (space == text.npos) {
    PyErr_SetString(PyExc_ValueError, "a text without a space between two parts");
    return nullptr;
  }
  PyObject* left = PyUnicode_DecodeUTF8(text.data(), Py_ssize_t(space), nullptr);
  PyObject* right = PyUnicode_DecodeUTF8(text.data() + space + 1, Py_ssize_t(text.size() - space - 1), nullptr);
  PyObject* pair = left && right ? PyTuple_Pack(2, left, right) : nullptr;
  Py_XDECREF(left);
  Py_XDECREF(right);
  return pair;
}

PyObject* itself(PyObject* self) noexcept {
  Py_INCREF(self);
  return self;
}

PyType_Slot pairs_slots[] = {{Py_tp_iter, reinterpret_cast<void*>(itself)}, {Py_tp_iternext, reinterpret_cast<void*>(next_pair)}, {0, nullptr}};

nb::tuple texts(const nb::bytes& raw, size_t at, size_t count) {
  const Texts found(raw, at, count);
  return nb::make_tuple(found.list(), found.end());
}

nb::tuple skip_texts(const nb::bytes& all, size_t at, size_t count) {
  const std::string_view raw = bytes_of(all);
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
  nb::class_<Pairs>(m, "TextPairs", nb::type_slots(pairs_slots));
  nb::class_<TextIndex>(m, "TextIndex", "The places of texts of a header; of several that are the same, the last one's.")
      .def("get", &TextIndex::get, "text"_a, "None where there is no such text.");
  nb::class_<Texts>(m, "Texts", "Texts of a header, each a Python string only when it is asked for. Raises as ``texts``.")
      .def(nb::init<nb::bytes, size_t, size_t>(), "raw"_a, "at"_a, "count"_a)
      .def_prop_ro("end", &Texts::end, "The byte after the last.")
      .def("__len__", &Texts::size)
      .def("__getitem__", &Texts::item, "i"_a)
      .def("__iter__", [](const Texts& texts) { return nb::iter(texts.list()); })
      .def("ids", &Texts::ids, "Text -> place, the last one's where there are several.")
      .def("index", [](nb::handle_t<Texts> self, std::optional<Marks> without) {
        return std::make_unique<TextIndex>(nb::borrow(self), nb::cast<const Texts&>(self), without);
      }, "without"_a = nb::none(), "The places of those without a mark.")
      .def("find", &Texts::find, "wanted"_a, "The places of these texts, of those that are there; the last where there are several.")
      .def("joins_words", &Texts::joins_words, "without"_a = nb::none(), "Whether one without a mark has U+2581 behind another character.")
      .def("token_bytes", &Texts::token_bytes, "kinds"_a, "alphabet"_a = nb::none(),
           "(the bytes of all tokens, where each ends). Kinds: 0 as a vocabulary writes them, in an alphabet of bytes or with U+2581 "
           "for a space; 1 as they are; 2 one byte, as <0x41>.")
      .def("pairs", [](nb::handle_t<Texts> self) { return Pairs{nb::borrow(self), nb::cast<const Texts&>(self)}; },
           nb::sig("def pairs(self) -> Iterator[tuple[str, str]]"),
           "The two sides of each one's space; ValueError at one that has none.");
}
