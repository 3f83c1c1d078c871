"""Time and memory: a large vocabulary is cheap, and hostile files cost little before they are refused."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tenth.weights.gguf import read_header

from .writer import ARR, F32, I32, STR, U8, U64, File, array, text

TOKENS = 150_000


@pytest.fixture(scope="module")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzĠ", k=rng.randint(1, 12))) for _ in range(TOKENS)]
    merges = [f"{words[i]} {words[-i]}" for i in range(TOKENS)]
    keys = [
        ("tokenizer.ggml.tokens", ARR, (STR, words)),
        ("tokenizer.ggml.merges", ARR, (STR, merges)),
        ("tokenizer.ggml.scores", ARR, (F32, [0.0] * TOKENS)),
        ("tokenizer.ggml.token_type", ARR, (I32, [1] * TOKENS)),
    ]
    return File(keys).write(tmp_path_factory.mktemp("vocabulary") / "v.gguf")


def test_a_header_with_150_thousand_tokens_is_read_in_well_under_a_third_of_a_second(large_vocabulary: Path) -> None:
    seconds = []
    for _ in range(7):
        started = time.process_time()  # the file is in the page cache, and neighbours do not count
        read_header(large_vocabulary)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.2  # 0.03 to 0.07 s measured


# Runs in a process of its own and prints its peak of resident kB after the imports, the header, the vocabulary.
PEAK_MEMORY = """
import re, sys
from tenth.weights.gguf import read_header

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

peaks = [peak()]
metadata = read_header(sys.argv[1]).metadata
peaks.append(peak())
vocabulary = [metadata.get_strs("tokenizer.ggml." + part) for part in ("tokens", "merges")]
print(*peaks, peak(), *map(len, vocabulary))
"""


def test_a_large_vocabulary_takes_no_memory_until_it_is_asked_for(large_vocabulary: Path) -> None:
    command = [sys.executable, "-c", PEAK_MEMORY, str(large_vocabulary)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    before, header, whole, *counts = map(int, run.stdout.split())
    assert counts == [TOKENS, TOKENS]
    assert header - before < 4_000
    assert whole - before < 60_000


# Runs in a process of its own that may take 256 MB more than it has after its imports; prints one line per file.
READ_WITH_LIMITS = """
import json, resource, sys, time
from tenth.errors import ModelFileError
from tenth.weights.describe import describe
from tenth.weights.gguf import read_header

taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # address space
resource.setrlimit(resource.RLIMIT_AS, (taken + (256 << 20), -1))
for path in sys.argv[1:]:
    started, outcome = time.process_time(), "read"  # neighbours do not count
    try:
        model = read_header(path)
        describe(model)
        for key in model.metadata.keys():
            model.metadata.value(key)
    except ModelFileError:
        outcome = "refused"
    print(json.dumps([outcome, time.process_time() - started]))
"""


def typed_array(element: int, count: int, body: bytes = b"") -> bytes:
    return struct.pack("<I", ARR) + array(element, count, body)


def greedy_files() -> dict[str, bytes]:
    """Files that ask for as much as they can: counts beyond the file, and counts just inside every limit."""
    strings = 3 << 19
    return {
        "2^63 tensors": File(n_tensors=2**63).build(),
        "2^63 keys": File(n_keys=2**63, tail=bytes(1 << 20)).build(),
        "2^63 numbers": File([("k", typed_array(U64, 2**63))]).build(),
        "2^63 texts": File([("k", typed_array(STR, 2**63, bytes(1 << 20)))]).build(),
        "a text of 2^62 bytes": File([("k", struct.pack("<I", STR) + text("", 2**62))]).build(),
        "as many empty texts as are allowed": File([("k", typed_array(STR, strings, bytes(8 * strings)))]).build(),
        "as many texts as fit in one value": File(
            [("k", typed_array(STR, strings, text("éabcdefghijk") * strings))]
        ).build(),
        "as many nested arrays as are allowed": File([("k", typed_array(ARR, 65536, array(U8, 0) * 65536))]).build(),
        "a value longer than is read": File([("k", typed_array(U8, 40 << 20, bytes(40 << 20)))]).build(),
        "a long text of wide characters": File(
            [("k", struct.pack("<I", STR) + text(b"a" * (31 << 20) + "😀".encode()))]
        ).build(),
        "as many long keys as are allowed, and no end": File(
            [(f"{i:0900d}", struct.pack("<IB", U8, 0)) for i in range(65536)], n_tensors=1
        ).build(),
        "as many tensors as are allowed, and no data": b"GGUF" + struct.pack("<IQQ", 3, 65536, 0) + b"".join(
            text(f"{i:0255d}") + struct.pack("<IQIQ", 1, 1, 0, 32 * i) for i in range(65536)
        ),
    }  # fmt: skip


def test_greedy_files_are_dealt_with_in_2_seconds_and_256_megabytes(tmp_path: Path) -> None:
    paths = []
    cases = greedy_files()
    for number, data in enumerate(cases.values()):
        paths.append(tmp_path / f"{number}.gguf")
        paths[-1].write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", READ_WITH_LIMITS, *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    for path in paths:  # some 200 MB in all
        path.unlink()
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    outcomes = dict(zip(cases, found, strict=True))
    assert {case for case, (outcome, _) in outcomes.items() if outcome == "read"} == {
        "as many empty texts as are allowed", "as many texts as fit in one value",
        "as many nested arrays as are allowed", "a long text of wide characters",
    }  # fmt: skip
    assert {case: seconds for case, (_, seconds) in outcomes.items() if seconds > 2} == {}
