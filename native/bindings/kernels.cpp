// bindings/kernels.cpp: the linear kernels one by one, for tests and diagnosis. The plan calls them natively.
//
// Everything is checked here, so that no call from Python can read or write out of bounds.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <thread>

#include "kernels/isa_error.h"
#include "kernels/table.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace tenth;

namespace {

using Bytes2 = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes1 = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T> nb::ndarray<nb::numpy, T> give(std::unique_ptr<T[]> data, std::vector<size_t> shape) {
  T* p = data.release();
  nb::capsule owner(p, [](void* q) noexcept { delete[] (T*)q; });
  return nb::ndarray<nb::numpy, T>(p, shape.size(), shape.data(), owner);
}

const KernelTable& table_named(const std::string& isa) {
  const KernelTable* table = kernel_table_for(isa.c_str());
  if (!table) throw nb::value_error(("instruction set '" + isa + "' is unknown or this CPU lacks it").c_str());
  return *table;
}

const FormatKernels& format_named(const KernelTable& table, const std::string& name) {
  for (int i = 0; i < table.n_formats; i++)
    if (name == table.formats[i].name) return table.formats[i];
  throw nb::value_error(("no kernels for weight format '" + name + "'").c_str());
}

int64_t blocks_of(const FormatKernels& format, int64_t k) {
  if (k <= 0 || k > (1 << 28) || k % format.block_weights)
    throw nb::value_error(("k = " + std::to_string(k) + " is not a positive multiple of " +
                           std::to_string(format.block_weights)).c_str());
  return k / format.block_weights;
}

// Checks that `packed` is out_rows x k weights; gives the number of panels.
int64_t panels_of(const FormatKernels& format, const Bytes1& packed, int64_t out_rows, int64_t k) {
  if (out_rows <= 0 || out_rows > (1 << 28))
    throw nb::value_error(("out_rows = " + std::to_string(out_rows) + " is not a positive number of rows").c_str());
  const int64_t n = (out_rows + PANEL_ROWS - 1) / PANEL_ROWS, bytes = n * blocks_of(format, k) * format.panel_block_bytes;
  if ((int64_t)packed.size() != bytes)
    throw nb::value_error(("packed holds " + std::to_string(packed.size()) + " bytes, expected " +
                           std::to_string(bytes)).c_str());
  return n;
}

nb::ndarray<nb::numpy, uint8_t> pack(const std::string& isa, const std::string& name, Bytes2 raw) {
  const FormatKernels& format = format_named(table_named(isa), name);
  const int64_t rows = (int64_t)raw.shape(0), row_bytes = (int64_t)raw.shape(1);
  if (rows == 0 || row_bytes == 0 || row_bytes % format.block_bytes)
    throw nb::value_error(("rows of " + std::to_string(row_bytes) + " bytes are not whole blocks of " +
                           std::to_string(format.block_bytes)).c_str());
  const int64_t n_blocks = row_bytes / format.block_bytes, panel_bytes = n_blocks * format.panel_block_bytes;
  const int64_t n_panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
  std::unique_ptr<uint8_t[]> out(new uint8_t[(size_t)(n_panels * panel_bytes)]);
  for (int64_t p = 0; p < n_panels; p++) {
    const int64_t n = std::min<int64_t>(PANEL_ROWS, rows - p * PANEL_ROWS);
    format.pack(raw.data() + p * PANEL_ROWS * row_bytes, row_bytes, (int)n, n_blocks, out.get() + p * panel_bytes);
  }
  return give(std::move(out), {(size_t)(n_panels * panel_bytes)});
}

std::vector<int64_t> not_finite_rows(const std::string& isa, const std::string& name, Bytes2 raw) {
  const FormatKernels& format = format_named(table_named(isa), name);
  const int64_t rows = (int64_t)raw.shape(0), row_bytes = (int64_t)raw.shape(1), n_blocks = row_bytes / format.block_bytes;
  if (row_bytes == 0 || row_bytes % format.block_bytes) throw nb::value_error("rows are not whole blocks");
  std::vector<uint8_t> panel((size_t)(n_blocks * format.panel_block_bytes));
  std::vector<int64_t> found;
  for (int64_t first = 0; first < rows; first += PANEL_ROWS) {
    const int64_t n = std::min<int64_t>(PANEL_ROWS, rows - first);
    const uint32_t lanes = format.pack(raw.data() + first * row_bytes, row_bytes, (int)n, n_blocks, panel.data());
    for (int lane = 0; lane < PANEL_ROWS; lane++)
      if (lanes >> lane & 1) found.push_back(first + lane);
  }
  return found;
}

nb::ndarray<nb::numpy, float> decode_row(const std::string& isa, const std::string& name, Bytes1 packed,
                                         int64_t out_rows, int64_t k, int64_t row) {
  const FormatKernels& format = format_named(table_named(isa), name);
  panels_of(format, packed, out_rows, k);
  if (row < 0 || row >= out_rows)
    throw nb::value_error(("row " + std::to_string(row) + " is not in 0 .. " + std::to_string(out_rows - 1)).c_str());
  const int64_t n_blocks = blocks_of(format, k);
  std::unique_ptr<float[]> out(new float[(size_t)k]);
  format.decode_row(packed.data() + row / PANEL_ROWS * n_blocks * format.panel_block_bytes, n_blocks,
                    (int)(row % PANEL_ROWS), out.get());
  return give(std::move(out), {(size_t)k});
}

std::vector<uint8_t> quantized(const KernelTable& table, const float* x, int64_t n, int64_t k, int misalign) {
  std::vector<uint8_t> q8((size_t)(q8_bytes(n, k) + misalign));
  table.quantize(x, k, n, k, 0, (n + TILE_ROWS - 1) / TILE_ROWS, q8.data() + misalign);
  return q8;
}

std::vector<uint8_t> rounded_to_bf16(const KernelTable& table, const float* x, int64_t n, int64_t k, int misalign, uint8_t behind) {
  std::vector<uint8_t> rows((size_t)(buffer_bytes(Dtype::bf16, n, k) + misalign), behind);
  for (int64_t r = 0; r < n; r++) table.round_bf16(x + r * k, k, (uint16_t*)(rows.data() + misalign) + r * row_stride(Dtype::bf16, k));
  return rows;
}

nb::ndarray<nb::numpy, uint8_t> give_bytes(const std::vector<uint8_t>& bytes) {
  std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return give(std::move(copy), {bytes.size()});
}

std::vector<uint8_t> rounded_to(Dtype dtype, const KernelTable& table, const float* x, int64_t n, int64_t k) {
  return dtype == Dtype::bf16 ? rounded_to_bf16(table, x, n, k, 0, 0) : quantized(table, x, n, k, 0);
}

nb::ndarray<nb::numpy, uint8_t> round_rows(const std::string& isa, const std::string& dtype, Floats2 x) {
  const int64_t n = (int64_t)x.shape(0), k = (int64_t)x.shape(1);
  if (n == 0 || k == 0 || k % Q8_BLOCK) throw nb::value_error("x needs rows of a positive multiple of 32 values");
  if (dtype != "q8" && dtype != "bf16") throw nb::value_error("rows are rounded to q8 or bf16");
  return give_bytes(rounded_to(dtype == "q8" ? Dtype::q8 : Dtype::bf16, table_named(isa), x.data(), n, k));
}

// Joined by a plain product of numbers, which is the same everywhere.
nb::object gated(const std::string& isa, const std::string& name, Bytes1 gate, Bytes1 up, int64_t out_rows, int64_t k, Floats2 x, int64_t parts) {
  const KernelTable& table = table_named(isa);
  const FormatKernels& format = format_named(table, name);
  const int64_t n = (int64_t)x.shape(0), pairs = panels_of(format, gate, out_rows, k) / 2;
  panels_of(format, up, out_rows, k);
  if (!format.gated) return nb::none();
  const bool tiles = format.input == Dtype::q8;
  if ((int64_t)x.shape(1) != k || (tiles && n % TILE_ROWS) || n == 0 || out_rows % Q8_BLOCK || parts < 1)
    throw nb::value_error("gated needs whole tiles of k values and outputs by 32");
  const std::vector<uint8_t> given = rounded_to(format.input, table, x.data(), n, k);
  std::vector<uint8_t> y((size_t)buffer_bytes(format.input, n, out_rows));
  GatedProduct p;
  p.gate.panels = gate.data();
  p.gate.n_blocks = blocks_of(format, k);
  p.gate.out_rows = out_rows;
  p.gate.x = given.data();
  p.gate.x_stride = row_stride(format.input, k);
  p.gate.n_rows = n;
  p.up_panels = up.data();
  p.rounded = y.data();
  p.join = [](const float* a, const float* b, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] = a[i] * b[i];
  };
  for (int64_t part = 0; part < parts; part++) {
    p.gate.first_panel = 2 * (pairs * part / parts);
    p.gate.last_panel = 2 * (pairs * (part + 1) / parts);
    format.gated(p);
  }
  return nb::cast(give_bytes(y));
}

nb::tuple quantize(const std::string& isa, Floats2 x) {
  const KernelTable& table = table_named(isa);
  const int64_t n = (int64_t)x.shape(0), k = (int64_t)x.shape(1), blocks = k / Q8_BLOCK;
  if (n == 0 || k == 0 || k % Q8_BLOCK) throw nb::value_error("x needs rows of a positive multiple of 32 values");
  const std::vector<uint8_t> q8 = quantized(table, x.data(), n, k, 0);
  std::unique_ptr<int8_t[]> q(new int8_t[(size_t)(n * k)]);
  std::unique_ptr<float[]> scale(new float[(size_t)(n * blocks)]);
  for (int64_t row = 0; row < n; row++) {
    const int64_t tile = row / TILE_ROWS, rows = std::min<int64_t>(TILE_ROWS, n - tile * TILE_ROWS);
    const int64_t columns = rows <= 4 ? rows : (rows + 3) / 4 * 4, c = row % TILE_ROWS;
    for (int64_t b = 0; b < blocks; b++) {
      const uint8_t* block = q8.data() + tile * TILE_ROWS * blocks * Q8_BYTES + b * columns * Q8_BYTES;
      std::memcpy(q.get() + row * k + b * Q8_BLOCK, block + Q8_BLOCK * c, Q8_BLOCK);
      std::memcpy(scale.get() + row * blocks + b, block + Q8_BLOCK * columns + 4 * c, 4);
    }
  }
  return nb::make_tuple(give(std::move(q), {(size_t)n, (size_t)k}), give(std::move(scale), {(size_t)n, (size_t)blocks}));
}

// Runs slices of the panels on `splits` threads. `misalign` moves every buffer that many bytes (a multiple of 4) from
// its alignment. y gets gaps between rows, which are checked to be untouched.
nb::ndarray<nb::numpy, float> product(const std::string& isa, const std::string& name, Bytes1 packed, int64_t out_rows,
                                      int64_t k, Floats2 x, int splits, std::optional<Floats1> bias,
                                      std::optional<Floats2> residual, int misalign) {
  const KernelTable& table = table_named(isa);
  const FormatKernels& format = format_named(table, name);
  const int64_t n_panels = panels_of(format, packed, out_rows, k), n = (int64_t)x.shape(0);
  if (n == 0 || (int64_t)x.shape(1) != k) throw nb::value_error("x must be [rows, k] with at least one row");
  if (splits < 1 || splits > 64) throw nb::value_error("splits must be 1 .. 64");
  if (misalign < 0 || misalign > 60 || misalign % 4) throw nb::value_error("misalign must be 0, 4, .. 60");
  if (bias && (int64_t)bias->size() != out_rows) throw nb::value_error("bias must be [out_rows]");
  if (residual && ((int64_t)residual->shape(0) != n || (int64_t)residual->shape(1) != out_rows))
    throw nb::value_error("residual must be [rows, out_rows]");

  constexpr int GAP = 5;
  constexpr float UNTOUCHED = 12345.0f;
  const auto panels = std::make_unique_for_overwrite<uint8_t[]>(packed.size() + (size_t)misalign);
  std::memcpy(panels.get() + misalign, packed.data(), packed.size());
  std::vector<uint8_t> floats((size_t)(4 * n * k + misalign));
  std::memcpy(floats.data() + misalign, x.data(), (size_t)(4 * n * k));
  const float* x_data = (const float*)(floats.data() + misalign);
  std::vector<uint8_t> rounded;
  if (format.input == Dtype::q8) rounded = quantized(table, x_data, n, k, misalign);
  if (format.input == Dtype::bf16) rounded = rounded_to_bf16(table, x_data, n, k, misalign, 0xff);  // what lies behind a row counts nothing
  const int64_t y_stride = out_rows + GAP;
  std::vector<float> y((size_t)(n * y_stride + misalign / 4), UNTOUCHED);

  Product p;
  p.panels = panels.get() + misalign;
  p.n_blocks = blocks_of(format, k);
  p.out_rows = out_rows;
  p.x = rounded.empty() ? (const void*)x_data : (const void*)(rounded.data() + misalign);
  p.x_stride = row_stride(format.input, k);
  p.n_rows = n;
  p.y = y.data() + misalign / 4;
  p.y_stride = y_stride;
  p.bias = bias ? bias->data() : nullptr;
  p.residual = residual ? residual->data() : nullptr;
  p.residual_stride = out_rows;
  {
    nb::gil_scoped_release unlocked;
    std::vector<std::thread> threads;
    if (splits == 1) {  // here, so that callgrind counts it (scripts/count_instructions.py)
      p.last_panel = n_panels;
      format.product(p);
    }
    for (int s = 0; s < splits && splits > 1; s++) {
      Product slice = p;
      slice.first_panel = n_panels * s / splits;
      slice.last_panel = n_panels * (s + 1) / splits;
      threads.emplace_back([&format, slice] { format.product(slice); });
    }
    for (std::thread& t : threads) t.join();
  }
  std::unique_ptr<float[]> out(new float[(size_t)(n * out_rows)]);
  for (int64_t r = 0; r < n; r++) {
    std::memcpy(out.get() + r * out_rows, p.y + r * y_stride, (size_t)(4 * out_rows));
    for (int i = 0; i < GAP; i++)
      if (p.y[r * y_stride + out_rows + i] != UNTOUCHED) throw std::runtime_error("a kernel wrote past its row");
  }
  return give(std::move(out), {(size_t)n, (size_t)out_rows});
}

std::vector<std::string> kernel_isas() {
  const KernelTable* tables[16];
  std::vector<std::string> names;
  for (int i = 0, n = kernel_tables(tables, 16); i < n; i++) names.push_back(tables[i]->isa);
  return names;
}

nb::list formats() {
  constexpr const char* inputs[] = {"f32", "q8", "i32", "bf16"};
  nb::list rows;
  const KernelTable* table = nullptr;
  kernel_tables(&table, 1);
  if (!table) return rows;
  for (int i = 0; i < table->n_formats; i++) {
    const FormatKernels& f = table->formats[i];
    rows.append(nb::make_tuple(f.name, f.gguf_id, f.block_weights, f.block_bytes, f.panel_block_bytes, inputs[int(f.input)]));
  }
  return rows;
}

}  // namespace

void bind_kernels(nb::module_& m) {
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const IsaError& e) {
      const nb::object type = nb::module_::import_("tenth.errors").attr("ResourceError");
      const nb::object value = type(e.what(), e.hint.c_str());
      PyErr_SetObject(type.ptr(), value.ptr());
    }
  });
  m.def("cpu_is_supported", &cpu_is_supported, "Whether the CPU has SSE4.2, without which nothing here runs.");
  m.def("kernel_isas", &kernel_isas, "Instruction sets this CPU can run, slowest first.");
  m.def("kernel_isa", [] { return kernel_table().isa; }, "The instruction set in use. Raises ResourceError.");
  m.def("formats", &formats,
        "Weight formats: (name, gguf_id, block_weights, block_bytes, panel_block_bytes, what activations are rounded to).");
  m.def("pack", &pack, "isa"_a, "format"_a, "raw"_a, "File rows, uint8 [rows, row_bytes], as panels: uint8 [bytes].");
  m.def("not_finite_rows", &not_finite_rows, "isa"_a, "format"_a, "raw"_a,
        "Numbers of the file rows that hold a scale, minimum or float weight that is infinite or NaN.");
  m.def("decode_row", &decode_row, "isa"_a, "format"_a, "packed"_a, "out_rows"_a, "k"_a, "row"_a,
        "One row of packed weights as float32 [k].");
  m.def("quantize", &quantize, "isa"_a, "x"_a, "x, float32 [n, k], as int8 [n, k] and scales float32 [n, k / 32].");
  m.def("round_rows", &round_rows, "isa"_a, "dtype"_a, "x"_a, "x, float32 [n, k], as the bytes of a q8 or bf16 buffer.");
  m.def("gated", &gated, "isa"_a, "format"_a, "gate"_a, "up"_a, "out_rows"_a, "k"_a, "x"_a, "parts"_a = 1,
        "round_rows((x @ gate.T) * (x @ up.T)) to what the format reads, without storing either, for outputs by 32 and, to q8, whole tiles, in `parts` calls; None where there is no such kernel.");
  m.def("product", &product, "isa"_a, "format"_a, "packed"_a, "out_rows"_a, "k"_a, "x"_a, "splits"_a = 1,
        "bias"_a = nb::none(), "residual"_a = nb::none(), "misalign"_a = 0,
        "x @ W.T (+ bias) (+ residual), float32 [n, out_rows], computed in `splits` slices on as many threads.");
}
