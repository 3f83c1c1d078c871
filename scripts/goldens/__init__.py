"""The goldens: tiny random models of every architecture, and what transformers computes for them.

One module per architecture, or per family of them, has its ``CASES`` and how llama.cpp's converter writes it
(architecture.py). ``making`` writes a case, ``checking`` compares two. The next one is a module and its name below.
"""

from __future__ import annotations

from pathlib import Path

from goldens import deepseek2, encoders, gated_delta, gemma3, glm4moe, gpt_oss, llama, making, olmoe, qwen
from goldens.case import Case

FAMILIES = (llama, qwen, olmoe, glm4moe, gemma3, gated_delta, deepseek2, gpt_oss, encoders)
CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}


def make(name: str, folder: Path) -> str:
    """Write one case to a folder; one line that says how well the references agree."""
    case = CASES[name]
    return (encoders.make if isinstance(case, encoders.Textless) else making.make)(name, case, folder)
