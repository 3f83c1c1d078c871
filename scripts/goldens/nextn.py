"""A block for predicting several tokens behind a model's layers, as DeepSeek publishes it with V3, in torch.

transformers leaves the block out. Its layer is one of transformers' own; what stands around it is written down here
from the paper (arXiv 2412.19437, section 2.2), with the names of DeepSeek's and Zhipu's published weights.
"""

from __future__ import annotations

import copy

import torch
import transformers

NAMES = {
    r"layers\.(\d+)\.(eh_proj|enorm|hnorm|embed_tokens)\.": r"blk.\1.nextn.\2.",
    r"layers\.(\d+)\.shared_head\.(norm|head)\.": r"blk.\1.nextn.shared_head_\2.",
}


class Drafter(torch.nn.Module):
    """Guesses the token after the next one. ``copies``: with a token table, norm and vocabulary of its own."""

    def __init__(self, model: transformers.PreTrainedModel, config: transformers.PretrainedConfig, copies: bool):
        super().__init__()
        layers, self.number = model.model.layers, config.num_hidden_layers
        longer = copy.deepcopy(config)
        if hasattr(config, "layer_types"):
            longer.layer_types = [*config.layer_types, "full_attention"]
        self.layer = type(layers[-1])(longer, self.number)
        norm, n_vocab, dim = type(model.model.norm), config.vocab_size, config.hidden_size
        self.enorm, self.hnorm = norm(dim, config.rms_norm_eps), norm(dim, config.rms_norm_eps)
        self.eh_proj = torch.nn.Linear(2 * dim, dim, bias=False)
        if copies:
            self.embed_tokens = torch.nn.Embedding(n_vocab, dim)
            self.shared_head = torch.nn.ModuleDict(
                {"norm": norm(dim, config.rms_norm_eps), "head": torch.nn.Linear(dim, n_vocab, bias=False)}
            )
        self.copies = copies

    def hf_name(self, name: str) -> str:
        """What a parameter or buffer is called in published weights."""
        return f"model.layers.{self.number}.{name.removeprefix('layer.')}"

    def logits(self, model: transformers.PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
        """[1, n] -> [n - 1, vocab]: row i guesses token i + 2, from the model's state at i and token i + 1."""
        n = tokens.shape[1] - 1
        hidden = model.model(tokens).last_hidden_state[:, :-1]
        embed = self.embed_tokens if self.copies else model.model.embed_tokens
        x = self.eh_proj(torch.cat([self.enorm(embed(tokens[:, 1:])), self.hnorm(hidden)], dim=-1))
        positions = torch.arange(n)[None]
        later = torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)[None, None]
        angles = model.model.rotary_emb(x, positions)
        x = self.layer(x, attention_mask=later, position_ids=positions, position_embeddings=angles)
        x = (self.shared_head["norm"] if self.copies else model.model.norm)(x)
        return (self.shared_head["head"] if self.copies else model.lm_head)(x)[0]
