"""Computes a text token by token for ``tenth bench --quality``: started as a module, once for each of the two settings.

A process of its own, so that both begin with the same memory and get the same share of a budget. It reads one line of
JSON: {"model": file, "settings": EngineConfig's fields, "ids": token ids, "logits": file to write}; the logits go to
that file as .npy, and one line of JSON says what they cost.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Any

import numpy as np

import tenth
from tenth.bench.quality import run_pass
from tenth.errors import TenthError


def main() -> None:
    """Read, compute, write."""
    asked = json.loads(sys.stdin.readline())
    try:
        with tenth.load(asked["model"], **keywords(asked["settings"])) as model:
            done = run_pass(model, asked["ids"])
    except TenthError as error:
        raise SystemExit(f"{error}" + (f"\nhint: {error.hint}" if error.hint else "")) from None
    np.save(asked["logits"], done.logits)
    print(json.dumps({"seconds": done.seconds, "settings": done.settings, "experts": done.experts}), flush=True)


def keywords(settings: dict[str, Any]) -> dict[str, Any]:
    """EngineConfig's fields as ``tenth.load`` takes them."""
    short = {"context_tokens": "context", "kv_format": "kv", "memory_bytes": "memory"}
    return {short.get(f.name, f.name): settings[f.name] for f in fields(tenth.EngineConfig)}


if __name__ == "__main__":
    main()
