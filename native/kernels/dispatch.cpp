// kernels/dispatch.cpp: which kernel tables this CPU can run, and which one is used.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "kernels/isa_error.h"
#include "kernels/products.h"
#include "kernels/table.h"

namespace tenth {

namespace scalar { extern const KernelTable TABLE; }
namespace avx2 { extern const KernelTable TABLE; }
namespace avx512 { extern const KernelTable TABLE; }
namespace avxvnni { extern const OtherProducts PRODUCTS; }
namespace vbmi { extern const OtherProducts PRODUCTS; }
namespace bf16 { extern const OtherProducts PRODUCTS; }
namespace amx { extern const OtherProducts PRODUCTS; }

namespace {

// What the CPU has and the operating system saves across task switches.
struct Cpu {
  bool sse42 = false, avx2 = false, avxvnni = false, avx512 = false, vbmi = false, bf16 = false, amx = false;

  Cpu() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    sse42 = c & bit_SSE4_2;
    if (!(c & bit_OSXSAVE)) return;
    const bool fma = c & bit_FMA, f16c = c & bit_F16C;
    unsigned low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    constexpr unsigned YMM = 0x06, ZMM = 0xe6;  // xcr0 bits: SSE and AVX; those and the three parts of AVX-512
    avx2 = (low & YMM) == YMM && fma && f16c && (b & bit_AVX2) && (b & bit_BMI2);
    constexpr unsigned AVX_VNNI = 1u << 4;  // in leaf 7, 1
    unsigned a1, b1, c1, d1;
    avxvnni = avx2 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 & AVX_VNNI);
    avx512 = avx2 && (low & ZMM) == ZMM && (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_AVX512VL) &&
             (b & bit_AVX512DQ) && (c & bit_AVX512VNNI);
    vbmi = avx512 && (c & bit_AVX512VBMI);
    constexpr unsigned AVX512_BF16 = 1u << 5;  // in leaf 7, 1
    bf16 = avx512 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 & AVX512_BF16);
    constexpr unsigned TILES = 3u << 17, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25;  // xcr0 bits, cpuid bits
    amx = vbmi && (low & TILES) == TILES && (d & AMX_TILE) && (d & AMX_INT8) && may_use_tiles();
  }

 private:
  // Linux saves 8 KB of tiles only for processes that asked; without that the first tile instruction is a SIGILL.
  // All threads of the process have the permission from then on.
  static bool may_use_tiles() {
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  }
};

const Cpu& cpu() {
  static const Cpu found;
  return found;
}

// A table with other products for some of its rows.
struct LaidOver {
  std::vector<FormatKernels> rows;
  KernelTable table;
  LaidOver(const char* isa, const KernelTable& under, std::initializer_list<const OtherProducts*> over)
      : rows(under.formats, under.formats + under.n_formats), table{isa, rows.data(), under.n_formats, under.quantize, under.round_bf16} {
    for (const OtherProducts* products : over)
      for (int i = 0; i < products->n; i++)
        for (FormatKernels& row : rows)
          if (const OtherProduct& other = products->list[i]; row.gguf_id == other.gguf_id)
            row.product = other.product, row.gated = other.gated, row.gated_rows = other.gated_rows;
  }
};

const KernelTable& avxvnni_table() {
  static const LaidOver made("avxvnni", avx2::TABLE, {&avxvnni::PRODUCTS});
  return made.table;
}

const KernelTable& amx_table() {
  static const LaidOver made("amx", vbmi_table(), {&amx::PRODUCTS});
  return made.table;
}

struct Isa {
  const KernelTable* table;
  bool available;
  const char* needs;
};

// From slowest to fastest.
constexpr int N_ISAS = 6;
struct Isas { Isa list[N_ISAS]; };
Isas isas() {
  return {{{&scalar::TABLE, cpu().sse42, "SSE4.2"},
           {&avx2::TABLE, cpu().avx2, "AVX2, FMA, F16C and BMI2"},
           {&avxvnni_table(), cpu().avxvnni, "AVX-VNNI beside AVX2, FMA, F16C and BMI2"},
           {&avx512::TABLE, cpu().avx512, "AVX-512 F, BW, VL, DQ and VNNI"},
           {&vbmi_table(), cpu().vbmi, "AVX-512 VBMI beside F, BW, VL, DQ and VNNI"},
           {&amx_table(), cpu().amx, "AMX int8 with AVX-512 VBMI, or this process may not use its tiles"}}};
}

const KernelTable& choose() {
  const char* wanted = std::getenv("TENTH_ISA");
  const KernelTable* best = nullptr;
  std::string names;
  for (const Isa& isa : isas().list) {
    if (wanted && *wanted && !std::strcmp(wanted, isa.table->isa)) {
      if (isa.available) return *isa.table;
      throw IsaError(std::string("TENTH_ISA=") + wanted + ": this CPU lacks " + isa.needs,
                     "unset TENTH_ISA to use the best kernels this CPU can run");
    }
    names += (names.empty() ? "" : ", ") + std::string(isa.table->isa);
    if (isa.available) best = isa.table;
  }
  if (wanted && *wanted)
    throw IsaError(std::string("TENTH_ISA=") + wanted + " is not known; expected one of " + names,
                   "unset TENTH_ISA to use the best kernels this CPU can run");
  if (!best) throw IsaError("this CPU lacks SSE4.2, which tenth needs", "run tenth on an x86-64 CPU made after 2011");
  return *best;
}

}  // namespace

const KernelTable& vbmi_table() {
  static constexpr OtherProducts NONE = {nullptr, 0};
  static const LaidOver made("vbmi", avx512::TABLE, {&vbmi::PRODUCTS, cpu().bf16 ? &bf16::PRODUCTS : &NONE});
  return made.table;
}

const KernelTable& kernel_table() {
  static const KernelTable& chosen = choose();
  return chosen;
}

int kernel_tables(const KernelTable** out, int capacity) {
  int n = 0;
  for (const Isa& isa : isas().list) {
    if (!isa.available) continue;
    if (n < capacity) out[n] = isa.table;
    n++;
  }
  return n;
}

const KernelTable* kernel_table_for(const char* name) {
  for (const Isa& isa : isas().list)
    if (isa.available && !std::strcmp(name, isa.table->isa)) return isa.table;
  return nullptr;
}

const FormatKernels* find_format(const KernelTable& table, uint32_t gguf_id) {
  for (int i = 0; i < table.n_formats; i++)
    if (table.formats[i].gguf_id == gguf_id) return &table.formats[i];
  return nullptr;
}

bool cpu_is_supported() { return cpu().sse42; }

bool cpu_multiplies_bf16() { return cpu().bf16; }

}  // namespace tenth
