"""What texts become for one model: prompts that fit into its context, texts to read, pairs, grammars of answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tenth.errors import RequestError

if TYPE_CHECKING:
    from tenth.text.grammar import Grammar
    from tenth.text.guide import Guide
    from tenth.text.matching import Grammars
    from tenth.text.metadata import MetadataSource
    from tenth.text.model_text import ModelText
    from tenth.text.pairs import Pairs
    from tenth.text.template import ChatTemplate
    from tenth.text.tokenizer import Tokenizer


class Prompting:
    """The text side of an open model. ``given``: what its file says of text, None where that cannot be used.

    In that case whatever needs it raises the ModelFileError that says why.
    """

    def __init__(self, given: ModelText | None, metadata: MetadataSource, limit_tokens: int) -> None:
        self._given, self._metadata = given, metadata
        self._limit_tokens = limit_tokens  # of a sequence
        self._grammars: Grammars | None = None  # of the first request that has one

    @property
    def seconds(self) -> float:
        """How long building the tokenizer and the template took."""
        return self._given.seconds if self._given else 0.0

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._text.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return self._text.template

    @property
    def _text(self) -> ModelText:
        from tenth.text.model_text import read_text

        return self._given or read_text(self._metadata)  # which says what is wrong

    def ids(self, text: str, what: str, *, parse_special: bool = False) -> list[int]:
        """The ids of a text. One that is far too long is refused before all of it is turned into tokens."""
        tokenizer, most = self.tokenizer, self._limit_tokens
        if len(tokenizer.beginning(text, most, parse_special=parse_special)) < len(text):
            raise RequestError(f"the {what} has more than {most} tokens, which are all that fit",
                               f"shorten the {what}, or load the model with a longer context")
        return tokenizer.encode(text, special=True, parse_special=parse_special)

    def to_read(self, text: object, *, truncate: bool) -> list[int]:
        """The ids of a text that is read, or those that were given in its place. truncate: cut what is too long."""
        if isinstance(text, str) and truncate:
            text = self.tokenizer.encode(self.tokenizer.beginning(text, self._limit_tokens), special=True)
        if isinstance(text, str):
            return self.ids(text, "text")
        if not isinstance(text, list):
            raise RequestError(f"a text is {text!r}, expected a string or token ids")
        return self._cut(text) if truncate else text

    def _cut(self, prompt: list[int]) -> list[int]:
        """The front of it that the model can read, and its last token, which ends texts."""
        most = self._limit_tokens
        return prompt if len(prompt) <= most else [*prompt[: most - 1], prompt[-1]]

    def pairs(
        self, query: str, documents: Sequence[str], *, truncate: bool, most_document_tokens: int | None
    ) -> list[list[int]]:
        """A question with each of the documents; of each document the first so many tokens."""
        if isinstance(documents, str) or not isinstance(documents, Sequence) or not documents:
            raise RequestError("there are no documents", "give a list of texts")
        for text in (query, *documents):
            if not isinstance(text, str):
                raise RequestError(f"a query or document is {text!r}, expected a string")
        most, pairs = self._limit_tokens, self._pairs
        if most_document_tokens is not None:
            documents = [pairs.cut(document, most_document_tokens) for document in documents]
        return [pairs.encode(query, document, most, truncate=truncate) for document in documents]

    @cached_property
    def _pairs(self) -> Pairs:
        from tenth.text.pairs import Pairs

        return Pairs(self._metadata, self.tokenizer)

    def guide(self, grammar: Grammar | None) -> Guide | None:
        """What keeps an answer to a grammar. Raises RequestError for a grammar that cannot be used."""
        if grammar is None:
            return None
        from tenth.text.guide import Guide
        from tenth.text.matching import Grammars

        if self._grammars is None:
            self._grammars = Grammars(self.tokenizer)
        return Guide(self._grammars.matcher(grammar))
