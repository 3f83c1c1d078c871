"""A question and a document as the tokens of one sequence, as a reranker was trained to read them.

By the file's template ``tokenizer.chat_template.rerank``, in which {query} and {document} stand for the two (written by
llama.cpp's converter for Qwen3's rerankers); without one as BERT's and RoBERTa's tokenizers join two texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tenth.errors import ModelFileError, RequestError
from tenth.text.metadata import MetadataSource
from tenth.text.tokenizer import Tokenizer

_KEY = "tokenizer.chat_template.rerank"
_PLACES = re.compile(r"\{(query|document)\}")


class Pairs:
    """Joins texts for one model. What a text holds never turns into a control token."""

    def __init__(self, metadata: MetadataSource, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._template = metadata.get_str(_KEY) if metadata.has(_KEY) else None
        n_ends = 1 if metadata.get_str("tokenizer.ggml.model") == "bert" else 2  # [SEP], or </s></s>
        self._between = [tokenizer.eos_id] * n_ends if tokenizer.add_eos and tokenizer.eos_id is not None else []
        if self._template is None and not self._between:
            raise ModelFileError(f"the file has no template {_KEY}: it is not known how a question and a document are "
                                 "put together", "get a newer conversion of the model")

    def encode(self, query: str, document: str, most: int, *, truncate: bool) -> list[int]:
        """The ids, at most ``most``: ``truncate`` cuts the document's end, else what is longer is refused."""
        query, document = (self._tokenizer.beginning(text, most) for text in (query, document))
        ids = self._joined(query, document)
        if len(ids) <= most:
            return ids
        if not truncate:
            raise RequestError(f"question and document have {len(ids)} tokens, the model reads at most {most}",
                               "shorten the document, or allow it to be cut")
        if len(self._joined(query, "")) > most:
            raise RequestError(f"the question leaves no room for a document in the {most} tokens that the model reads",
                               "shorten the question")
        return self._joined(query, _longest(document, lambda text: len(self._joined(query, text)) <= most))

    def cut(self, document: str, most: int) -> str:
        """The longest front of a document that has at most so many tokens."""
        def fits(text: str) -> bool:
            return len(self._tokenizer.encode(text, special=False)) <= most

        document = self._tokenizer.beginning(document, most)
        return document if fits(document) else _longest(document, fits)

    def _joined(self, query: str, document: str) -> list[int]:
        tokenizer = self._tokenizer
        if self._template is not None:
            return tokenizer.fill(self._template, _PLACES, {"query": query, "document": document})
        first = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        parts = (tokenizer.encode(text, special=False) for text in (query, document))
        q, d = parts
        return [*first, *q, *self._between, *d, *self._between[:1]]


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """The longest front of a text that fits, where nothing does and the whole text does not."""
    short, long = 0, len(text)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if fits(text[:middle]) else (short, middle)
    return text[:short]
