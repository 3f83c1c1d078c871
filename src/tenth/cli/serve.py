"""``tenth serve MODEL...``: models over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from tenth.cli.flags import known_models, load_settings
from tenth.cli.opening import load_model, showing_progress
from tenth.cli.terminal import message
from tenth.config import EngineConfig
from tenth.errors import RequestError
from tenth.server.config import ServerConfig


def command(
    server: ServerConfig,
    engine: EngineConfig,
    models: Annotated[list[str] | None, typer.Argument(
        help="Names, files, URLs or hf:ORG/REPO:QUANT; NAME=MODEL gives one another name in requests.",
        metavar="MODEL", autocompletion=known_models, show_default=False)] = None,
) -> None:
    """Serve models to programs: OpenAI's, Anthropic's and Ollama's APIs.

    The first model is opened at once, the others when a request names them; without any, those of the library are.
    docs/server.md has the routes.
    """
    from tenth.server import logs
    from tenth.server.app import App
    from tenth.server.running import Server, listen
    from tenth.server.state import state_place

    sources = named(models or [])
    logs.set_up(server.log_level)
    settings = load_settings(engine) | {"note_experts": True}  # the page shows which ran
    sock = listen(server)
    try:
        app = App(sources, lambda source: load_model(source, **settings), server,
                  state_place(server.database), engine)
        if sources:
            with showing_progress() as progress:
                first = load_model(sources[0][1], progress=progress, **settings)
            app.shelf.put(sources[0][0], first)
        where = f"{server.scheme}://{server.host}:{sock.getsockname()[1]}"
        Server(app, sock, lambda: message(
            f"serving {', '.join(name for name, _ in sources) or 'the models of the library'} at {where} ({where}/docs)"
            + (", with keys" if app.needs_key() else ""))).run()
    finally:
        sock.close()


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
