"""Models that write no text: encoders (BERT, XLM-RoBERTa, nomic), Qwen3's embedders and rerankers.

Their .npz hold ``vectors`` in place of logits: what transformers computes in float64 for ``tokens``, as float32
[n, dim] for each token, [1, dim] for their mean, [n, labels] for a reranker's head at each token; with quantised
weights ``vectors_q8`` too. Where there is a tokenizer, ``texts`` [m] (of a reranker pairs [m, 2]) and ``results`` are
what a user gives and gets: normalised vectors, or scores. Encoders are checked against exact_encoder.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from convert_bert import NAMES
from exact_encoder import ExactEncoder

from goldens import tokenizer as byte_level
from goldens import wordpiece
from goldens.architecture import Architecture, Config, add_rope_keys
from goldens.case import HEADS, SMALL, Case
from goldens.checking import nmse
from goldens.making import AGREEMENT, N_TOKENS, AllFloat64, Stored, draw_weights, write_file

BERT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT |= {"max_position_embeddings": 128, "vocab_size": len(wordpiece.tokenizer_json()["model"]["vocab"])}
QWEN3 = SMALL | HEADS | {"head_dim": 32, "num_hidden_layers": 1, "vocab_size": len(byte_level.vocabulary())}
QWEN3 |= {"tie_word_embeddings": True}
TEXTS = ["Why is the sky blue?", "The cat sat on the mat, and it was sitting lightly.", "Café 日本 naïve ☃", "a"]
PAIRS = [("Why is the sky blue?", "Light of the sky and air."), ("Why is the sky blue?", "The cat sat."), ("cat", "")]
TEMPLATE = "<|im_start|>user\nthe {query} and the {document}<|im_end|>\n<|im_start|>assistant\n"
HEAD = {r"pooler\.dense\.": "cls.", r"classifier\.dense\.": "cls.", r"classifier\.out_proj\.": "cls.output.",
        r"classifier\.": "cls.output."}  # fmt: skip
NOMIC = {
    r"layers\.(\d+)\.self_attn\.o_proj\.": r"blk.\1.attn_output.",
    r"layers\.(\d+)\.post_attention_layernorm\.": r"blk.\1.attn_output_norm.",
    r"layers\.(\d+)\.post_mlp_layernorm\.": r"blk.\1.layer_output_norm.",
}


class Encoder(Architecture):
    """How llama.cpp's converter writes encoders. ``cut``: rows of the table of positions that it leaves out."""

    def __init__(self, name: str, *, cut: int = 0, names: dict[str, str] | None = None):
        super().__init__(name, names={**(names or {}), **{k: v for k, v in NAMES.items() if v is not None}})
        self.cut = cut

    def name_in_file(self, hf_name: str) -> str:
        return super().name_in_file(hf_name.removeprefix("bert.").removeprefix("roberta."))

    def add_keys(self, writer: gguf.GGUFWriter, c: Config, n_nextn: int = 0) -> None:
        writer.add_context_length(c.max_position_embeddings - self.cut)
        writer.add_embedding_length(c.hidden_size)
        writer.add_block_count(c.num_hidden_layers)
        writer.add_feed_forward_length(c.intermediate_size)
        writer.add_head_count(c.num_attention_heads)
        writer.add_layer_norm_eps(c.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_token_type_count(c.type_vocab_size)
        if hasattr(c, "rope_parameters"):
            add_rope_keys(writer, c.rope_parameters)


@dataclass(frozen=True)
class Textless(Case):
    """A model that writes no text. ``tokenizer``: "wordpiece", "byte_level" or none."""

    pooling: str = "MEAN"
    tokenizer: str = ""
    fused: bool = False  # q, k and v in one matrix

    @property
    def ranks(self) -> bool:
        return self.pooling == "RANK"

    @property
    def is_decoder(self) -> bool:
        return self.architecture.name == "qwen3"

    def add_metadata(self, writer: gguf.GGUFWriter) -> None:
        super().add_metadata(writer)
        writer.add_pooling_type(gguf.PoolingType[self.pooling])
        if self.tokenizer == "wordpiece":
            wordpiece.add_tokenizer(writer)
        if self.tokenizer == "byte_level":
            byte_level.write_tokenizer(writer, byte_level.vocabulary(), byte_level.MERGES, byte_level.CONTROL)
            writer.add_eos_token_id(byte_level.vocabulary().index("<|endoftext|>"))
            writer.add_add_eos_token(not self.ranks)
        if self.ranks and self.is_decoder:
            writer.add_classifier_output_labels(["yes", "no"])
            writer.add_chat_template([{"name": "rerank", "template": TEMPLATE}])

    def encode(self, text: str | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and types of a text, or of a question and a document."""
        if self.tokenizer == "wordpiece":
            found = wordpiece.library_tokenizer().encode(*([text] if isinstance(text, str) else text))
            return np.array(found.ids), np.array(found.type_ids)
        text = text if isinstance(text, str) else TEMPLATE.format(query=text[0], document=text[1])
        ids = byte_level.library_tokenizer().encode(text).ids
        end = [] if self.ranks else [byte_level.vocabulary().index("<|endoftext|>")]
        return np.array(ids + end), np.zeros(len(ids + end), int)


def make(name: str, case: Textless, folder: Path) -> str:
    """Write one case to the folder; one line that says how well transformers and exact_encoder.py agree."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    path = folder / f"golden_{name}.gguf"
    with AllFloat64(), torch.no_grad():
        torch.set_default_dtype(torch.float64)
        model = case.model._from_config(case.config, attn_implementation="eager").eval()
        stored = draw_weights(model, None, case, rng)
        write_file(path, name, case, with_head(fused(stored) if case.fused else stored, case))
        samples = PAIRS if case.ranks else TEXTS
        tokens, types = rng.integers(5, 90, N_TOKENS), np.zeros(N_TOKENS, int)
        if case.tokenizer:
            tokens, types = case.encode(samples[0])
        arrays = {"tokens": tokens.astype(np.int32), "vectors": rows_of(model, case, path, tokens, types)}
        if case.tokenizer:
            arrays["texts"] = np.array(samples)
            rows = [rows_of(model, case, path, *case.encode(text)) for text in samples]
            arrays["results"] = np.array([result(rows_of_text, case) for rows_of_text in rows])
    line = f"{name}: {path.stat().st_size} bytes, vectors std {arrays['vectors'].std():.2f}"
    if not case.is_decoder:
        error = nmse(exact_rows(path, case, tokens, types), arrays["vectors"])
        assert error < AGREEMENT, f"{name}: transformers and exact_encoder.py differ, NMSE {error:.1e}"
        line += f", NMSE to exact_encoder.py {error:.1e}"
    if case.formats:
        arrays["vectors_q8"] = exact_rows(path, case, tokens, types, activations="q8")
        line += f", int8 inputs cost {nmse(arrays['vectors_q8'], arrays['vectors']):.1e}"
    kept = {key: array.astype(np.float32) if array.dtype == np.float64 else array for key, array in arrays.items()}
    np.savez_compressed(path.with_suffix(".npz"), **kept)
    return line


def rows_of(model: torch.nn.Module, case: Textless, path: Path, tokens: np.ndarray, types: np.ndarray) -> np.ndarray:
    """What transformers computes, float64: for each token, or for all one row."""
    given = {"input_ids": torch.from_numpy(tokens.astype(np.int64))[None]}
    if not case.is_decoder and case.config.type_vocab_size > 1:
        given["token_type_ids"] = torch.from_numpy(types)[None]
    base = model if case.is_decoder and case.ranks else getattr(model, "base_model", model)
    if case.is_decoder and case.ranks:
        return model(**given).logits[0][:, list(answers())].numpy()
    rows = base(**given).last_hidden_state[0].numpy()
    assert rows.dtype == np.float64, "some step of transformers escaped AllFloat64"
    if case.ranks:  # transformers judges the first token only; exact_encoder.py any
        scores = ExactEncoder(path).scores(rows)
        assert nmse(scores[0], model(**given).logits[0].numpy()) < AGREEMENT, "the heads differ"
        return scores
    return rows.mean(0, keepdims=True) if case.pooling == "MEAN" else rows


def exact_rows(path: Path, case: Textless, tokens: np.ndarray, types: np.ndarray, **how: str) -> np.ndarray:
    """The same by exact_encoder.py."""
    encoder = ExactEncoder(path, **how)
    rows = encoder.hidden(tokens, types)
    if case.ranks:
        return encoder.scores(rows)
    return rows.mean(0, keepdims=True) if case.pooling == "MEAN" else rows


def result(rows: np.ndarray, case: Textless) -> np.ndarray:
    """What a user gets of the rows of a text."""
    row = rows[-1 if case.is_decoder else 0]
    if not case.ranks:
        return row / np.sqrt((row**2).sum())
    return 1 / (1 + np.exp(-(row[0] - (row[1] if len(row) == 2 else 0))))


def answers() -> tuple[int, int]:
    """The tokens that stand for yes and no."""
    tokens = byte_level.vocabulary()
    return tokens.index("y"), tokens.index("n")


def with_head(stored: Stored, case: Textless) -> Stored:
    """With the rows of the output matrix that answer yes and no, where that is a reranker's head."""
    if not (case.ranks and case.is_decoder):
        return {name: part for name, part in stored.items() if case.ranks or not name.startswith("cls.")}
    kind, table = stored["token_embd.weight"]
    return {**stored, "cls.output.weight": (kind, table[list(answers())])}


def fused(stored: Stored) -> Stored:
    """With q, k and v of a layer in one matrix."""
    joined = {name.replace("attn_q.", "attn_qkv."): (kind, np.concatenate([
        array, *(stored[name.replace("attn_q.", f"attn_{part}.")][1] for part in "kv")]))
        for name, (kind, array) in stored.items() if ".attn_q." in name}  # fmt: skip
    return {name: part for name, part in stored.items() if not any(f".attn_{p}." in name for p in "qkv")} | joined


def bert(pooling: str, model: type, formats: dict[str, str] | None = None, **sizes: object) -> Textless:
    config = transformers.BertConfig(**(BERT | sizes))
    return Textless(Encoder("bert", names=HEAD), model, config, formats or {}, pooling=pooling, tokenizer="wordpiece")


def roberta(pooling: str, model: type) -> Textless:
    config = transformers.XLMRobertaConfig(
        **(BERT | {"max_position_embeddings": 130, "type_vocab_size": 1, "num_labels": 1, "num_hidden_layers": 1}))
    return Textless(Roberta("bert", cut=2, names=HEAD), model, config, pooling=pooling)


class Roberta(Encoder):
    """The first two rows of the table of positions stand for padding and are cut off."""

    def further_tensors(self, model: transformers.PreTrainedModel, c: Config) -> dict[str, np.ndarray]:
        table = model.base_model.embeddings.position_embeddings.weight.data.numpy()
        return {"position_embd.weight": table[self.cut :].astype(np.float32)}


MATRICES = [f"blk.0.{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")]
QUANTISED = {**dict.fromkeys(MATRICES, "Q8_0"), "token_embd.weight": "F16", "blk.0.ffn_down.weight": "Q4_0"}
CASES = {
    "bert": bert("MEAN", transformers.BertModel),
    "bert_first": bert("CLS", transformers.BertModel, num_hidden_layers=1, hidden_size=96),
    "bert_each": bert("NONE", transformers.BertModel, num_hidden_layers=1),
    "bert_quantised": bert("MEAN", transformers.BertModel, QUANTISED, num_hidden_layers=1),
    "bert_rerank": bert("RANK", transformers.BertForSequenceClassification, num_labels=1),
    "roberta": roberta("CLS", transformers.XLMRobertaModel),
    "roberta_rerank": roberta("RANK", transformers.XLMRobertaForSequenceClassification),
    "nomic_bert": Textless(
        Encoder("nomic-bert", names=NOMIC), transformers.NomicBertModel, transformers.NomicBertConfig(
            **(BERT | {"num_hidden_layers": 1})),
        pooling="MEAN", tokenizer="wordpiece", fused=True),
    "qwen3_embed": Textless(
        Architecture("qwen3", head_dim=True), transformers.Qwen3Model, transformers.Qwen3Config(**QWEN3),
        pooling="LAST", tokenizer="byte_level"),
    "qwen3_rerank": Textless(
        Architecture("qwen3", head_dim=True), transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**QWEN3),
        pooling="RANK", tokenizer="byte_level"),
}  # fmt: skip
