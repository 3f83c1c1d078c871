"""Fuzzes loading whole models: any change of a sound file gives text or a TenthError, never a crash or hang.

    PYTHONPATH=src python fuzz/fuzz_load.py --runs 1000 [--seed 1] tests/data/golden_*.gguf

Each run changes a few bytes or numbers of one of the files (half of the time in its header), loads it, asks for the
logits of a few tokens and for one token of chat. The number of the run is printed before it, so that the last line
names the one that crashed; run it again with ``--first N --runs 1``. Needs nothing but tenth.
The test suite runs it for a short time with a fixed seed (tests/test_bad_models.py).
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import struct
import tempfile
import time
from pathlib import Path

import tenth
from tenth.errors import ModelFileError, TenthError
from tenth.weights.gguf import read_header

TEMPTING = (0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 255, 256, 1 << 15, 1 << 16, 1 << 20, 2**31 - 1, 2**31, 2**32 - 1,
            2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
TEMPTING_FLOATS = (0.0, -1.0, 1e-30, 1e30, 3e38, float("inf"), float("nan"))
SLOW_SECONDS = 5.0


def mutate(data: bytes, data_start: int, rng: random.Random) -> bytes:
    """``data`` with one to three changes, in the header or in the weights."""
    changed = bytearray(data)
    in_header = rng.random() < 0.6
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(8, data_start - 8) if in_header else rng.randrange(data_start, len(data) - 8)
        kind = rng.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at : at + 4] = struct.pack("<I", rng.choice(TEMPTING) & 0xFFFFFFFF)
        elif kind == 3:
            changed[at : at + 8] = struct.pack("<Q", rng.choice(TEMPTING))
        elif kind == 4:
            changed[at : at + 4] = struct.pack("<f", rng.choice(TEMPTING_FLOATS))
        else:
            changed[at : at + 2] = bytes(reversed(changed[at : at + 2]))
    return bytes(changed)


def use(path: Path) -> str:
    """How loading and using the file ended, in a word."""
    try:
        with tenth.load(path, threads=1 + path.stat().st_size % 2, context=64) as model:
            model.logits([1, 2, 3])
            try:
                list(model.chat([{"role": "user", "content": "Hi"}], max_tokens=1))
            except TenthError:
                return "no chat"
        return "fine"
    except ModelFileError as error:
        if not error.hint:
            raise AssertionError(f"no hint: {error}") from error
        return "refused"
    except TenthError as error:
        return type(error).__name__


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--runs", type=int, default=100)
    args = parser.parse_args()
    faulthandler.enable()
    starts = [min(info.offset for info in read_header(file).tensors.values()) for file in args.files]
    seeds = [(file.read_bytes(), start) for file, start in zip(args.files, starts, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.first, args.first + args.runs):
            rng = random.Random(f"{args.seed} {number}")
            path = Path(folder) / "m.gguf"
            path.write_bytes(mutate(*rng.choice(seeds), rng))
            print(number, end=" ", flush=True)
            faulthandler.dump_traceback_later(10 * SLOW_SECONDS, exit=True)  # a hang
            started = time.process_time()
            print(use(path), flush=True)
            if time.process_time() - started > SLOW_SECONDS:
                raise AssertionError(f"took more than {SLOW_SECONDS} s")
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
