"""Logits are the same bits for every thread count, chunk size, batch, prefix reuse and instruction set."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tenth import _core
from tests.runtime.native import all_logits, golden, step_logits
from tests.runtime.native import open_golden as open_plain

# Behind a case's name: how it reads prompts, where that is not the default.
CASES = ["quantised", "kquants", "gemma3", "llama", "moe_quantised", "glm4moe", "deepseek2_quantised",
         "deepseek3_quantised", "deepseek2_quantised expanded", "deepseek3_quantised expanded", "qwen35_quantised",
         "qwen3next", "gpt_oss", "gpt_oss_quantised"]  # fmt: skip
KV = ["bf16", "f16", "q8_0"]


def open_golden(case, **settings):
    case, *prefill = case.split()
    return open_plain(case, **settings, **({"prefill": prefill[0]} if prefill else {}))


def tokens_of(case):
    return golden(case.split()[0])["tokens"]


def fits(case, kv_format):
    small = ("llama", "glm4moe", "qwen35_quantised", "qwen3next", "gpt_oss")  # their heads are no multiple of 32
    return kv_format != "q8_0" or case not in small


PAIRS = [(case, kv) for case in CASES for kv in KV if fits(case, kv)]


@pytest.mark.parametrize(("case", "kv_format"), PAIRS)
def test_threads_and_chunks_do_not_change_the_logits(case, kv_format):
    tokens = tokens_of(case)
    whole = all_logits(open_golden(case, kv_format=kv_format, threads=1), tokens)
    for threads in (1, 2, 3):
        runtime = open_golden(case, kv_format=kv_format, threads=threads)
        for chunk in (1, 5, 16, 17):
            assert np.array_equal(whole, all_logits(runtime, tokens, chunk)), (threads, chunk)


@pytest.mark.parametrize("case", ["quantised", "moe_quantised", "qwen35_quantised"])
def test_steps_of_many_rows_do_not_change_the_logits(case):
    """Rows enough for the kernels of many: whole tiles of gate and up joined at once, and a rest."""
    tokens = np.resize(golden(case)["tokens"], 70)
    few = all_logits(open_golden(case, threads=1), tokens, 17)
    for threads in (1, 2):
        runtime = open_golden(case, threads=threads, max_sequences=len(tokens))  # as many rows of logits
        for chunk in (48, 64, 70):
            assert np.array_equal(few, all_logits(runtime, tokens, chunk)), (threads, chunk)


@pytest.mark.parametrize(("case", "kv_format"), PAIRS)
def test_batch_mates_do_not_change_the_logits(case, kv_format):
    tokens = tokens_of(case)
    runtime = open_golden(case, kv_format=kv_format, threads=2)
    alone = all_logits(runtime, tokens)
    other = tokens[::-1]
    step_logits(runtime, [(tokens[:7], 0, [5, 1]), (other[:4], 0, [2, 3])])
    together = step_logits(runtime, [(other[4:9], 4, [2, 3]), (tokens[7:20], 7, [5, 1])])
    assert np.array_equal(together[5:], alone[7:20])


def test_a_reused_page_gives_the_logits_of_a_fresh_one():
    tokens = golden("quantised")["tokens"]
    assert len(tokens) > 33, "the golden must be longer than a page"
    runtime = open_golden("quantised")
    fresh = all_logits(runtime, tokens, pages=[4, 2])
    reused = step_logits(runtime, [(tokens[32:], 32, [4, 7])])  # page 4 as the first request left it
    assert np.array_equal(reused, fresh[32:])


def test_stale_pages_do_not_change_the_logits():
    tokens = golden("gemma3")["tokens"]
    runtime = open_golden("gemma3")
    first = all_logits(runtime, tokens)
    all_logits(runtime, tokens[::-1])
    assert np.array_equal(all_logits(runtime, tokens, chunk=3), first)


HASH = """
import hashlib
from tests.runtime.native import all_logits
from tests.runtime.test_same_bits import open_golden, tokens_of
digest = hashlib.sha256()
for case, kv in {pairs}:
    for chunk in (18, 40):
        digest.update(all_logits(open_golden(case, kv_format=kv), tokens_of(case), chunk=chunk).tobytes())
print(digest.hexdigest())
"""


def logits_hash(isa):
    environment = {**os.environ, "TENTH_ISA": isa, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", HASH.format(pairs=PAIRS)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_every_instruction_set_gives_the_same_logits():
    hashes = {isa: logits_hash(isa) for isa in _core.kernel_isas()}
    assert len(hashes["scalar"].strip()) == hashlib.sha256().digest_size * 2
    assert len(set(hashes.values())) == 1, hashes
