"""Groups of flags that several commands share, each a dataclass with one sentence per field.

A command takes a whole group as one parameter (``sampling: SamplingFlags``); ``expand`` turns it into one flag per
field for typer and hands the command the group back. EngineConfig is such a group as it stands, so a new engine
setting is a new flag of every command at once.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

from tenth.config import EngineConfig
from tenth.errors import RequestError

# Short spellings, as in tenth.load(context=…, kv=…); the long ones work too.
SHORT = {"context_tokens": "context", "kv_format": "kv", "memory_bytes": "memory"}


_METAVARS = {int: "N", float: "X", str: "TEXT"}  # what help shows for a flag's value


def flag(default: Any, help: str, **how: Any) -> Any:
    """A field of a group: ``how`` is passed to typer.Option (min, max, metavar); ``names`` replaces its spellings."""
    return field(default=default, metadata={"help": help, **how})


@dataclass(frozen=True)
class SamplingFlags:
    """How the next token is chosen. None: what the model's file recommends, else tenth's default."""

    temperature: float | None = flag(None, "Spread of the choice; 0 always takes the likeliest token.", min=0.0)
    top_k: int | None = flag(None, "Choose among the N likeliest tokens; 0 means all.", min=0, metavar="N")
    top_p: float | None = flag(None, "Choose among the likeliest tokens that add up to this probability.",
                               min=0.0, max=1.0)
    min_p: float | None = flag(None, "Leave out tokens less likely than this share of the likeliest.",
                               min=0.0, max=1.0)
    repetition_penalty: float | None = flag(None, "Divide the score of tokens already used; 1 means off.", min=0.0)
    presence_penalty: float | None = flag(None, "Subtract this from tokens that already occurred.")
    frequency_penalty: float | None = flag(None, "Subtract this for each time a token occurred.")
    logit_bias: list[str] | None = flag(  # noqa: RUF009
        None, "Add VALUE to the score of token ID; may be repeated.", metavar="ID=VALUE")
    seed: int | None = flag(None, "Start of the random numbers: the same seed gives the same text.",
                            min=0, max=(1 << 64) - 1)
    stop: list[str] | None = flag(  # noqa: RUF009
        None, "End the answer before this text; may be repeated.", metavar="TEXT")
    max_tokens: int | None = flag(None, "Most tokens to generate.", min=1, metavar="N")
    top_logprobs: int | None = flag(None, "Also give the N likeliest tokens of each step (with --json).",
                                    min=0, metavar="N")
    ignore_eos: bool | None = flag(None, "Go on past the model's end tokens.", names=("--ignore-eos",))

    def chosen(self) -> dict[str, Any]:
        """The settings given on the command line, as the model's methods take them."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.logit_bias:
            given["logit_bias"] = dict(bias(text) for text in self.logit_bias)
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise RequestError(f"{name} is {value}, expected a finite number")
        return {name: value for name, value in given.items() if value not in (None, [])}


@dataclass(frozen=True)
class AnswerFlags:
    """What is asked and how the answer is shown."""

    system: str | None = flag(None, "Instructions that the model gets before the conversation.", metavar="TEXT")
    think: bool | None = flag(None, "Let the model think first, or not; default: as the model does.",
                              names=("--think/--no-think",))
    thinking_budget: int | None = flag(None, "End the thinking after N tokens.", min=0, metavar="N")
    template: str | None = flag(None, "Chat template (Jinja) to use in place of the model's.", metavar="FILE")
    show_thinking: bool | None = flag(None, "Print the thinking; default: in a terminal, not in a pipe.",
                                      names=("--show-thinking/--hide-thinking",))
    raw: bool = flag(False, "Continue the text as it is, without a chat template.", names=("--raw",))
    json: bool = flag(False, "Print one JSON object with text, thinking, usage, timings, speculation and memory.",
                      names=("--json",))


@dataclass(frozen=True)
class GrammarFlags:
    """What the answer has to match; at most one of them."""

    json_schema: str | None = flag(None, "Answer with JSON that this schema accepts.", metavar="FILE")
    regex: str | None = flag(None, "Answer with a text that this regular expression matches.", metavar="TEXT")
    grammar: str | None = flag(None, "Answer with a text that this Lark grammar accepts.", metavar="FILE")


def bias(text: str) -> tuple[int, float]:
    """``"50=-2.5"`` -> (50, -2.5). Raises RequestError."""
    token, _, value = text.partition("=")
    try:
        number = float(value)
        if not token.strip().isdecimal() or not math.isfinite(number):
            raise ValueError
        return int(token), number
    except ValueError:
        raise RequestError(f"logit bias {text!r} is not ID=VALUE", "for example --logit-bias 50=-2.5") from None


def known_models(incomplete: str) -> list[str]:
    """Names of models that begin with ``incomplete``, for shell completion; nothing when they cannot be told."""
    try:
        from tenth.library import list_models

        return sorted(m.name for m in list_models() if str(m.name).startswith(incomplete))
    except Exception:  # a message here would land in the middle of the line being typed
        return []


ModelArgument = Annotated[str, typer.Argument(help="Name, file, URL or hf:ORG/REPO:QUANT.", metavar="MODEL",
                                              autocompletion=known_models)]


def load_settings(engine: EngineConfig) -> dict[str, Any]:
    """Engine settings as keywords of tenth.load."""
    return {SHORT.get(f.name, f.name): getattr(engine, f.name) for f in fields(engine)}


def is_group(hint: Any) -> bool:
    """Whether a parameter with this annotation stands for a group of flags."""
    return isinstance(hint, type) and is_dataclass(hint)


def expand(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with every parameter that is a group replaced by that group's flags."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_group(hint)}
    if not groups:
        return function
    parameters = [p.replace(annotation=hints.get(name, p.annotation))
                  for name, p in inspect.signature(function).parameters.items() if name not in groups]
    for group in groups.values():
        types = get_type_hints(group)
        parameters += [_parameter(f, types[f.name]) for f in fields(group)]

    @functools.wraps(function)
    def call(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        return function(**values)

    del call.__wrapped__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _parameter(spec: Field[Any], kind: Any) -> inspect.Parameter:
    """A field as a keyword parameter that typer understands."""
    how = dict(spec.metadata)
    dashed = spec.name.replace("_", "-")
    names = how.pop("names", None)
    if names is None and (kind is bool or bool in get_args(kind)):
        names = (f"--{dashed}/--no-{dashed}",)
    names = names or tuple(dict.fromkeys(f"--{n.replace('_', '-')}" for n in (SHORT.get(spec.name, spec.name), dashed)))
    for plain, metavar in _METAVARS.items():
        if kind is plain or plain in get_args(kind):
            how.setdefault("metavar", metavar)
    assert spec.default is not MISSING, f"flag {spec.name} has no default"
    option = Annotated[kind, typer.Option(*names, show_default=spec.default is not None, **how)]
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=spec.default, annotation=option)
