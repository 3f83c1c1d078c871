"""``tenth chat [MODEL]``: a conversation in the terminal, with history, several lines of input and /commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.answer import Question, check, show_stream
from tenth.cli.chat_texts import HELP, describe, speed_line
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
    from tenth.cli.keeping import Kept, Notebook
    from tenth.model import Model
    from tenth.stream import Stream


def command(
    sampling: SamplingFlags,
    engine: EngineConfig,
    flags: AnswerFlags,
    model: Annotated[str | None, typer.Argument(help="Name, file, URL or hf:ORG/REPO:QUANT; default: the default "
                                                     "model.", show_default=False, metavar="MODEL",
                                                autocompletion=known_models)] = None,
    history: Annotated[bool, typer.Option(help=(
        "Keep what is said, among the chats of the page, and what is typed for the arrow keys."))] = True,
    go_on: Annotated[str | None, typer.Option("--open", help=(
        "Go on with a chat: its id, or last. Also kept where lines are piped in, which else are not."),
        metavar="CHAT", show_default=False)] = None,
    account: Annotated[str | None, typer.Option(help="Whose chats; default: those of this machine's owner.",
                                                show_default=False)] = None,
) -> None:
    """Talk with a model.

    In the chat, /help lists the commands. Lines piped in are asked one after the other. What is said here is also on
    the page of tenth app and tenth serve, and the other way round.
    """
    if flags.json or flags.raw:
        raise RequestError("chat takes neither --json nor --raw", "tenth run MODEL PROMPT does")
    if go_on is not None and not history:
        raise RequestError("--open and --no-history exclude each other")
    with ExitStack() as stack:
        book = None
        if history and (go_on is not None or is_terminal(sys.stdin)):
            from tenth.cli.keeping import Notebook
            from tenth.server.state import State, state_place

            book = Notebook(stack.enter_context(closing(State(state_place()))), account)
        converse(Question(model, "", sampling, engine, flags), history, book, go_on)


def converse(first: Question, history: bool, book: Notebook | None = None, go_on: str | None = None) -> None:
    """Runs the chat until /exit or the end of the input."""
    check(first)
    settings = first.sampling.chosen()
    for key in ("think", "thinking_budget"):
        if getattr(first.flags, key) is not None:
            settings[key] = getattr(first.flags, key)
    system = None if first.flags.system is None else checked(first.flags.system, "the system text")
    talk = Conversation(system, settings=settings)
    template = read_text_file(first.flags.template, "the template") if first.flags.template else None
    opened_chat = book.open(go_on, talk) if book is not None and go_on is not None else None
    if first.flags.system is not None:
        talk.system = system
    start = first.model or (opened_chat and known(opened_chat["model"])) or default_model()
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
                chat = Chat(model, talk, editor, first.flags.show_thinking, book)
                chat.called = Path(name).stem if name.endswith(".gguf") else name  # as tenth serve calls it
                chat.greet()
                if opened_chat is not None and before is None:
                    chat.show_last(opened_chat["title"])
                name, before = chat.loop(), name


class Chat:
    """One model's part of a conversation."""

    def __init__(self, model: Model, talk: Conversation, editor: Editor, show_thinking: bool | None,
                 book: Notebook | None = None):
        self.model, self.talk, self.editor, self.book = model, talk, editor, book
        self.show_thinking = is_terminal(sys.stdout) if show_thinking is None else show_thinking
        self.called = model.name  # in chats that are kept
        self.last: Stream | None = None  # the last answer
        self.next_model: str | None = None
        self.commands: dict[str, Callable[[str], str | None]] = {
            "/help": lambda _: HELP, "/?": lambda _: HELP, "/system": self.system, "/set": self.talk.set,
            "/retry": self.retry, "/clear": self.clear, "/save": self.save, "/load": self.load,
            "/stats": lambda _: self.stats(), "/model": self.change_model, "/chats": self.list_chats,
            "/open": self.open_chat, "/delete": self.delete_chat,
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

    def ask(self, text: str, again: bool = False) -> None:
        """Answers ``text``. Ctrl-C keeps the part that was answered; an error takes the question back."""
        self.talk.add("user", text)
        stream = None
        try:
            with self._keeping(again) as kept:
                stream = self.model.chat(self.talk.for_model(), **self.talk.settings)
                show_stream(kept.of(stream) if kept else stream, self.show_thinking)
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

    def _keeping(self, again: bool) -> AbstractContextManager[Kept | None]:
        if self.book is None:
            return nullcontext()
        if again and self.book.chat_id is not None and self.book.leaf is not None:
            return self.book.again(self.called)
        return self.book.answer(self.talk, self.called)

    def retry(self, _: str) -> None:
        """/retry"""
        before, question = list(self.talk.messages), self.talk.take_back()
        n_kept = len(self.talk.messages)
        try:
            self.ask(question, again=True)
        finally:
            if len(self.talk.messages) == n_kept:  # no answer came in place of the old one
                self.talk.messages = before

    def list_chats(self, words: str) -> str:
        """/chats"""
        from tenth.cli.keeping import rows

        return table(rows(self._book().listed(words)), frozenset({0})) or "there is none"

    def open_chat(self, which: str) -> str | None:
        """/open"""
        if not which:
            raise RequestError("/open needs a number of /chats, or last")
        chat = self._book().open(which, self.talk)
        self.show_last(chat["title"])
        return None

    def delete_chat(self, _: str) -> str:
        """/delete"""
        self._book().delete()
        self.talk.messages.clear()
        return "the conversation is deleted"

    def show_last(self, title: str) -> None:
        """Says where a conversation that goes on had got to."""
        message(f"{title or '(no title)'}: {len(self.talk.messages)} messages", dim=True)
        for said in self.talk.messages[-2:]:
            message(f"{'>>> ' if said['role'] == 'user' else ''}{said['content'].strip()}", dim=True)

    def _book(self) -> Notebook:
        if self.book is None:
            raise RequestError("this conversation is not kept", "in a terminal it is, unless --no-history was given")
        return self.book

    def clear(self, _: str) -> str:
        """/clear"""
        self.talk.messages.clear()
        if self.book is not None:
            self.book.leave()
            return "a new conversation; /chats has the others"
        return "the conversation is forgotten"

    def system(self, text: str) -> str:
        """/system"""
        if text:
            self.talk.system = None if text == "none" else text
            if self.book is not None:
                self.book.set_system(self.talk.system)
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
        said = self.talk.load(name)
        if self.book is not None:
            self.book.leave()  # kept as another one, from the next question on
        return said

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


def known(name: str | None) -> str | None:
    """The name of a model that is here, if this is one."""
    from tenth.library import resolve

    with suppress(TenthError):
        return name if name is not None and resolve(name, download=False) else None
    return None


def complain(error: BaseException) -> None:
    """Says what went wrong; the chat goes on."""
    what, hint, _ = explain(error, None)
    message(what + (f"\nhint: {hint}" if hint else ""))
