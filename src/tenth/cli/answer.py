"""One question, one answer: what ``ask`` and ``run`` share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tenth.cli.flags import AnswerFlags, GrammarFlags, SamplingFlags
from tenth.cli.opening import open_model
from tenth.cli.prompt import checked, read_text_file
from tenth.cli.terminal import expert_line, is_terminal, message, write, write_json, write_line
from tenth.config import EngineConfig
from tenth.errors import RequestError

if TYPE_CHECKING:
    from tenth.model import Model
    from tenth.stream import Piece, Stream
    from tenth.text.grammar import Grammar


NO_GRAMMAR = GrammarFlags()


@dataclass(frozen=True)
class Question:
    """Everything that shapes one answer. ``model`` None: the default model."""

    model: str | None
    prompt: str
    sampling: SamplingFlags
    engine: EngineConfig
    flags: AnswerFlags
    grammar: GrammarFlags = NO_GRAMMAR


def answer(question: Question) -> None:
    """Prints the answer to standard output as it is generated, or as one JSON object at the end."""
    flags, settings = question.flags, question.sampling.chosen()
    check(question)
    grammar = read_grammar(question.grammar)
    template = read_text_file(flags.template, "the template") if flags.template else None
    with open_model(question.model, question.engine, template) as model:
        stream = start(model, question, settings, grammar)
        if flags.json:
            for _ in stream:
                pass
            write_json(as_json(model, stream, bool(settings.get("top_logprobs"))))
        else:
            show = is_terminal(sys.stdout) if flags.show_thinking is None else flags.show_thinking
            show_stream(stream, show)
            if experts := model.expert_statistics():
                message(expert_line(experts))


def check(question: Question) -> None:
    """Raises RequestError for flags that exclude each other, before anything slow happens."""
    flags = question.flags
    chat_only = {"--system": flags.system, "--think": flags.think or None, "--template": flags.template,
                 "--thinking-budget": flags.thinking_budget}
    for name, value in chat_only.items():
        if flags.raw and value is not None:
            raise RequestError(f"--raw and {name} exclude each other", "raw text has no template, roles or thinking")
    if flags.think is False and flags.thinking_budget is not None:
        raise RequestError("--no-think and --thinking-budget exclude each other")
    if question.sampling.top_logprobs and not flags.json:
        raise RequestError("--top-logprobs needs --json", "the plain answer has no place for them")


def read_grammar(flags: GrammarFlags) -> Grammar | None:
    """The grammar that was asked for. Raises RequestError for more than one, or a file that cannot be read."""
    given = {f"--{name.replace('_', '-')}": value for name, value in asdict(flags).items() if value is not None}
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} exclude each other")
    if not given:
        return None
    from tenth.text.grammar import Grammar

    if flags.regex is not None:
        return Grammar.regex(checked(flags.regex, "the regular expression"))
    if flags.grammar is not None:
        return Grammar.lark(read_text_file(flags.grammar, "the grammar"))
    return Grammar.json_schema(read_text_file(flags.json_schema or "", "the JSON schema"))


def start(model: Model, question: Question, settings: dict[str, Any], grammar: Grammar | None) -> Stream:
    """The stream of the answer."""
    flags = question.flags
    if grammar is not None:
        settings = {**settings, "grammar" if flags.raw else "response_format": grammar}
    if flags.raw:
        return model.generate(question.prompt, **settings)
    messages = [{"role": "user", "content": question.prompt}]
    if flags.system is not None:
        messages.insert(0, {"role": "system", "content": checked(flags.system, "the system text")})
    return model.chat(messages, think=flags.think, thinking_budget=flags.thinking_budget, **settings)


class Pieces(Protocol):
    """What can be shown as it is made: a Stream, or something that reads one."""

    def __iter__(self) -> Iterator[Piece]: ...

    def cancel(self) -> None:
        """End it."""


def show_stream(stream: Pieces, show_thinking: bool) -> None:
    """Prints the pieces of an answer: thinking dimmed (or left out), an empty line, then the content.

    Leaves the cursor at the start of a line. On any interruption the stream is cancelled.
    """
    thinking, last, started = False, "", False
    try:
        for piece in stream:
            text = str(piece)
            if piece.kind == "thinking" and not show_thinking:
                continue
            if thinking and piece.kind != "thinking":
                write("\n\n" if not last.endswith("\n") else "\n")
                text = text.lstrip("\n")
            thinking, started = piece.kind == "thinking", started or bool(text)
            last = text or last
            write(text, dim=thinking)
        if not started or not last.endswith("\n"):
            write_line()
    except BaseException:
        stream.cancel()
        raise


def as_json(model: Model, stream: Stream, with_logprobs: bool) -> dict[str, Any]:
    """The whole answer as the object that ``--json`` prints."""
    result: dict[str, Any] = {
        "model": model.name,
        "text": stream.text,
        "thinking": stream.thinking,
        "finish_reason": stream.finish_reason,
        "usage": asdict(stream.usage),
        "timings": asdict(stream.timings),
        "speculation": asdict(stream.speculation),
        "memory": model.memory(),
    }
    if experts := model.expert_statistics():
        result["experts"] = experts
    if lossy := model.lossy:
        result["lossy"] = lossy
    if with_logprobs:
        result["logprobs"] = [asdict(choice) for choice in stream.logprobs]
    return result
