"""A chat request as text: its prompt, what its answer has to match, and how to read that answer. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenth.text.begun import Begun, go_on
from tenth.text.effort import effort_variables, read_effort
from tenth.text.families import ThinkingFamily
from tenth.text.grammar import Grammar, response_grammar
from tenth.text.messages import plain_messages
from tenth.text.stream import DeltaStream
from tenth.text.template import ChatTemplate
from tenth.text.tokenizer import Tokenizer
from tenth.text.tools import CallParser, ToolFormat, ToolRequest, format_of, read_tools
from tenth.text.tools.grammar import call_grammar, quoting
from tenth.text.tools.history import with_tools


@dataclass(frozen=True)
class ThinkingTexts:
    """``opening`` begins a thought, "" where none may begin; ``closing`` ends it and leads to the answer, ``behind`` is
    its part after the mark."""

    opening: str
    closing: str
    behind: str


@dataclass(frozen=True)
class Ask:
    """``prompt``: the rendered conversation. ``tools`` None: none. ``shown``: control tokens that are text here.

    One that was put together once may be answered several times: ``deltas`` and ``calls`` are new each time.
    """

    prompt: str
    family: ThinkingFamily | None
    budget: int | None
    thinking: ThinkingTexts | None
    grammar: Grammar | None
    format: ToolFormat
    tools: ToolRequest | None
    shown: frozenset[int]
    opening: str | None = None  # what tells whether the answer begins in a thought, if not the prompt; see go_on

    def deltas(self) -> DeltaStream:
        """What separates thinking from content in an answer."""
        if self.opening is None:
            return DeltaStream(self.family, self.prompt)
        return DeltaStream(self.family, self.opening, continuing=True)

    def calls(self) -> CallParser | None:
        """What finds calls in an answer."""
        return _parser(self.format, self.tools) if self.tools else None


@dataclass(frozen=True)
class ChatOptions:
    """What may be asked of an answer besides sampling; see Model.chat."""

    think: bool | None = None
    thinking_budget: int | None = None
    reasoning_effort: str | None = None
    response_format: Any = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    begun: Begun | None = None  # go on with this answer


def ask(template: ChatTemplate, tokenizer: Tokenizer, messages: Any, options: ChatOptions) -> Ask:
    """Put a request together. Raises RequestError naming what in it cannot be used."""
    think, budget = read_effort(options.reasoning_effort, options.think, options.thinking_budget)
    request = read_tools(options.tools, options.tool_choice, options.parallel_tool_calls)
    format, answer = format_of(template.text), response_grammar(options.response_format)
    if request and format.behind_thought is not None and think is False:
        think, budget = None, 0  # an empty thought in the prompt would lead past the calls
    plain, tools = with_tools(plain_messages(messages), request, format)
    prompt = template.render(plain, add_generation_prompt=True, tools=tools, thinking=think,
                             extra=effort_variables(options.reasoning_effort))
    deltas = DeltaStream(template.family, prompt)
    if budget == 0 and deltas.thinking:  # the prompt itself opens thinking: close it there
        prompt += deltas.closing_text
        deltas = DeltaStream(template.family, prompt)
    opening = None
    if options.begun is not None and any(options.begun):
        prompt, opening = go_on(prompt, template.family, options.begun)
        deltas = DeltaStream(template.family, opening)
    thinking = _thinking(template, deltas, prompt, budget, format if request else None)
    if request is None:
        return Ask(prompt, template.family, budget, thinking, answer, format, None, frozenset(), opening)
    grammar = call_grammar(format, request, quoting(tokenizer, format), answer)
    special = tokenizer.vocabulary.special
    shown = frozenset(special[mark] for mark in format.marks if mark in special)
    return Ask(prompt, template.family, budget, thinking, grammar, format, request, shown, opening)


def _parser(format: ToolFormat, request: ToolRequest) -> CallParser:
    return CallParser(format.read, {tool.name: tool.parameters for tool in request.tools})


def _thinking(template: ChatTemplate, deltas: DeltaStream, prompt: str, budget: int | None,
              format: ToolFormat | None) -> ThinkingTexts | None:
    family = template.family
    if family is None:
        return None
    before, mark, behind = family.closing_text.partition(family.closing)
    if format is not None and format.behind_thought is not None:
        behind = format.behind_thought
    may_open = not deltas.thinking and budget != 0 and not prompt.rstrip("\n ").endswith(family.closing)
    return ThinkingTexts(family.opening if may_open else "", before + mark + behind, behind)
