"""Fuzzes the GGUF reader: any bytes give a model or ModelFileError, never another exception, a crash or a hang.

Two ways to run it, from the root of the project:

    PYTHONPATH=src python fuzz/fuzz_gguf.py --seconds 60 [--seed 1]
    PYTHONPATH=src python fuzz/fuzz_gguf.py --atheris [CORPUS] [-max_total_time=600 -rss_limit_mb=512]

The first needs nothing but tenth and NumPy. The second is guided by coverage, takes libFuzzer's options and needs
`pip install atheris` (3.0 has wheels for Python 3.11); the folder CORPUS gets the inputs that reached new code,
without one the seeds are made in a temporary folder. An input that breaks the promise is saved in the working folder
as crash-..., and is run again with `--file crash-...`.
The test suite runs the first way for a short time with a fixed seed (tests/weights/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tenth.errors import ModelFileError
from tenth.weights.describe import describe
from tenth.weights.gguf import ModelFile, read_header, read_tensor

_GETTERS = ("get_int", "get_float", "get_bool", "get_str", "get_strs", "get_ints", "get_floats", "get_bools")
_TEMPTING = (
    0,
    1,
    4,
    8,
    9,
    12,
    13,
    31,
    32,
    33,
    255,
    256,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**61 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_SLOW_SECONDS = 2.0


def run_one(data: bytes) -> bool:
    """Read ``data`` as a model file and use all of it; whether it was a model. Any other exception is a finding."""
    descriptor = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        started = time.perf_counter()
        try:
            use(read_header(f"/proc/self/fd/{descriptor}"))
            return True
        except ModelFileError as error:
            if not error.message:
                raise AssertionError("an error without a message") from error
            return False
        finally:
            if time.perf_counter() - started > _SLOW_SECONDS:
                raise AssertionError(f"took more than {_SLOW_SECONDS} s")
    finally:
        os.close(descriptor)


def use(model: ModelFile) -> None:
    """Ask for every value by every getter, and for every small tensor."""
    describe(model)
    for key in model.metadata.keys():  # noqa: SIM118 (not a dict)
        for getter in _GETTERS:
            with contextlib.suppress(ModelFileError):
                getattr(model.metadata, getter)(key)
        with contextlib.suppress(ModelFileError):
            model.metadata.value(key)
    for info in model.tensors.values():
        if info.n_weights <= 1 << 16:
            with contextlib.suppress(ModelFileError):
                if read_tensor(info).shape != info.shape:
                    raise AssertionError(f"{info} was read with another shape")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four changes: bits, bytes, tempting numbers, cuts, repeats."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed)) if changed else 0
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at : at + 8] = struct.pack("<Q", rng.choice(_TEMPTING))
        elif kind == 3:
            changed[at : at + 4] = struct.pack("<I", rng.choice(_TEMPTING) & 0xFFFFFFFF)
        elif kind == 4:
            del changed[at : at + rng.randint(1, 16)]
        elif kind == 5:
            changed[at:at] = changed[at : at + rng.randint(1, 64)]
        elif rng.randrange(4) == 0:
            del changed[at:]
    return bytes(changed)


def mutations(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """Endless mutated inputs; those that were still models are mutated further (see ``run_for``)."""
    rng = random.Random(seed)
    while True:
        yield mutate(rng.choice(seeds), rng)


def run_for(seconds: float, seed: int, seeds: list[bytes]) -> tuple[int, int]:
    """Mutate and run for a time: (runs, of which models). Raises what broke the promise, after saving the input."""
    pool, runs, models = list(seeds), 0, 0
    end = time.monotonic() + seconds
    for data in mutations(pool, seed):
        if time.monotonic() > end:
            break
        try:
            accepted = run_one(data)
        except BaseException:
            Path(f"crash-{seed}-{runs}").write_bytes(data)
            raise
        runs += 1
        models += accepted
        if accepted and len(pool) < 200:
            pool.append(data)
    return runs, models


def example_files() -> list[bytes]:
    """Small valid files to begin with: all value types, several tensor formats, and a split file's keys."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from weights.writer import U16, File, Tensor, small_model

    blocks = [Tensor(f"t{i}", (256, 2), i, bytes(2 * size)) for i, size in ((12, 144), (14, 210), (23, 136), (16, 66))]
    split = [("split.no", U16, 0), ("split.count", U16, 2), ("split.tensors.count", 5, 0)]
    return [f.build() for f in (small_model(), small_model(version=2, tensors=[]), File([], blocks), File(split))]


def _run_atheris(arguments: list[str]) -> None:
    import atheris

    atheris.instrument_all()
    if not [a for a in arguments if not a.startswith("-")]:
        folder = tempfile.mkdtemp(prefix="fuzz-gguf-")
        for number, data in enumerate(example_files()):
            Path(folder, f"seed{number}").write_bytes(data)
        arguments = [*arguments, folder]
    atheris.Setup([sys.argv[0], *arguments], lambda data: run_one(data) and None)
    atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, help="run this one input again")
    parser.add_argument("--atheris", action="store_true", help="coverage-guided; what follows goes to libFuzzer")
    options, others = parser.parse_known_args()
    if options.atheris:
        _run_atheris(others)
    elif options.file:
        print("a model" if run_one(options.file.read_bytes()) else "refused")
    else:
        runs, models = run_for(options.seconds, options.seed, example_files())
        print(f"{runs} inputs, {models} of them still models, no finding")


if __name__ == "__main__":
    main()
