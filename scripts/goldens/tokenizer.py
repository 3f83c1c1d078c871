"""The small tokenizer inside golden_chat.gguf: 256 bytes, 16 merges, 3 control tokens, and a ChatML template.

Byte-level BPE as GPT-2 has it (each byte stands as one printable character), split into words by Qwen2's pattern.
"""

from __future__ import annotations

import gguf
import numpy as np
import tokenizers

MERGES = ["Ġ t", "h e", "i n", "e r", "Ġ a", "o n", "Ġt he", "n d"]
MERGES += ["Ġ s", "Ġa nd", "in g", "u s", "us er", "a s", "l l", "o r"]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EXAMPLE = "<|im_start|>user\nThe tests and the user: naïve café, 日本 🙂, 12 things.<|im_end|>\n<|im_start|>assistant\n"


def vocabulary() -> list[str]:
    """Every token's text, as GGUF stores it, in the order of ids."""
    return byte_characters() + [merge.replace(" ", "") for merge in MERGES] + CONTROL


def byte_characters() -> list[str]:
    """GPT-2's printable character for each byte: itself when printable Latin-1, else the next free one from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str], control: list[str]) -> None:
    """Write the metadata of a byte-level tokenizer that splits words as Qwen2's; ``control``: those of its tokens."""
    kinds = [gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Write the small tokenizer's metadata."""
    tokens = vocabulary()
    write_tokenizer(writer, tokens, MERGES, CONTROL)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def example_tokens() -> tuple[str, np.ndarray]:
    """A rendered chat and its token ids, encoded by Hugging Face tokenizers."""
    return EXAMPLE, np.array(library_tokenizer().encode(EXAMPLE).ids)


def library_tokenizer() -> tokenizers.Tokenizer:
    """The small tokenizer as Hugging Face's library runs it."""
    tokens = vocabulary()
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    bpe = tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    tokenizer = tokenizers.Tokenizer(bpe)
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), "isolated")
    as_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.add_special_tokens(CONTROL)
    return tokenizer
