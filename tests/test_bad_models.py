"""Bad model files from end to end: whatever is wrong, ``tenth.load`` and ``tenth run`` refuse it soon and in order.

Sound files (the goldens) are taken apart, changed in one place and written again. Headers by themselves are tested in
tests/weights, templates in tests/text; here the question is what a user sees.
"""

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tenth as package
from tenth.config import EngineConfig
from tenth.errors import ModelFileError, RequestError, ResourceError
from tenth.loader import open_runtime
from tenth.models import ARCHITECTURES
from tenth.weights.gguf import read_header

from .cli.conftest import tenth  # noqa: F401 (a fixture: one door into the command line)
from .weights.writer import ARR, BOOL, F32, F64, I32, STR, U8, U32, U64, Tensor, parse

DATA = Path(__file__).parent / "data"
CHAT = (DATA / "golden_chat.gguf").read_bytes()
MESSAGES = [{"role": "user", "content": "Hi"}]
NAN, INFINITY = float("nan"), float("inf")


# ---- changes to a file


def setting(key, type_id, value):
    """The key with this value, in place of its own or added."""

    def edit(file):
        file.keys = [entry for entry in file.keys if entry[0] != key] + [(key, type_id, value)]

    return edit


def llama(key, type_id, value):
    return setting(f"llama.{key}", type_id, value)


def tokenizer(key, type_id, value):
    return setting(f"tokenizer.ggml.{key}", type_id, value)


def without_key(key):
    def edit(file):
        file.keys = [entry for entry in file.keys if entry[0] != key]

    return edit


def without_tensor(name):
    def edit(file):
        file.tensors = [tensor for tensor in file.tensors if tensor.name != name]

    return edit


def with_tensor(*args):
    return lambda file: file.tensors.append(Tensor(*args))


def tensor_of(file, name):
    return next(tensor for tensor in file.tensors if tensor.name == name)


def reshaped(name, dims):
    def edit(file):
        tensor = tensor_of(file, name)
        tensor.dims = dims

    return edit


def stored_as(name, type_id, n_bytes):
    def edit(file):
        tensor = tensor_of(file, name)
        tensor.type_id, tensor.data = type_id, bytes(n_bytes)

    return edit


def with_number(name, at, value, layout="<f"):
    """The number at byte ``at`` of a tensor's data set to ``value``."""

    def edit(file):
        tensor = tensor_of(file, name)
        tensor.data = tensor.data[:at] + struct.pack(layout, value) + tensor.data[at + struct.calcsize(layout) :]

    return edit


def list_of(key, change):
    """A list of the tokenizer, changed."""

    def edit(file):
        _, type_id, (element, items) = next(entry for entry in file.keys if entry[0] == f"tokenizer.ggml.{key}")
        tokenizer(key, type_id, (element, change(items)))(file)

    return edit


def both(*edits):
    return lambda file: [edit(file) for edit in edits]


def template(text):
    return setting("tokenizer.chat_template", STR, text)


LOOP = "{% for a in range(9999) %}" * 3 + "{% endfor %}" * 3
# Case: (change to the chat golden, what the message has to say). Refused by tenth.load.
BAD_FILES = {
    "an architecture that is not supported": (
        setting("general.architecture", STR, "mamba"),
        "'mamba' is not supported"),
    "an architecture of a megabyte": (setting("general.architecture", STR, "x" * (1 << 20)), "is not supported|x …"),
    "an architecture that is a number": (setting("general.architecture", U32, 1), "of type int, expected a text"),
    "no architecture": (without_key("general.architecture"), "general.architecture is missing"),
    "another architecture's name": (setting("general.architecture", STR, "qwen3"), "qwen3.* is missing"),
    "no layers": (llama("block_count", U32, 0), "block_count is 0, expected at least 1"),
    "a layer too many": (llama("block_count", U32, 3), r"blk.2.* is missing"),
    "a layer too few": (llama("block_count", U32, 1), r"no place for tensor blk.1"),
    "2^32-1 layers": (llama("block_count", U32, 2**32 - 1), "block_count is 4294967295, expected"),
    "2^63 layers": (llama("block_count", U64, 2**63), "block_count is 9223372036854775808, expected"),
    "layers as a float": (llama("block_count", F32, 2.0), "of type float, expected a whole number"),
    "layers as a text": (llama("block_count", STR, "2"), "of type str, expected a whole number"),
    "layers as an array": (llama("block_count", ARR, (U32, [2, 2])), "of type array of u32, expected a whole number"),
    "layers as a bool": (llama("block_count", BOOL, 1), "of type bool, expected a whole number"),
    "a context of 0": (llama("context_length", U32, 0), "context_length is 0, expected at least 1"),
    "a context of 2^63": (llama("context_length", U64, 2**63), "context_length is 9223372036854775808, expected"),
    "a negative context": (llama("context_length", I32, -1), "context_length is -1, expected"),
    "eps 0": (llama("attention.layer_norm_rms_epsilon", F32, 0.0), "epsilon is 0.0, expected"),
    "eps NaN": (llama("attention.layer_norm_rms_epsilon", F32, NAN), "epsilon is nan"),
    "eps infinite": (llama("attention.layer_norm_rms_epsilon", F64, INFINITY), "epsilon is inf"),
    "no eps": (without_key("llama.attention.layer_norm_rms_epsilon"), "epsilon is missing"),
    "no heads": (llama("attention.head_count", U32, 0), "head_count is 0, expected at least 1"),
    "heads that do not divide": (llama("attention.head_count", U32, 7), "embedding_length 64 is not a multiple"),
    "too few heads for the tensors": (
        llama("attention.head_count", U32, 2),
        "has shape .* expected|more than the head"),
    "key heads that do not divide": (llama("attention.head_count_kv", U32, 3), "not a multiple of .*head_count_kv 3"),
    "no key heads": (llama("attention.head_count_kv", U32, 0), "head_count_kv is 0, expected at least 1"),
    "more key heads than heads": (llama("attention.head_count_kv", U32, 8), "not a multiple of .*head_count_kv 8"),
    "other key heads than the tensors": (llama("attention.head_count_kv", U32, 1), "attn_k.weight has shape"),
    "odd heads": (
        both(llama("attention.key_length", U32, 15), without_key("llama.rope.dimension_count")),
        "even number"),
    "huge heads": (llama("attention.key_length", U32, 1 << 20), "key_length is 1048576, expected"),
    "values of other length": (llama("attention.value_length", U32, 8), "key_length 16 differs from .*value_length 8"),
    "more rotated dimensions than the head": (llama("rope.dimension_count", U32, 32), "more than the head's 16"),
    "odd rotated dimensions": (llama("rope.dimension_count", U32, 7), "is 7, expected an even number|got 7"),
    "a rotary base of 0": (llama("rope.freq_base", F32, 0.0), "freq_base is 0.0, expected more than 1"),
    "a rotary base of NaN": (llama("rope.freq_base", F32, NAN), "freq_base is nan"),
    "unknown scaling": (llama("rope.scaling.type", STR, "longrope"), "'longrope', expected none, linear or yarn"),
    "a scaling factor of 0": (llama("rope.scaling.factor", F32, 0.0), "factor is 0.0, expected"),
    "an embedding of 2^32-1": (llama("embedding_length", U32, 2**32 - 1), "embedding_length is 4294967295, expected"),
    "a wrong embedding": (llama("embedding_length", U32, 128), "has shape .* expected"),
    "a wrong feed-forward": (llama("feed_forward_length", U32, 96), "has shape .* expected"),
    "a wrong vocabulary": (llama("vocab_size", U32, 274), "vocab_size is 274, but token_embd.weight has 275 rows"),
    "experts": (llama("expert_count", U32, 8), "llama.expert_used_count is missing"),
    "a missing matrix": (without_tensor("blk.1.ffn_up.weight"), r"blk.1.ffn_up.weight is missing"),
    "a missing norm": (without_tensor("output_norm.weight"), "output_norm.weight is missing"),
    "no tensors": (lambda file: file.tensors.clear(), r"is missing|no tensors"),
    "an extra tensor": (with_tensor("surprise.weight", (8,), 0, bytes(32)), "no place for tensor surprise.weight"),
    "a turned matrix": (reshaped("blk.0.attn_k.weight", (32, 64)), r"shape \[64, 32\], expected \[32, 64\]"),
    "a matrix of one dimension": (reshaped("blk.0.attn_k.weight", (2048,)), r"shape \[2048\], expected"),
    "a matrix of four dimensions": (
        reshaped("blk.0.attn_k.weight", (64, 32, 1, 1)),
        r"shape \[1, 1, 32, 64\], expected"),
    "a norm of two dimensions": (reshaped("blk.0.attn_norm.weight", (64, 1)), r"shape \[1, 64\], expected \[64\]"),
    "too few token rows": (
        both(stored_as("token_embd.weight", 0, 64 * 4 * 10), reshaped("token_embd.weight", (64, 10)),
             without_key("llama.vocab_size"), without_tensor("output.weight")),
        "tokenizer.ggml.tokens has 275 tokens, but token_embd.weight has 10 rows"),
    "a format that is not supported": (
        stored_as("blk.0.ffn_up.weight", 27, 64 * 64 * 8), r"I64 \(tensor 'blk.0.ffn_up.weight'\), not supported"),
    "an unknown format": (stored_as("blk.0.ffn_up.weight", 77, 64), "has the format 77, which is unknown"),
    "a NaN in a matrix": (
        with_number("blk.1.ffn_up.weight", 4 * (64 * 9 + 3), NAN), "blk.1.ffn_up.weight .*: in row 9, weight 3 is"),
    "an infinity in the token table": (
        with_number("token_embd.weight", 4 * 64 * 274, INFINITY), "token_embd.weight .*: in row 274, weight 0 is"),
    "a NaN in a norm": (
        with_number("blk.1.ffn_norm.weight", 8, NAN),
        "blk.1.ffn_norm.weight: number 2 is nan, expected"),
    "more tokens than rows": (list_of("tokens", lambda tokens: [*tokens, b"extra"]), "tokens has 276 tokens, but"),
    "fewer tokens than rows": (list_of("tokens", lambda tokens: tokens[:-1]), "tokens has 274 tokens, but"),
}  # fmt: skip
# Found when text is first needed, so that a model without a usable tokenizer can still be given ids.
BAD_TEXTS = {
    "no tokenizer": (without_key("tokenizer.ggml.model"), "no tokenizer"),
    "an unknown tokenizer": (tokenizer("model", STR, "abacus"), "'abacus', expected one of"),
    "an unknown pre-tokenizer": (tokenizer("pre", STR, "nobody"), "nobody"),
    "types too few": (list_of("token_type", lambda types: types[:-1]), "token_type has 274 entries, expected 275"),
    "types too many": (list_of("token_type", lambda types: [*types, 1]), "token_type has 276 entries, expected 275"),
    "types that are texts": (tokenizer("token_type", ARR, (STR, ["1"] * 275)), "array of str, expected"),
    "an end token out of range": (tokenizer("eos_token_id", U32, 275), "eos_token_id is 275, expected 0 to 274"),
    "a begin token of 2^63": (tokenizer("bos_token_id", U64, 2**63), "bos_token_id is 9223372036854775808, expected"),
    "a begin token that is a text": (tokenizer("bos_token_id", STR, "<s>"), "of type str, expected a whole number"),
    "tokens that are numbers": (tokenizer("tokens", ARR, (U32, list(range(275)))), "array of u32, expected"),
    "a merge of one part": (list_of("merges", lambda merges: [*merges, b"lonely"]), "merges holds 'lonely'"),
    "a merge of unknown tokens": (list_of("merges", lambda merges: [*merges, b"qqq zzz"]), "merges does not fit"),
    "merges that are numbers": (tokenizer("merges", ARR, (U8, [1, 2])), "array of u8, expected"),
    "no merges": (without_key("tokenizer.ggml.merges"), "merges is missing"),
    "tokens that are not UTF-8": (list_of("tokens", lambda tokens: [*tokens[:-1], b"\xff\xfe"]), "not UTF-8"),
    "scores too few": (
        both(tokenizer("model", STR, "llama"), tokenizer("scores", ARR, (F32, [0.0] * 9))), "scores has 9 entries"),
    "scores that are NaN": (
        both(tokenizer("model", STR, "llama"), tokenizer("scores", ARR, (F32, [NAN] * 275))), "expected 275 finite"),
    "a template that cannot be read": (template("{% for %}"), "chat template cannot be read, line 1"),
    "a template without an end": (template(LOOP), "chat template was stopped"),
    "a template that grows without end": (
        template("{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}"),
        "stopped"),
    "a template that nests": (template("{% if 1 %}" * 5000 + "{% endif %}" * 5000), "nests too deeply|stopped|be read"),
    "a template that calls itself": (template("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), "stopped|be read"),
    "a template that is a number": (setting("tokenizer.chat_template", U32, 1), "of type int, expected a text"),
}  # fmt: skip
# The template is sound but refuses or fails on these messages: the request's error.
BAD_REQUESTS = {
    "a template that refuses": (template("{{ raise_exception('never') }}"), "refuses this conversation: never"),
    "a template that escapes": (template("{{ ''.__class__.__mro__ }}"), "chat template"),
    "a template that divides by zero": (template("{{ 1 // 0 }}"), "fails on this conversation"),
}


def written(edit, folder, name="chat"):
    file = parse((DATA / f"golden_{name}.gguf").read_bytes())
    edit(file)
    return file.write(folder / "bad.gguf")


def chat(path):
    with package.load(path, threads=1) as model:
        return "".join(model.chat(MESSAGES, max_tokens=1))


def expect_refusal(path, expected, run, kind=ModelFileError, use=chat):
    """Refused by the API within 2 s of CPU time with a hint, and by the command line in two lines."""
    started = time.process_time()
    with pytest.raises(kind, match=expected) as raised:
        use(path)
    assert time.process_time() - started < 2
    assert raised.value.hint
    assert len(str(raised.value)) < 2000
    result = run("run", path, "Hi", "--threads", "1")
    assert (result.code, result.out) == (kind.exit_code, "")
    what, hint = result.err.splitlines()
    assert what.startswith("tenth: ")
    assert hint.startswith("hint: ")
    assert "Traceback" not in result.err


WRITTEN_AGAIN = ["chat", "quantised", "kquants", "llama_tied_scaled", "gemma3", "qwen3", "deepseek2_lite"]


@pytest.mark.parametrize("name", WRITTEN_AGAIN)
def test_taking_a_file_apart_and_writing_it_again_changes_nothing(name, tmp_path):
    path = written(lambda file: None, tmp_path, name)
    assert path.read_bytes() == (DATA / f"golden_{name}.gguf").read_bytes()


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_at_load(case, tenth, tmp_path):  # noqa: F811
    edit, expected = BAD_FILES[case]
    expect_refusal(written(edit, tmp_path), expected, tenth, use=lambda path: package.load(path, threads=1))


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_bad_tokenizer_or_template_is_refused_at_the_first_message(case, tenth, tmp_path):  # noqa: F811
    edit, expected = BAD_TEXTS[case]
    expect_refusal(written(edit, tmp_path), expected, tenth)


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_template_that_refuses_the_messages_is_the_request_s_error(case, tenth, tmp_path):  # noqa: F811
    edit, expected = BAD_REQUESTS[case]
    expect_refusal(written(edit, tmp_path), expected, tenth, kind=RequestError)


def test_an_unsupported_architecture_or_format_is_refused_with_the_list(tmp_path):
    with pytest.raises(ModelFileError) as raised:
        package.load(written(setting("general.architecture", STR, "mamba"), tmp_path))
    assert raised.value.hint == f"supported are {', '.join(ARCHITECTURES)}"
    with pytest.raises(ModelFileError) as raised:
        package.load(written(stored_as("blk.0.ffn_up.weight", 27, 64 * 64 * 8), tmp_path))
    assert "F32, F16, BF16, Q4_0" in raised.value.hint


SCALED = {  # golden: formats of the tensors in it whose scale is at some byte of the block
    "quantised": {"F16": 0, "BF16": 0, "Q4_0": 0, "Q4_1": 2, "Q5_0": 0, "Q5_1": 2, "Q8_0": 0},
    "kquants": {"Q2_K": 82, "Q3_K": 108, "Q4_K": 2, "Q5_K": 0, "Q6_K": 208},
}
BLOCKS = {1: "F16", 30: "BF16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
          12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}  # fmt: skip


@pytest.mark.parametrize("name", SCALED)
def test_a_scale_that_is_not_finite_is_refused_in_every_format(name, tmp_path):
    seen = set()
    for tensor in parse((DATA / f"golden_{name}.gguf").read_bytes()).tensors:
        if tensor.type_id not in BLOCKS:
            continue
        kind = BLOCKS[tensor.type_id]
        seen.add(kind)
        path = written(with_number(tensor.name, SCALED[name][kind], 0x7FC0, "<H"), tmp_path, name)
        expected = rf"tensor {re.escape(tensor.name)} of .*: in row 0, .* infinite or not"
        with pytest.raises(ModelFileError, match=expected):
            open_runtime(read_header(path), EngineConfig(threads=2))
    assert seen == SCALED[name].keys()


@pytest.mark.parametrize("row", [0, 35])  # one of keys, which are turned as the file is read, and one of values
def test_so_it_is_in_a_tensor_that_two_weights_are_made_of(row, tmp_path):
    row_bytes = 64 // 32 * 22  # Q5_0
    edit = with_number("blk.1.attn_kv_b.weight", row * row_bytes, 0x7FC0, "<H")
    with pytest.raises(ModelFileError, match=r"tensor blk.1.attn_kv_b.weight\S* of .*: in row .* infinite or not"):
        open_runtime(read_header(written(edit, tmp_path, "deepseek2_quantised")), EngineConfig(threads=2))


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INFINITY])
def test_rope_factors_that_are_no_positive_numbers_are_refused(value, tmp_path):
    path = written(with_number("rope_freqs.weight", 12, value), tmp_path, "llama_tied_scaled")
    with pytest.raises(ModelFileError, match=r"rope_freqs.weight: number 3 is .*, expected a positive number"):
        open_runtime(read_header(path), EngineConfig(threads=1))


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("blk.0.ssm_a", NAN, "expected a number that is not positive"),
    ("blk.0.ssm_a", 1.0, "number 1 is 1.0, expected a number that is not positive"),
    ("blk.1.ssm_dt.bias", INFINITY, "number 1 is inf, expected a finite number"),
    ("blk.2.ssm_conv1d.weight", NAN, "number 1 is nan, expected a finite number"),
])
def test_numbers_that_would_spoil_a_state_are_refused(name, value, expected, tmp_path):
    path = written(with_number(name, 4, value), tmp_path, "qwen35_quantised")
    with pytest.raises(ModelFileError, match=rf"tensor {name}: .*{expected}"):
        open_runtime(read_header(path), EngineConfig(threads=1))


def test_a_state_that_no_memory_holds_is_refused_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("tenth.placing.slot_bytes", lambda program: 1 << 50)
    path = DATA / "golden_qwen35_quantised.gguf"
    with pytest.raises(ResourceError, match="GB of recurrent state") as refused:
        open_runtime(read_header(path), EngineConfig(threads=1))
    assert "--max-sequences" in refused.value.hint


def test_the_first_of_several_bad_rows_is_named_whatever_the_threads(tmp_path):
    def edit(file):
        tensor = tensor_of(file, "token_embd.weight")
        data = bytearray(256 * (1 << 15))  # eight pieces of a megabyte
        for row in (9, 5000, 20000, 32767):
            data[256 * row : 256 * row + 4] = struct.pack("<f", NAN)
        tensor.dims, tensor.data = (64, 1 << 15), bytes(data)

    forgets = [without_key(key) for key in ("llama.vocab_size", "tokenizer.ggml.tokens")]
    path = written(both(edit, *forgets, without_tensor("output.weight")), tmp_path)
    for threads in (1, 2, 4) * 3:
        with pytest.raises(ModelFileError, match="in row 9, weight 0 is"):
            open_runtime(read_header(path), EngineConfig(threads=threads))


# ---- files cut short, replaced, or no files


@pytest.mark.parametrize("name", ["chat", "quantised", "kquants", "gemma3", "deepseek2_quantised"])
def test_a_file_cut_anywhere_is_refused(name, tmp_path):
    whole = (DATA / f"golden_{name}.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole)
    started = time.process_time()
    lengths = {0, 1, 4, 20, 24, 100, 999, *range(0, len(whole), len(whole) // 40), len(whole) - 33, len(whole) - 1}
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        with pytest.raises(ModelFileError) as raised:
            open_runtime(read_header(path), EngineConfig(threads=1))
        assert raised.value.hint, f"cut at {length}"
    assert time.process_time() - started < 4


def cut_later(path):
    os.truncate(path, path.stat().st_size - 5000)


def replace_later(path):
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def remove_later(path):
    path.unlink()


def become_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut_later, "the file ends|became shorter|was changed"),
        (replace_later, "the file was changed while it was read"),
        (remove_later, "cannot (be opened|read)"),
        (become_a_folder, "cannot|folder|ends|directory"),
    ],
)
def test_a_file_that_changes_between_header_and_weights_is_refused(change, expected, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(CHAT)

    header = read_header(path)
    change(path)
    with pytest.raises(ModelFileError, match=expected):
        open_runtime(header, EngineConfig(threads=2))


def test_what_is_no_file_is_refused_without_waiting(tenth, tmp_path):  # noqa: F811
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("hello")
    refusals = {"pipe": "pipe or device", "folder": "folder", "empty": "empty", "text": "not a GGUF"}
    for name, expected in refusals.items():
        started = time.monotonic()
        with pytest.raises(ModelFileError, match=expected):
            open_runtime(read_header(tmp_path / f"{name}.gguf"), EngineConfig())
        result = tenth("run", tmp_path / f"{name}.gguf", "Hi")
        assert result.code in (2, 3), result
        assert result.err.startswith("tenth: ")
        assert 1 <= len(result.err.splitlines()) <= 2
        assert time.monotonic() - started < 60  # a busy machine; waiting for the pipe would last for ever


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(CHAT)
    path.chmod(0)
    with pytest.raises(ModelFileError, match="cannot be opened: Permission denied"):
        open_runtime(read_header(path), EngineConfig())


# ---- memory

# Runs in a process of its own: for each file prints how it ended, the CPU seconds, and by how many MB the peak of
# resident memory rose.
LOAD_EACH = """
import json, re, sys, time
import tenth
from tenth.errors import TenthError

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

def load(path):
    with tenth.load(path, threads=2) as model:
        list(model.chat([{"role": "user", "content": "Hi"}], max_tokens=1))
        return "loaded"

load(sys.argv[1])
for path in sys.argv[2:]:
    before, started = peak_mb(), time.process_time()
    try:
        outcome = load(path)
    except TenthError as error:
        outcome = type(error).__name__
    print(json.dumps([outcome, time.process_time() - started, peak_mb() - before]))
"""


def many_layers(n):
    def edit(file):
        llama("block_count", U32, n)(file)
        llama("embedding_length", U32, 4)(file)
        llama("feed_forward_length", U32, 4)(file)
        llama("rope.dimension_count", U32, 2)(file)
        llama("attention.head_count", U32, 1)(file)
        llama("attention.head_count_kv", U32, 1)(file)
        row = struct.pack("<4f", 1, 1, 1, 1)
        matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        file.tensors = [Tensor("token_embd.weight", (4, 275), 0, row * 275), Tensor("output_norm.weight", (4,), 0, row)]
        for i in range(n):
            file.tensors += [Tensor(f"blk.{i}.{name}_norm.weight", (4,), 0, row) for name in ("attn", "ffn")]
            file.tensors += [Tensor(f"blk.{i}.{name}.weight", (4, 4), 0, row * 4) for name in matrices]
        with_number(f"blk.{n - 1}.ffn_down.weight", 60, NAN)(file)  # the last number of the file

    return edit


def test_greedy_files_are_refused_in_2_seconds_and_256_megabytes(tmp_path):
    greedy = {
        "512 layers, then a NaN": many_layers(512),
        "more layers than are accepted": many_layers(513),
        "a template of 30 MB": template("{{ a }}" * (30 << 20 >> 3)),
        "a template as long as is accepted": template("{{ a }}" * ((1 << 18) // 7 - 1) + "{{ 1 % }}"),
        "a name of 30 MB": setting("general.architecture", STR, "x" * (30 << 20)),
        "a million merges": list_of("merges", lambda merges: merges * (1_000_000 // len(merges)) + [b"bad"]),
        "a wide feed-forward": both(
            llama("feed_forward_length", U32, 1 << 20), reshaped("blk.0.ffn_up.weight", (64, 1 << 20))),
    }  # fmt: skip
    paths = []
    for number, edit in enumerate(greedy.values()):
        file = parse(CHAT)
        edit(file)
        paths.append(file.write(tmp_path / f"{number}.gguf"))
    run = subprocess.run([sys.executable, "-c", LOAD_EACH, DATA / "golden_chat.gguf", *paths], capture_output=True,
                         text=True, timeout=120, env=os.environ | {"TENTH_HOME": str(tmp_path)})  # fmt: skip
    assert run.returncode == 0, run.stderr
    for case, line in zip(greedy, run.stdout.splitlines(), strict=True):
        outcome, seconds, megabytes = json.loads(line)
        assert (outcome, seconds < 2, megabytes < 256) == ("ModelFileError", True, True), (case, line)


def test_too_little_address_space_is_a_resource_error_and_no_abort(tmp_path):
    code = """
import resource, sys
import tenth
from tenth.errors import ResourceError
tenth.load(sys.argv[1], threads=4, context=256).close()  # everything is imported
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for extra in (1, 8, 64, 260, 300):
    resource.setrlimit(resource.RLIMIT_AS, (taken + (extra << 20), -1))
    try:
        tenth.load(sys.argv[1], threads=4, context=256).close()
    except (ResourceError, MemoryError) as error:
        print(type(error).__name__)
"""
    run = subprocess.run([sys.executable, "-c", code, DATA / "golden_chat.gguf"], capture_output=True, text=True,
                         timeout=60, env=os.environ | {"TENTH_HOME": str(tmp_path)})  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "ResourceError" in run.stdout


# ---- anything


def test_changed_files_give_text_or_an_error_and_never_a_crash(tmp_path):
    script = Path(__file__).parents[1] / "fuzz" / "fuzz_load.py"
    files = [DATA / f"golden_{name}.gguf" for name in ("chat", "quantised", "kquants", "gemma3_scaled", "llama_bias")]
    run = subprocess.run([sys.executable, script, "--runs", "120", "--seed", "7", *files], capture_output=True,
                         text=True, timeout=120, env=os.environ | {"TENTH_HOME": str(tmp_path)})  # fmt: skip
    assert run.returncode == 0, run.stdout[-100:] + run.stderr
    outcomes = [line.split(maxsplit=1)[1] for line in run.stdout.splitlines()]
    assert len(outcomes) == 120
    assert outcomes.count("refused") > 30
    assert outcomes.count("fine") + outcomes.count("no chat") > 10
