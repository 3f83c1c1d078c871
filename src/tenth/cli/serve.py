"""``tenth serve MODEL...``: models over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from tenth.cli.flags import known_models, load_settings
from tenth.cli.opening import load_model, showing_progress
from tenth.cli.qr import show_code
from tenth.cli.terminal import message
from tenth.config import EngineConfig
from tenth.errors import RequestError
from tenth.server.config import ServerConfig

if TYPE_CHECKING:
    from tenth.server.app import App
    from tenth.server.lan import Lan

ModelsArgument = Annotated[list[str] | None, typer.Argument(
    help="Names, files, URLs or hf:ORG/REPO:QUANT; NAME=MODEL gives one another name in requests.",
    metavar="MODEL", autocompletion=known_models, show_default=False)]


def command(server: ServerConfig, engine: EngineConfig, models: ModelsArgument = None) -> None:
    """Serve models to programs: OpenAI's, Anthropic's and Ollama's APIs.

    The first model is opened at once, the others when a request names them; without any, those of the library are.
    docs/server.md has the routes, docs/chats.md what --lan does.
    """
    serve(named(models or []), server, engine)


def serve(sources: Sequence[tuple[str, str]], server: ServerConfig, engine: EngineConfig,
          opened: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes. ``opened`` is told the address once requests are answered there."""
    from tenth.server import logs, whereabouts
    from tenth.server.app import App
    from tenth.server.lan import open_lan
    from tenth.server.running import Server, listen
    from tenth.server.state import state_place

    logs.set_up(server.log_level)
    settings = load_settings(engine) | {"note_experts": True}  # the page shows which ran
    with ExitStack() as stack:
        sock = stack.enter_context(closing(listen(server)))
        port = sock.getsockname()[1]
        lan = open_lan(server, port) if server.lan else None
        if lan is not None:
            stack.enter_context(closing(lan.sock))
        app = App(sources, lambda source: load_model(source, **settings), server,
                  state_place(server.database), engine)
        if sources:
            with showing_progress() as progress:
                first = load_model(sources[0][1], progress=progress, **settings)
            app.shelf.put(sources[0][0], first)
        where, here = (address(server, port, is_here) for is_here in (False, True))

        def ready() -> None:
            stack.enter_context(whereabouts.announced(here))
            message(f"serving {', '.join(name for name, _ in sources) or 'the models of the library'} at {where} "
                    f"({where}/docs)" + (", with keys" if app.needs_key() else ""))
            if lan is not None:
                _invite(app, lan)
            opened(here)

        Server(app, sock, ready, lan).run()


def address(server: ServerConfig, port: int, is_here: bool) -> str:
    """The server's address as it was given, or as this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host) if is_here else server.host
    return f"{server.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _invite(app: App, lan: Lan) -> None:
    """Show how a phone comes in."""
    from tenth.server.lan import AUTHORITY_PATH, link_for

    link = link_for(app.sessions, None, lan.url)
    message("\nFor a phone in this network; the link works once, within ten minutes. The page shows new ones.\n")
    show_code(link.url)
    message(link.url)
    if lan.certificate is None:
        message("\nNOT ENCRYPTED: whoever is in this network can read along, and take the link.\n")
    else:
        message("\nIt is encrypted with a certificate that was made here, so the phone asks once whether to trust it.\n"
                f"SHA-256 {lan.certificate.fingerprint}\n"
                "\nWhere this machine's authority is installed it does not, and keeps the page for use offline\n"
                f"(the page says how): {lan.url}{AUTHORITY_PATH}\nSHA-256 {lan.certificate.authority_fingerprint}\n")


def named(models: list[str]) -> list[tuple[str, str]]:
    """(name in requests, what to open) of each model. A file is called by its name without its folder."""
    found: dict[str, str] = {}
    for text in models:
        name, equals, source = text.partition("=")
        if not equals or "/" in name or "?" in name:  # an address may hold a "=" too
            name, source = text, text
        if name.endswith(".gguf"):
            name = name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
        if not name or name in found:
            raise RequestError(f"two models would be called {name!r}" if name else f"{text!r} has no name",
                               "NAME=MODEL gives one another name")
        found[name] = source
    return list(found.items())
