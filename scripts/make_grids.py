"""Writes the grids of the IQ1, IQ2 and IQ3 formats in a compact form of our own, for Python and for the native core.

    python scripts/make_grids.py            write src/tenth/weights/grid_bits.py and native/formats/grid_bits.h
    python scripts/make_grids.py --check    exit code 1 when a file is not what would be written

A grid is a list of points: 4 or 8 weights, each one of a few levels. Read a point's level numbers as the digits of one
number, the first weight as the lowest digit: then every grid is in ascending order, so it is known by the set of its
numbers, and that is a string of bits, 6561 of them for eight weights of three levels. Values: those of the PyPI
package ``gguf`` 0.19, which has them from llama.cpp's ``ggml-common.h``.
"""

from __future__ import annotations

import argparse
import base64
import textwrap
from pathlib import Path

import numpy as np
from gguf import quants

ROOT = Path(__file__).parent.parent
PYTHON, NATIVE = ROOT / "src/tenth/weights/grid_bits.py", ROOT / "native/formats/grid_bits.h"
# IQ1_M shares the grid of IQ1_S.
GRIDS = {"IQ1": quants.IQ1_S, "IQ2_XXS": quants.IQ2_XXS, "IQ2_XS": quants.IQ2_XS, "IQ2_S": quants.IQ2_S,
         "IQ3_XXS": quants.IQ3_XXS, "IQ3_S": quants.IQ3_S}  # fmt: skip


def bits_of(kind: type[quants.__Quant]) -> bytes:
    """The grid as a set of numbers: bit i % 8 of byte i / 8 is set when i is one of them."""
    kind.init_grid()
    points = np.asarray(kind.grid).reshape(kind.grid_shape)  # [n, weights]
    levels = np.searchsorted(kind.grid_map, points)
    numbers = (levels * len(kind.grid_map) ** np.arange(points.shape[1])).sum(axis=1)
    if not (np.diff(numbers) > 0).all():
        raise SystemExit(f"the grid of {kind.__name__} is not in ascending order: this form cannot hold it")
    present = np.zeros(len(kind.grid_map) ** points.shape[1], np.uint8)
    present[numbers] = 1
    return np.packbits(present, bitorder="little").tobytes()


def python_file(grids: dict[str, bytes]) -> str:
    """The Python module."""
    lines = ['"""Which points the grids of IQ1, IQ2 and IQ3 have: made by scripts/make_grids.py, read by grids.py."""',
             "", "# Base 64 of one bit per point there could be, lowest bit of the first byte first.", "BITS = {"]
    for name, bits in grids.items():
        lines.append(f'    "{name}": (')
        lines += [f'        "{part}"' for part in textwrap.wrap(base64.b64encode(bits).decode(), 108)]
        lines.append("    ),")
    return "\n".join([*lines, "}", ""])


def native_file(grids: dict[str, bytes]) -> str:
    """The C++ header."""
    lines = ["// formats/grid_bits.h: which points the grids of IQ1, IQ2 and IQ3 have: made by scripts/make_grids.py, "
             "read by grids.cpp.", "#pragma once", "#include <cstdint>", "", "namespace tenth {", ""]
    for name, bits in grids.items():
        words = np.frombuffer(bits + bytes(-len(bits) % 8), "<u8")
        body = textwrap.wrap(", ".join(f"0x{word:x}" for word in words), 116)
        lines += [f"constexpr uint64_t {name}_BITS[] = {{", *(f"    {line}" for line in body), "};"]
    return "\n".join([*lines, "", "}  // namespace tenth", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the files with what would be written")
    settings = parser.parse_args()
    grids = {name: bits_of(kind) for name, kind in GRIDS.items()}
    wrong = []
    for path, content in ((PYTHON, python_file(grids)), (NATIVE, native_file(grids))):
        if not settings.check:
            path.write_text(content)
        elif not path.exists() or path.read_text() != content:
            wrong.append(path)
            print(f"{path} is not what scripts/make_grids.py writes")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
