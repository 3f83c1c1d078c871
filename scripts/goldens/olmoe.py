"""olmoe: the width of an expert is intermediate_size."""

from __future__ import annotations

import transformers

from goldens.architecture import Architecture
from goldens.case import HEADS, MOE, ONE, Case

CASES = {
    "olmoe": Case(Architecture("olmoe"), transformers.OlmoeForCausalLM, transformers.OlmoeConfig(
        **(ONE | HEADS | MOE | {"norm_topk_prob": False, "intermediate_size": 24}))),
}  # fmt: skip
