"""The words of texts and queries, for search: the same for both databases, and for every language of the page.

Case, accents and Arabic vowel signs do not count. Where words are not written apart (Chinese, Japanese, Thai, Lao,
Khmer, Burmese) each letter is a word, and what is asked for has to follow each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

MOST_WORDS = 50_000  # of one text that are found
MOST_TERMS = 16  # of a query

_UNSPACED = ("\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
             "\U00020000-\U0003ffff")
_ACCENTS = re.compile("[\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u0640]")


@cache
def _word() -> re.Pattern[str]:
    """A word: letters and digits with the signs that belong to them, or one letter of an unspaced script."""
    marks = "".join(chr(code) for code in range(0x300, 0x11000) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(f"[{_UNSPACED}][{marks}]*|(?:(?![{_UNSPACED}])[^\\W_][{marks}]*)+")


def fold(word: str) -> str:
    """A word as it is compared."""
    if word.isascii():
        return word.lower()
    apart = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", apart))


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    return [fold(match.group()) for match in _places(text)]


def _places(text: str) -> Iterator[re.Match[str]]:
    for n, match in enumerate(_word().finditer(text)):
        if n == MOST_WORDS:
            return
        yield match


@dataclass(frozen=True)
class Term:
    """Words that have to follow each other. ``is_open``: the last one may go on."""

    words: tuple[str, ...]
    is_open: bool = False

    def matches(self, found: list[str]) -> bool:
        """Whether these words, as many as the term has, are it."""
        *first, last = self.words
        return found[:-1] == first and (found[-1].startswith(last) if self.is_open else found[-1] == last)


def terms(query: str) -> list[Term]:
    """What a query asks for, all of it: words, and words in quotation marks that follow each other.

    The last word may still be being typed, so it may go on; a single Latin letter or digit, with which too much begins,
    may not.
    """
    found = []
    for match in re.finditer(r'"([^"]*)"?|(\S+)', query):
        quoted, plain = match.group(1), match.group(2)
        if inside := tuple(words(quoted if plain is None else plain)):
            is_last = plain is not None and match.end() == len(query)
            found.append(Term(inside, is_open=is_last and (len(inside[-1]) > 1 or not inside[-1].isascii())))
    return found[:MOST_TERMS]


def places(text: str, asked: list[Term]) -> Iterator[tuple[int, int]]:
    """Where in a text something of what is asked for stands: (begin, end)."""
    longest = max((len(term.words) for term in asked), default=0)
    window: list[re.Match[str]] = []
    folded: list[str] = []
    for match in _places(text):
        window, folded = [*window, match][-longest:], [*folded, fold(match.group())][-longest:]
        for term in asked:
            n = len(term.words)
            if len(folded) >= n and term.matches(folded[-n:]):
                yield window[-n].start(), match.end()
                break
