"""A case: one tiny model, and sizes that many of them have."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import gguf
import transformers

from goldens.architecture import Architecture
from goldens.tokenizer import add_tokenizer

SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
ONE = SMALL | {"num_hidden_layers": 1, "vocab_size": 96}
WIDE = ONE | {"hidden_size": 256, "intermediate_size": 256}  # for blocks of 256 weights
WIDE |= {"num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
MOE = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": True}
MOE |= {"tie_word_embeddings": False}


@dataclass(frozen=True)
class Case:
    """How a file is written, the model and configuration it is of, and how each weight is stored."""

    architecture: Architecture
    model: type[transformers.PreTrainedModel]
    config: transformers.PretrainedConfig
    formats: dict[str, str] = field(default_factory=dict)  # tensor name -> format; others F32
    _: KW_ONLY
    expert_gain: float = 1.0  # of the matrices of experts, beside what weights are drawn with
    chat: bool = False  # with the tokenizer and template of tokenizer.py
    drafter: str = ""  # a block for predicting several tokens: "shared" has the model's vocabulary, "copies" its own

    def add_metadata(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys of the model, and its tokenizer if it has one."""
        self.architecture.add_keys(writer, self.config, bool(self.drafter))
        if self.chat:
            add_tokenizer(writer)
