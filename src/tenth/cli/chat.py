"""``tenth chat [MODEL]``: a conversation in the terminal, with history, several lines of input and /commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.answer import Question, check, show_stream
from tenth.cli.conversation import Conversation
from tenth.cli.editor import Editor
from tenth.cli.failure import explain
from tenth.cli.flags import AnswerFlags, SamplingFlags, known_models
from tenth.cli.opening import default_model, open_model
from tenth.cli.prompt import checked, read_text_file
from tenth.cli.terminal import in_units, is_terminal, message, table
from tenth.config import EngineConfig
from tenth.errors import RequestError, TenthError

if TYPE_CHECKING:
    from tenth.model import Model
    from tenth.stream import Stream

HELP = """\
/system TEXT      instructions for the model (without: show; "none" removes)
/set NAME VALUE   change temperature, think, thinking_budget or another setting
                  (without: show what is set; VALUE "default" resets)
/retry            answer the last question again
/clear            forget the conversation
/save FILE        write the conversation: JSON for .json, else Markdown
/load FILE        read a conversation saved as JSON
/stats            show what the last answer cost
/model [NAME]     show the model, or go on with another one
/help             show this
/exit             leave (Ctrl-D too)

A line that ends in \\ goes on in the next one; between two lines of \"\"\"
everything is one message. Ctrl-C stops an answer."""


def command(
    sampling: SamplingFlags,
    engine: EngineConfig,
    flags: AnswerFlags,
    model: Annotated[str | None, typer.Argument(help="Name, file, URL or hf:ORG/REPO:QUANT; default: the default "
                                                     "model.", show_default=False, metavar="MODEL",
                                                autocompletion=known_models)] = None,
    history: Annotated[bool, typer.Option(help="Keep what is typed for the arrow keys, in the data folder.")] = True,
) -> None:
    """Talk with a model.

    In the chat, /help lists the commands. Lines piped in are asked one after the other.
    """
    if flags.json or flags.raw:
        raise RequestError("chat takes neither --json nor --raw", "tenth run MODEL PROMPT does")
    converse(Question(model, "", sampling, engine, flags), history)


def converse(first: Question, history: bool) -> None:
    """Runs the chat until /exit or the end of the input."""
    check(first)
    settings = first.sampling.chosen()
    for key in ("think", "thinking_budget"):
        if getattr(first.flags, key) is not None:
            settings[key] = getattr(first.flags, key)
    system = None if first.flags.system is None else checked(first.flags.system, "the system text")
    talk = Conversation(system, settings=settings)
    template = read_text_file(first.flags.template, "the template") if first.flags.template else None
    start = first.model or default_model()
    name: str | None = start
    before: str | None = None  # the model to return to
    with Editor(history) as editor:
        while name is not None:
            with ExitStack() as opened:
                try:  # a template belongs to the model it was given for
                    model = opened.enter_context(open_model(name, first.engine, template if name == start else None))
                except (TenthError, KeyboardInterrupt) as error:
                    if before is None:
                        raise
                    complain(error)
                    name, before = before, None
                    continue
                chat = Chat(model, talk, editor, first.flags.show_thinking)
                chat.greet()
                name, before = chat.loop(), name


class Chat:
    """One model's part of a conversation."""

    def __init__(self, model: Model, talk: Conversation, editor: Editor, show_thinking: bool | None):
        self.model, self.talk, self.editor = model, talk, editor
        self.show_thinking = is_terminal(sys.stdout) if show_thinking is None else show_thinking
        self.last: Stream | None = None  # the last answer
        self.next_model: str | None = None
        self.commands: dict[str, Callable[[str], str | None]] = {
            "/help": lambda _: HELP, "/?": lambda _: HELP, "/system": self.system, "/set": self.talk.set,
            "/retry": self.retry, "/clear": self.clear, "/save": self.save, "/load": self.load,
            "/stats": lambda _: self.stats(), "/model": self.change_model,
        }

    def greet(self) -> None:
        """Says which model this is."""
        if self.editor.live:
            message(f"{self.model.name}: {describe(self.model)}", dim=True)
            message("/help lists commands, Ctrl-D leaves", dim=True)

    def loop(self) -> str | None:
        """Reads and answers until the end; gives the name of the model to go on with, or None."""
        while True:
            try:
                text = self.editor.read()
            except KeyboardInterrupt:
                message("(Ctrl-D or /exit leaves)", dim=True)
                continue
            except RequestError as error:  # a line that is not UTF-8
                if not self.editor.live:
                    raise
                message(str(error))
                continue
            if text is None or text.strip() in ("/exit", "/quit", "/bye"):
                return None
            if text.strip():
                self.handle(text)
            if self.next_model is not None:
                return self.next_model

    def handle(self, text: str) -> None:
        """One input: a command or a question. Errors are printed and the chat goes on."""
        try:
            if not text.startswith("/"):
                self.ask(text)
                return
            word, _, rest = text.strip().partition(" ")
            if word not in self.commands:
                raise RequestError(f"there is no command {word}", "/help lists them; a space first makes it a question")
            said = self.commands[word](rest.strip())
            if said:
                message(said)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            message("(stopped)", dim=True)
        except Exception as error:  # the conversation must outlive any one failure
            complain(error)

    def ask(self, text: str) -> None:
        """Answers ``text``. Ctrl-C keeps the part that was answered; an error takes the question back."""
        self.talk.add("user", text)
        stream = None
        try:
            stream = self.model.chat(self.talk.for_model(), **self.talk.settings)
            show_stream(stream, self.show_thinking)
        except KeyboardInterrupt:
            if stream is not None and stream.text:
                self.talk.add("assistant", stream.text)
            else:
                self.talk.take_back()
            self.last = stream or self.last
            message("\n(stopped)", dim=True)
            return
        except BaseException:
            self.talk.take_back()
            raise
        self.last = stream
        self.talk.add("assistant", stream.text, stream.thinking)
        if self.editor.live:
            message(speed_line(stream), dim=True)

    def retry(self, _: str) -> None:
        """/retry"""
        before, question = list(self.talk.messages), self.talk.take_back()
        n_kept = len(self.talk.messages)
        try:
            self.ask(question)
        finally:
            if len(self.talk.messages) == n_kept:  # no answer came in place of the old one
                self.talk.messages = before

    def clear(self, _: str) -> str:
        """/clear"""
        self.talk.messages.clear()
        return "the conversation is forgotten"

    def system(self, text: str) -> str:
        """/system"""
        if text:
            self.talk.system = None if text == "none" else text
        return f"system: {self.talk.system}" if self.talk.system else "there is no system text"

    def save(self, name: str) -> str:
        """/save"""
        if not name:
            raise RequestError("/save needs the name of a file", "for example /save talk.md")
        return self.talk.save(name)

    def load(self, name: str) -> str:
        """/load"""
        if not name:
            raise RequestError("/load needs the name of a file")
        return self.talk.load(name)

    def stats(self) -> str:
        """/stats"""
        if self.last is None:
            return "nothing has been answered yet"
        figures = asdict(self.last.usage) | asdict(self.last.timings)
        rows = [(key.replace("_", " "), f"{value:.4g}") for key, value in figures.items() if value is not None]
        rows += [(key.removesuffix("_bytes") + " memory", in_units(n)) for key, n in self.model.memory().items()]
        rows += [(f"experts: {key.replace('_', ' ')}", f"{value:.4g}")
                 for key, value in self.model.expert_statistics().items()]
        return table(rows)

    def change_model(self, name: str) -> str | None:
        """/model"""
        if not name:
            return f"{self.model.name}: {describe(self.model)}"
        from tenth.library import resolve

        resolve(name, download=False)  # raises here, while this model is still open, when there is no such model
        self.next_model = name
        return None


def complain(error: BaseException) -> None:
    """Says what went wrong; the chat goes on."""
    what, hint, _ = explain(error, None)
    message(what + (f"\nhint: {hint}" if hint else ""))


def describe(model: Model) -> str:
    """One line about a model."""
    about = model.description
    return (f"{about['architecture']}, {about['parameters'] / 1e6:,.0f} M parameters ({' '.join(about['formats'])}), "
            f"context of {about['context_tokens']} tokens")


def speed_line(stream: Stream) -> str:
    """What an answer took, in one line."""
    times = stream.timings
    parts = [f"{stream.usage.completion_tokens} tokens"]
    if times.generated_tokens_per_second:
        parts.append(f"{times.generated_tokens_per_second:.1f} tokens/s")
    if times.first_token_s is not None:
        parts.append(f"first after {times.first_token_s:.2f} s")
    if stream.finish_reason == "length":
        parts.append("cut off at the limit")
    return ", ".join(parts)
