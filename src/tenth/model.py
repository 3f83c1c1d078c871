"""The Model: what users load, ask and close. Brings file, text and engine together; computes nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from tenth.batch import F32, PAGE_TOKENS
from tenth.config import EngineConfig
from tenth.engine.engine import Engine, EngineStats
from tenth.engine.experts import ExpertUse
from tenth.engine.request import Request
from tenth.errors import RequestError
from tenth.facts import description, expert_statistics, peak_bytes
from tenth.feed import Feed
from tenth.gathering import Gathering, check_dimensions, scores, vectors
from tenth.preparing import Prepared, answer_reader, token_choice
from tenth.prompting import Prompting
from tenth.sampling import make_params, recommended
from tenth.stream import Stream

if TYPE_CHECKING:
    from tenth.loader import Loaded, Task
    from tenth.text.begun import Begun
    from tenth.text.grammar import Grammar
    from tenth.text.model_text import ModelText
    from tenth.text.tokenizer import Tokenizer

_CAN: dict[Task, str] = {
    "generate": "writes text", "embed": "gives vectors of texts", "rerank": "judges how well documents fit a question"}
_CANNOT: dict[Task, str] = {
    "generate": "writes no text", "embed": "gives no vectors of texts", "rerank": "judges no documents"}
Message = Mapping[str, Any]


class Model:
    """An open model. Several requests may be at work at once; every method may be called from any thread.

    Use it as a context manager, or close it: until then it holds its memory.
    """

    def __init__(
        self, loaded: Loaded, config: EngineConfig, text: ModelText | None = None, *, started_s: float | None = None,
        note: str | None = None, name: str | None = None, published: Mapping[str, float] | None = None,
    ) -> None:
        self.loaded = loaded
        self.config = config
        self._note, self._name = note, name
        self._engine = Engine(
            loaded.runtime, max_sequences=config.max_sequences, prefix_reuse=config.prefix_reuse
        )
        try:
            self.defaults = recommended(loaded.header.metadata, published)
        except BaseException:
            self._engine.close()
            raise
        self.speculate = config.speculate  # whether requests that come from now on may be drafted; benchmarks switch it
        self._text = Prompting(text, loaded.header.metadata, self._engine.limit_tokens)
        self._load_s = time.perf_counter() - started_s if started_s is not None else 0.0

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def stats(self) -> EngineStats:
        """Counts since the model was opened: steps, rows, sequences that had to give up their pages, guesses."""
        return self._engine.stats

    @property
    def kv_pages(self) -> dict[str, int]:
        """Pages of the KV cache that are free, cached for prompts with the same beginning, and used by sequences."""
        return self._engine.pages

    def close(self) -> None:
        """Cancel what is unfinished and free everything. May be called twice."""
        self._engine.close()

    def chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        thinking_budget: int | None = None,
        reasoning_effort: str | None = None,
        response_format: Any = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        **sampling: Any,
    ) -> Stream:
        """Answer a conversation: messages with "role" and "content", as the model's own template renders them.

        think: ask a model that can for thinking or for none (None: as its template does). thinking_budget: most tokens
        of thinking, after which it is closed and the answer goes on. reasoning_effort: a word for the two, "none" to
        "max". response_format: what the answer has to match, as OpenAI writes it or a Grammar; thinking is free.
        tools, tool_choice, parallel_tool_calls: functions that the model may call, as OpenAI writes them; calls come
        as pieces of kind "call" and as ``tool_calls``. Other keywords: SamplingParams, by name. Raises RequestError at
        once for what cannot be answered.
        """
        return self.start(self.prepare_chat(
            messages, think=think, thinking_budget=thinking_budget, reasoning_effort=reasoning_effort,
            response_format=response_format, tools=tools, tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls, **sampling))

    def prepare_chat(
        self,
        messages: Sequence[Message],
        *,
        think: bool | None = None,
        thinking_budget: int | None = None,
        reasoning_effort: str | None = None,
        response_format: Any = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool = True,
        begun: Begun | None = None,
        **sampling: Any,
    ) -> Prepared:
        """What ``chat`` would start, checked and turned into tokens; nothing is computed yet.

        begun: the beginning of an answer that was broken off, to go on with; it is not told again.
        """
        from tenth.text.asking import ChatOptions, ask

        self._check_task("generate")
        params, text = make_params(sampling).completed(self.defaults), self._text
        options = ChatOptions(think, thinking_budget, reasoning_effort, response_format, tools, tool_choice,
                              parallel_tool_calls, begun)
        asked = ask(text.template, text.tokenizer, messages, options)
        ids = text.ids(asked.prompt, "prompt", parse_special=True)
        return self._checked(Prepared(ids, params, asked.grammar, asked))

    def prepare(self, prompt: str | list[int], *, grammar: Grammar | None = None, **sampling: Any) -> Prepared:
        """What ``generate`` would start for one prompt, checked and turned into tokens."""
        self._check_task("generate")
        if not isinstance(prompt, (str, list)):
            raise RequestError(f"the prompt is {prompt!r}, expected a text or token ids")
        if grammar is not None and not hasattr(grammar, "is_json"):
            raise RequestError(f"grammar is {grammar!r}, expected a tenth.Grammar")
        ids = self._text.ids(prompt, "prompt") if isinstance(prompt, str) else prompt
        return self._checked(Prepared(ids, make_params(sampling).completed(self.defaults), grammar))

    @property
    def task(self) -> Task:
        """What the model is for: "generate", "embed" or "rerank"."""
        return self.loaded.program.task

    def _check_task(self, task: Task) -> None:
        if self.task != task:
            what = f"{self.name} {_CAN[self.task]}, it {_CANNOT[task]}"
            raise RequestError(what, f"choose a model that {_CAN[task]}")

    def _checked(self, prepared: Prepared) -> Prepared:
        self._engine.check(prepared.ids, prepared.params.logit_bias or {})
        self._text.guide(prepared.grammar)  # compiled here, so that a wrong one is refused here
        return prepared

    @overload
    def generate(self, prompt: str | list[int], *, grammar: Grammar | None = None, **sampling: Any) -> Stream: ...

    @overload
    def generate(self, prompt: list[str] | list[list[int]], *, grammar: Grammar | None = None, **sampling: Any
                 ) -> list[Stream]: ...

    def generate(
        self, prompt: str | list[int] | list[str] | list[list[int]], *, grammar: Grammar | None = None, **sampling: Any
    ) -> Stream | list[Stream]:
        """Go on from a text or from token ids, without a template; a list of those gives a list of streams.

        A text gets the begin and end tokens that the file asks for, and none of its own is read as a control token;
        ids are taken as they are. grammar: what the answer has to match. Other keywords: SamplingParams, by name.
        Raises RequestError for what cannot be answered.
        """
        if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and not isinstance(prompt[0], (str, list))):
            return self.start(self.prepare(prompt, grammar=grammar, **sampling))
        if not isinstance(prompt, list) or not prompt:
            raise RequestError(f"the prompt is {prompt!r}, expected a text, token ids, or a list of those")
        prompts = cast("list[str | list[int]]", prompt)
        return [self.start(prepared) for prepared in [self.prepare(one, grammar=grammar, **sampling)
                                                      for one in prompts]]

    def start(self, prepared: Prepared, *, seed: int | None = None) -> Stream:
        """Start a prepared request; ``seed`` in place of its own. The same one may be started several times."""
        params = prepared.params if seed is None else replace(prepared.params, seed=seed)
        tokenizer = self._text.tokenizer

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, special=False, continuing=True)

        guide = self._text.guide(prepared.grammar)
        reader, budget = answer_reader(tokenizer, prepared.asked, params)
        feed = Feed(reader, len(prepared.ids), budget, guide, encode)
        stop_ids = frozenset[int]() if params.ignore_eos else tokenizer.stop_ids
        noted = self.loaded.runtime.noted_experts
        request = Request(prepared.ids, feed, token_choice(params), params.max_tokens, stop_ids, self.speculate,
                          guide=guide, experts=ExpertUse(*noted) if noted else None)
        self._engine.submit(request)
        engine = self._engine
        return Stream(feed, lambda: engine.cancel(request), self._load_s, params.seed, request.speculated,
                      request.experts)

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; ``special``: with the begin and end tokens that the file asks for."""
        if not isinstance(text, str):
            raise RequestError(f"the text is {text!r}, expected a string")
        return self._text.tokenizer.encode(text, special=special)

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids; control tokens give none."""
        return self._text.tokenizer.decode(_listed(ids))

    def logits(self, ids: list[int], *, at_once: int = 0) -> F32:
        """Logits [len(ids), vocab] after every token. Needs no tokenizer. ``at_once``: most tokens in one step (0: no
        such limit); the same numbers, but for lossy settings, which play a part only where it is 1."""
        self._check_task("generate")
        if at_once < 0:
            raise RequestError(f"at_once is {at_once}, expected 0 or more")
        return self._engine.logits(_listed(ids), at_once)

    def embed(
        self, texts: str | Sequence[str | list[int]], *, dimensions: int | None = None, normalize: bool = True,
        truncate: bool = False,
    ) -> F32:
        """Vectors [n, width] of texts, or of token ids taken as they are; of one text [1, width].

        As the file pools its tokens. dimensions: only so many numbers of each, for models that were trained for it.
        normalize: make their length 1. truncate: cut what is too long, which else is refused.
        """
        given: Any = [texts] if isinstance(texts, str) else texts
        prompts = self.prepare_texts(given, dimensions=dimensions, truncate=truncate)
        return vectors(self.begin(prompts).rows(), dimensions, normalize=normalize)

    def embed_tokens(self, text: str | list[int]) -> F32:
        """A vector [n, width] for each token of a text, of a model whose file pools none of them."""
        self._check_task("embed")
        if self.loaded.program.row != "every":
            raise RequestError(f"{self.name} gives one vector for a text", "use embed")
        return self._engine.logits(self._text.to_read(text, truncate=False))

    def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> NDArray[np.float64]:
        """How well each document answers a query, 0 to 1, in the order given. truncate: cut what is too long."""
        return scores(self.begin(self.prepare_pairs(query, documents, truncate=truncate)).rows())

    def prepare_texts(
        self, texts: Sequence[str | list[int]], *, dimensions: int | None = None, truncate: bool = False
    ) -> list[list[int]]:
        """What ``embed`` would read, checked and turned into tokens."""
        self._check_task("embed")
        check_dimensions(dimensions, self.loaded.program.output_width)
        if self.loaded.program.row == "every":
            raise RequestError(f"{self.name} gives a vector for each token, its file does not say how to pool them",
                               "use embed_tokens, or a file that has the key pooling_type")
        if not isinstance(texts, Sequence) or not texts:
            raise RequestError("there are no texts", "give a text, or a list of them")
        prompts = [self._text.to_read(text, truncate=truncate) for text in texts]
        for prompt in prompts:
            self._engine.check(prompt)
        return prompts

    def prepare_pairs(
        self, query: str, documents: Sequence[str], *, truncate: bool = True, most_document_tokens: int | None = None
    ) -> list[list[int]]:
        """What ``rerank`` would read, checked and turned into tokens; of each document the first so many."""
        self._check_task("rerank")
        return self._text.pairs(query, documents, truncate=truncate, most_document_tokens=most_document_tokens)

    def begin(self, prompts: Sequence[list[int]], when_done: Callable[[], None] | None = None) -> Gathering:
        """Have prepared texts read; the results come when they come."""
        return Gathering(self._engine, prompts, when_done)

    def load_costs(self) -> dict[str, float]:
        """What loading took: seconds of all of it, of reading and packing the weights, of building the tokenizer (the
        two at the same time), and the processor seconds of reading and of packing."""
        costs = self.loaded.runtime.load_costs()
        return {"seconds": self._load_s, "weights_bytes": costs.n_bytes, "weights_seconds": costs.seconds,
                "read_processor_seconds": costs.read_seconds, "pack_processor_seconds": costs.pack_seconds,
                "text_seconds": self._text.seconds}

    def memory(self) -> dict[str, int]:
        """peak_bytes of this process so far, and what weights, KV cache and workspace take."""
        if self._engine.is_closed:
            raise RequestError("the model is closed", "load it again")
        by_kind: dict[str, int] = self.loaded.runtime.memory()
        return {"peak_bytes": peak_bytes(), **by_kind}

    @property
    def notes(self) -> list[str]:
        """What to tell the user of how the model was loaded: little memory for experts, a file that was ignored."""
        lossy = ", ".join(f"{name} {value:g}" for name, value in self.lossy.items())
        changed = f"{lossy}: answers are not the exact model's, and may differ from run to run" if lossy else None
        return [text for text in (self.loaded.placement.warning, self._note, changed) if text]

    @property
    def lossy(self) -> dict[str, float]:
        """The settings at work that change what the model answers; empty: nothing does."""
        given = {"lossy_drop": self.config.lossy_drop, "lossy_prefer": self.config.lossy_prefer}
        return {name: value for name, value in given.items() if value and self.loaded.placement.streams}

    def expert_read_bytes(self) -> int | None:
        """Bytes of streamed experts read so far, right guesses and wrong ones too; None when all are in memory."""
        counts = None if self._engine.is_closed else self.loaded.runtime.expert_counters()
        return counts.read_bytes if counts else None

    def expert_statistics(self) -> dict[str, float | int | bool]:
        """What streamed experts have cost since the start, or since the last reset; empty when all are in memory.

        hit_rate: share of slices (one expert's rows of one matrix) that were in memory when a layer asked for them;
        predicted_right: of those read ahead, so many were asked for; waiting_share and computing_share: of the time of
        all steps, what workers spent waiting for the disk, and the rest.
        """
        counts = None if self._engine.is_closed else self.loaded.runtime.expert_counters()
        if counts is None:
            return {}
        return expert_statistics(self.loaded, counts, self._engine.stats.n_rows, lossy=bool(self.lossy))

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, over all sequences."""
        return self.loaded.runtime.n_pages * PAGE_TOKENS

    @property
    def name(self) -> str:
        """The library's, when it was opened by that; else the one in the file, else the file's."""
        header = self.loaded.header
        return self._name or header.metadata.get_str("general.name", default="") or Path(header.paths[0]).stem

    @cached_property
    def description(self) -> dict[str, Any]:
        """task, architecture, parameters, context_tokens (as loaded), formats: weight format -> number of weights, and
        lossy: what changes its answers, if anything does."""
        facts = description(self.loaded)
        return {**facts, "lossy": self.lossy} if self.lossy else facts

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ModelFileError when the file has none, or one that is not supported."""
        return self._text.tokenizer


def _listed(ids: Any) -> list[int]:
    try:
        return list(ids)
    except TypeError:
        raise RequestError(f"the ids are {ids!r}, expected a list of token ids") from None
