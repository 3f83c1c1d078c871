"""Which tokens may come next in an answer that has to match a grammar.

llguidance does the work (github.com/guidance-ai/llguidance, docs/json_schema.md and docs/syntax.md for what it takes):
it compiles a grammar and says, in tens of microseconds, which tokens may come next. Work and memory are bounded by its
own limits, and where regular expressions are intersected, which those limits do not cover, by a try in a process of its
own. Importing it takes 5 MB, so this file is imported for the first request that has a grammar.

Not here: when a grammar begins (guide.py) and who asks for masks (engine/masks.py).
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import llguidance
import numpy as np

from tenth.errors import RequestError, ResourceError
from tenth.text.grammar import Grammar
from tenth.text.tokenizer import Tokenizer
from tenth.text.vocabulary import CONTROL, UNKNOWN, UNUSED

CACHE_BYTES = 64 << 20
BYTES_PER_BYTE = 160  # of a compiled grammar, for each byte of its text: measured with 3000 properties
BYTES_EACH = 64 << 10
TRY_S = 5.0  # a grammar with regular expressions is compiled within so long, or refused
TRY_BYTES = 1 << 30
LIMITS = llguidance.LLParserLimits(max_lexer_states=20_000, verbose_errors=False)  # the others: llguidance's defaults
_RISKY = ("pattern", "allOf", "propertyNames", "not")  # keywords by which regular expressions meet others


class _Vocabulary:
    """A tokenizer as llguidance asks for one: all tokens as bytes, and a function from text to ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.vocabulary
        control = np.isin(vocabulary.types, (CONTROL, UNKNOWN, UNUSED))
        self.eos_token_id = min(vocabulary.stop_ids)
        self.bos_token_id = vocabulary.bos_id
        self.tokens = [vocabulary.pieces[i] for i in range(vocabulary.size)]
        self.special_token_ids = sorted({*np.flatnonzero(control).tolist(), *vocabulary.stop_ids})
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.encode(text, special=False, continuing=True)


class Grammars:
    """Compiles grammars for one vocabulary and keeps them, the least recently used dropped first. For any thread."""

    def __init__(self, tokenizer: Tokenizer, cache_bytes: int = CACHE_BYTES) -> None:
        """The first grammar costs 0.2 to 1.4 seconds, in which llguidance sorts the vocabulary."""
        if not tokenizer.stop_ids:
            raise RequestError("the model's vocabulary has no end token, so no grammar can end an answer")
        self._vocabulary = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Vocabulary(tokenizer)), n_vocab=tokenizer.vocab_size,
            eos_token=sorted(tokenizer.stop_ids))
        self.vocab_size = tokenizer.vocab_size
        self._cache: OrderedDict[Grammar, llguidance.LLMatcher] = OrderedDict()
        self._room = cache_bytes
        self._door = threading.Lock()

    def matcher(self, grammar: Grammar) -> Matcher:
        """A matcher at the beginning of a grammar. Raises RequestError saying what in the grammar cannot be used."""
        with self._door:
            compiled = self._cache.get(grammar)
            if compiled is not None:
                self._cache.move_to_end(grammar)
        if compiled is None:
            compiled = self._compile(grammar)
        return Matcher(compiled.deep_copy(), self.vocab_size)

    def __len__(self) -> int:
        """How many compiled grammars are kept."""
        return len(self._cache)

    def _compile(self, grammar: Grammar) -> llguidance.LLMatcher:
        source = _source(grammar)
        if not grammar.is_json or any(f'"{keyword}' in grammar.text for keyword in _RISKY):
            _try_elsewhere(source)
        compiled = llguidance.LLMatcher(self._vocabulary, source, log_level=0, limits=LIMITS)
        tried = compiled.deep_copy()
        if not tried.is_error():
            Matcher(tried, self.vocab_size).mask()  # some are too large only once they are used
        if tried.is_error():
            raise _refused(grammar, tried.get_error())
        with self._door:
            self._room -= 0 if grammar in self._cache else _cost(grammar)
            self._cache[grammar] = compiled
            while self._room < 0 and len(self._cache) > 1:
                self._room += _cost(self._cache.popitem(last=False)[0])
        return compiled


def _source(grammar: Grammar) -> str:
    """The grammar as llguidance takes it."""
    matcher = llguidance.LLMatcher
    if grammar.is_json:
        return matcher.grammar_from_json_schema(grammar.text)
    if grammar.kind == "regex":
        return matcher.grammar_from_regex(grammar.text)
    return matcher.grammar_from_lark(grammar.text)


def _cost(grammar: Grammar) -> int:
    return BYTES_EACH + BYTES_PER_BYTE * len(grammar.text)


def _refused(grammar: Grammar, reason: str) -> RequestError:
    """llguidance's reason, which names a schema's keyword or a grammar's line."""
    what = {"regex": "regular expression", "lark": "grammar"}.get(grammar.kind, "JSON schema")
    hint = "docs/structured-output.md lists the keywords that are supported" if grammar.is_json else None
    return RequestError(f"the {what} cannot be used: {reason.replace('<non-verbose/>', '').strip()}", hint)


# Compiles without a vocabulary: what takes long or much does so here too.
_TRY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({bytes}, {bytes}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
sys.path.append({path!r})
import llguidance
limits = llguidance.LLParserLimits(max_lexer_states=20_000, verbose_errors=False)
llguidance.LLMatcher.validate_grammar(sys.stdin.buffer.read().decode(), limits=limits)
"""


def _try_elsewhere(source: str) -> None:
    """Compile a grammar in a process that may be killed. Raises RequestError when it has to be (80 ms when not)."""
    code = _TRY.format(bytes=TRY_BYTES, seconds=int(TRY_S), path=str(Path(llguidance.__file__).parents[1]))
    try:
        done = subprocess.run([sys.executable, "-I", "-c", code], input=source.encode(), timeout=2 * TRY_S, check=False,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        done = None
    except OSError as error:
        raise ResourceError(f"no process could be started to try the grammar: {error}") from None
    if done is None or done.returncode:
        raise RequestError(f"the grammar takes more than {TRY_S:.0f} s or {TRY_BYTES >> 20} MiB to compile",
                           "use fewer or simpler regular expressions, and no two for one value")


class Matcher:
    """How far an answer has come in a grammar. Used by one thread at a time."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._n_bytes = -(-vocab_size // 32) * 4

    @property
    def has_ended(self) -> bool:
        """Whether nothing but an end token can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def accepts(self) -> bool:
        """Whether the answer could end here."""
        return bool(self._matcher.is_accepting())

    @property
    def error(self) -> RequestError | None:
        """Why the matcher cannot go on: a limit was met, or a token that it did not allow. None while it can."""
        if not self._matcher.is_error():
            return None
        reason = self._matcher.get_error().replace("<non-verbose/>", "").strip()
        return RequestError(f"the grammar failed in the middle of the answer: {reason}", "make it simpler")

    def n_allowed(self, ids: list[int]) -> int:
        """How many of these tokens, from the first on, may follow."""
        return int(self._matcher.validate_tokens(ids))

    def forced(self) -> list[int]:
        """Tokens of the text that has to follow, whatever is chosen; often none."""
        return list(self._matcher.compute_ff_tokens())

    def advance(self, ids: list[int]) -> int:
        """Take tokens as they come; how many were allowed."""
        return int(self._matcher.try_consume_tokens(ids))

    def fill(self, row: np.ndarray[Any, np.dtype[np.uint32]]) -> None:
        """Write which tokens may come next: bit i%32 of word i/32. ``row`` is at least as long as the vocabulary."""
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, self._n_bytes)

    def fill_all(self, rows: np.ndarray[Any, np.dtype[np.uint32]], draft: list[int]) -> None:
        """``fill`` a row for each place: before the first of the guesses, between them, and behind the last.

        Rows behind a guess that is not allowed stay as they are: nobody will get there.
        """
        n = 0
        self.fill(rows[0])
        for n, guess in enumerate(draft, 1):
            if self._matcher.is_stopped() or not self._matcher.try_consume_tokens([guess]):
                n -= 1
                break
            self.fill(rows[n])
        if self._matcher.is_error():
            rows[:] = 0  # so that the sampler says that there is nothing
        elif n:
            self._matcher.rollback(n)

    def mask(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Which tokens may come next, as ``fill`` writes it."""
        row = np.zeros(self._n_bytes // 4, np.uint32)
        self.fill(row)
        return row
