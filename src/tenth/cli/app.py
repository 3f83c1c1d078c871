"""``tenth app``: the chat page in the browser, with a server if none runs."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Annotated

import typer

from tenth.cli.serve import ModelsArgument, named, serve
from tenth.cli.terminal import message
from tenth.config import EngineConfig
from tenth.errors import ResourceError
from tenth.server.config import ServerConfig


def command(
    server: ServerConfig,
    engine: EngineConfig,
    models: ModelsArgument = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open the chat page in the browser, with a server if none runs.

    No model is needed: the page proposes one that fits this machine, and fetches it. Flags are those of tenth serve;
    they count where the server is started here, which goes on until Ctrl-C.
    """
    from tenth.server.running import listen
    from tenth.server.whereabouts import running

    if url := running():
        message(f"tenth runs at {url} already" + ("; the models named are left to it" if models else ""))
        show(url, browser)
        return
    if server.port == ServerConfig.port:
        try:
            listen(server).close()
        except ResourceError:  # somebody else's program is there
            server = replace(server, port=0)
    message("starting tenth; Ctrl-C ends it")
    serve(named(models or []), server, engine, lambda url: show(url, browser))


def show(url: str, browser: bool) -> None:
    """Open the page, where there is a screen to open it on; the address is said anyway."""
    if browser and has_screen():
        threading.Thread(target=_open, args=(url,)).start()  # some browsers keep their caller waiting
    else:
        message(f"the page is at {url}")


def has_screen() -> bool:
    """Whether a browser with windows can be expected: BROWSER names one, or a display is there."""
    return any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


def _open(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        message(f"no browser could be opened; the page is at {url}")
