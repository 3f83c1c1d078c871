"""How many instructions the matrix kernels execute, counted by callgrind: a check of speed that no noise disturbs.

    python scripts/count_instructions.py               counts and compares with tests/data/instruction_counts.json
    python scripts/count_instructions.py --record      writes that file (after a change that is meant)

Valgrind knows no AVX-512, so avx2 and scalar are counted. A count includes rounding the input and copying the weights
once (bindings/kernels.cpp), at most a quarter. The counts belong to one compiler, whose name the file keeps. Without
valgrind, or with another compiler, nothing can be compared: exit code 3 and the reason.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import mmap
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

RECORDED = Path(__file__).parent.parent / "tests" / "data" / "instruction_counts.json"
TOLERANCE = 0.03
CANNOT = 3  # exit code: nothing to compare
ROWS, COLUMNS = 256, 1024  # of the weights: enough that the call around them is a small part
# (instruction set, weight format, rows of the input)
CASES = [(isa, name, n) for isa, formats, counts in (
    ("avx2", ("Q4_0", "Q8_0"), (1, 8)), ("avx2", ("Q4_K", "Q6_K"), (1, 8, 64)), ("avx2", ("Q5_0", "Q4_1"), (1,)),
    ("avx2", ("BF16",), (1, 64)), ("scalar", ("Q4_K",), (1,)),
) for name in formats for n in counts]


def core_path() -> Path:
    """The native module that ``import tenth`` would use, found without importing anything."""
    spec = importlib.util.find_spec("tenth")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for path in Path(folder).glob("_core*.so"):
            return path
    raise SystemExit("tenth's native core is not built")


def compiler() -> str:
    """What the compiler wrote into the native module."""
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", core_path().read_bytes())
    return found.group(0).decode() if found else "unknown"


def count() -> dict[str, int]:
    """Instructions of each case, from a Python of our own under callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        # The measured interpreter starts uncounted (--instr-atstart=no), which makes it ten times faster.
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
                   sys.executable, "-S", __file__, "--inside", str(core_path()), *sys.path[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:  # an instruction of this CPU that this valgrind does not know, most likely
            print(f"cannot compare: callgrind failed: {done.stderr[-2000:]}")
            raise SystemExit(CANNOT)
        # One dump per case, numbered from 1.
        return {"/".join(map(str, case)): total(Path(f"{folder}/out.{number}"))
                for number, case in enumerate(CASES, 1)}


def total(path: Path) -> int:
    """Instructions in one dump."""
    found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"{path} has no totals")
    return int(found.group(1))


def inside(core: Path, paths: list[str]) -> None:
    """Runs under callgrind: every case once uncounted, once counted."""
    sys.path[:] = [*sys.path, *paths]
    import numpy as np

    spec = importlib.util.spec_from_file_location("_core", core)
    assert spec is not None, "the native module was found"
    assert spec.loader is not None, "the native module can be loaded"
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    request = client_request()
    blocks = {name: (weights, n_bytes) for name, _, weights, n_bytes, *_ in native.formats()}
    random = np.random.default_rng(1)
    for isa, name, n in CASES:
        weights, n_bytes = blocks[name]
        raw = random.integers(0, 255, (ROWS, COLUMNS // weights * n_bytes), np.uint8)
        x = random.standard_normal((n, COLUMNS), np.float32)
        packed = native.pack(isa, name, raw)
        product(native, isa, name, packed, x)  # the first call makes allocator and loader do their work
        for number in (START, ZERO):
            request(number)
        product(native, isa, name, packed, x)
        for number in (DUMP, STOP):
            request(number)


def product(native: ModuleType, isa: str, name: str, packed, x) -> None:
    native.product(isa, name, packed, ROWS, COLUMNS, x)


# callgrind.h: requests are ('C' << 24 | 'T' << 16) + number.
DUMP, ZERO, START, STOP = (0x43540000 + n for n in (0, 1, 4, 5))
# valgrind.h, amd64: rax points at {request, five arguments}, rdx is the answer outside valgrind; four rotations that
# undo each other and a no-op exchange are the sign that valgrind looks for.
CODE = bytes.fromhex("4889f8" "31d2" "48c1c703" "48c1c70d" "48c1c73d" "48c1c733" "4887db" "4889d0" "c3")
#                    mov rax,rdi; xor edx,edx; rol rdi,3; 13; 61; 51;               xchg rbx,rbx; mov rax,rdx; ret


def client_request():
    """A function that speaks to callgrind, made here so that no compiler or header is needed."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)

    def request(number: int, kept: mmap.mmap = memory) -> None:  # whoever has the function keeps its code mapped
        call(ctypes.cast((ctypes.c_uint64 * 6)(number), ctypes.c_void_p))

    return request


def changes(counts: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """What differs by more than the tolerance, in words; a case on one side alone differs too."""
    found = []
    for case in sorted(counts.keys() | recorded.keys()):
        now, before = counts.get(case, 0), recorded.get(case, 0)
        if not now or not before:
            found.append(f"{case}: {'not counted any more' if not now else 'never recorded'}")
        elif abs(now / before - 1) > TOLERANCE:
            found.append(f"{case}: {now:,} instructions, {before:,} recorded ({100 * (now / before - 1):+.1f} %)")
    return found


def reason_not_to(recorded: dict) -> str:
    """Why the recorded counts say nothing here; "" when they do."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        return "this CPU lacks AVX2"
    if recorded and recorded["compiler"] != compiler():
        return f"the counts were recorded with {recorded['compiler']}, this core was compiled with {compiler()}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help="write the counts instead of comparing them")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.inside:
        inside(Path(settings.inside[0]), settings.inside[1:])
        return 0
    recorded = {} if settings.record else json.loads(RECORDED.read_text())
    if reason := reason_not_to(recorded):
        print(f"cannot compare: {reason}")
        return CANNOT
    counts = count()
    if settings.record:
        RECORDED.write_text(json.dumps({"compiler": compiler(), "counts": counts}, indent=1) + "\n")
        print(f"recorded {len(counts)} counts in {RECORDED}")
        return 0
    found = changes(counts, recorded["counts"])
    print("\n".join(found) or f"{len(counts)} counts as recorded")
    if found:
        print("meant? python scripts/count_instructions.py --record")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
