"""Every engine setting once: default, unit, one sentence. Command-line flags and reference docs are made from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from tenth.errors import RequestError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
MOST_MEMORY = 1 << 50
CHUNK_TOKENS = 256  # of a prompt, in one step, where nothing speaks for more


def parse_bytes(text: Any, what: str = "--memory") -> int:
    """``"8GB"`` (10^9) or ``"8GiB"`` (2^30), ``"500MB"``, plain bytes -> bytes; 0 is 0. Raises RequestError."""
    if isinstance(text, str):
        found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?I?)B?\s*", text.upper())
        if found and found[2] in _UNITS:
            text = int(float(found[1]) * _UNITS[found[2]])
    if isinstance(text, bool) or not isinstance(text, int) or not 0 <= text <= MOST_MEMORY:
        raise RequestError(f"{what} is {text!r}, expected an amount of memory", "for example 8GB, 8GiB or 500MB")
    return text


def _setting(default: Any, help: str, **how: Any) -> Any:
    return field(default=default, metadata={"help": help, **how})


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up. Frozen: an engine never changes its settings. Raises RequestError for a bad value."""

    threads: int = _setting(0, "Worker threads; 0 means one per physical core.")
    context_tokens: int = _setting(0, "Longest sequence in tokens; 0 means the model's own limit, at most 8192.")
    kv_format: str = _setting(
        "f16", "How keys and values are stored: f16, bf16 (coarser; attention in long prompts is nearly twice as fast "
        "on CPUs with AVX-512 BF16), q8_0 (half the memory) or f32 (exact).")
    prefill: str = _setting(
        "absorbed", "How prompts are read by models with latent attention (DeepSeek's): absorbed, or expanded (faster "
        "for long prompts, slower for few tokens behind a long known beginning; rounds otherwise). Others: no effect.",
        metavar="HOW")
    chunk_tokens: int = _setting(
        0, "Most prompt tokens computed in one step; 0 means 256, or up to 2048 where experts are read from the disk.")
    max_sequences: int = _setting(8, "Most sequences that generate in one step.")
    kv_tokens: int = _setting(0, "Tokens the KV cache holds over all sequences; 0 means one full context.")
    prefix_reuse: bool = _setting(True, "Keep finished pages and reuse them for prompts with the same beginning.")
    memory_bytes: int = _setting(
        0, "Most memory that everything may take, such as 8GB or 8GiB; experts that do not fit are read from the disk "
        "when they are needed. 0 means TENTH_MEMORY, or what is free.", parser=parse_bytes, metavar="SIZE")
    disk: str = _setting("auto", "How experts are read from the disk: direct, buffered, or auto (the faster).")
    predict_experts: bool = _setting(True, "Read ahead the experts that the next layer will probably use; same text.")
    lossy_drop: float = _setting(
        0.0, "CHANGES THE TEXT: while generating, do without experts that are not in memory and weigh less than this "
        "share, at most 1, of the mean. 0 is exact.", metavar="SHARE")
    lossy_prefer: float = _setting(
        0.0, "CHANGES THE TEXT: while generating, choose experts that are in memory as if they scored higher by this "
        "share. 0 is exact.", metavar="SHARE")
    speculate: bool = _setting(
        True, "Guess tokens where that is faster: from the request's own text, and by the block for it that a model's "
        "file may have; same answers.")

    note_experts: bool = _setting(False, "Count which experts each answer uses, for who looks inside it.")

    def __post_init__(self) -> None:
        bounds = {"threads": (0, 1024), "context_tokens": (0, 1 << 24), "chunk_tokens": (0, 8192),
                  "max_sequences": (1, 1024), "kv_tokens": (0, 1 << 28)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise RequestError(f"setting {name} is {value!r}, expected a whole number from {low} to {high}")
        object.__setattr__(self, "memory_bytes", parse_bytes(self.memory_bytes, "setting memory_bytes"))
        for name, most in (("lossy_drop", 1.0), ("lossy_prefer", 1000.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise RequestError(f"setting {name} is {value!r}, expected a number from 0 to {most:g}")
        if self.disk not in ("auto", "direct", "buffered"):
            raise RequestError(f"setting disk is {self.disk!r}, expected auto, direct or buffered")
        for name in ("prefix_reuse", "predict_experts", "speculate", "note_experts"):
            if not isinstance(value := getattr(self, name), bool):
                raise RequestError(f"setting {name} is {value!r}, expected True or False")
        if self.prefill not in ("absorbed", "expanded"):
            raise RequestError(f"setting prefill is {self.prefill!r}, expected absorbed or expanded")
        if self.kv_format not in ("bf16", "f16", "q8_0", "f32"):
            raise RequestError(f"setting kv_format is {self.kv_format!r}, expected bf16, f16, q8_0 or f32")


def settings() -> list[tuple[str, Any, str]]:
    """(name, default, sentence) of every setting, in order: what the reference docs print."""
    return [(f.name, f.default, f.metadata["help"]) for f in fields(EngineConfig)]
