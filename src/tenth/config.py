"""Every engine setting once: default, unit, one sentence. Command-line flags and reference docs are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from tenth.errors import RequestError


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up. Frozen: an engine never changes its settings. Raises RequestError for a bad value."""

    threads: int = _setting(0, "Worker threads; 0 means one per physical core.")
    context_tokens: int = _setting(0, "Longest sequence in tokens; 0 means the model's own limit, at most 8192.")
    kv_format: str = _setting("f16", "How keys and values are stored: f16, q8_0 (half the memory) or f32 (exact).")
    chunk_tokens: int = _setting(256, "Most prompt tokens computed in one step.")
    max_sequences: int = _setting(8, "Most sequences that generate in one step.")
    kv_tokens: int = _setting(0, "Tokens the KV cache holds over all sequences; 0 means one full context.")
    prefix_reuse: bool = _setting(True, "Keep finished pages and reuse them for prompts with the same beginning.")
    speculate: bool = _setting(True, "Guess tokens from the request's own text where that is faster; same answers.")

    def __post_init__(self) -> None:
        bounds = {"threads": (0, 1024), "context_tokens": (0, 1 << 24), "chunk_tokens": (1, 8192),
                  "max_sequences": (1, 1024), "kv_tokens": (0, 1 << 28)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise RequestError(f"setting {name} is {value!r}, expected a whole number from {low} to {high}")
        for name in ("prefix_reuse", "speculate"):
            if not isinstance(value := getattr(self, name), bool):
                raise RequestError(f"setting {name} is {value!r}, expected True or False")
        if self.kv_format not in ("f16", "q8_0", "f32"):
            raise RequestError(f"setting kv_format is {self.kv_format!r}, expected f16, q8_0 or f32")


def settings() -> list[tuple[str, Any, str]]:
    """(name, default, sentence) of every setting, in order: what the reference docs print."""
    return [(f.name, f.default, f.metadata["help"]) for f in fields(EngineConfig)]
