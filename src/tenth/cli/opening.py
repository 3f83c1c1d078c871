"""Opens the model a command asks for, showing how far it is. The only place where the command line loads models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenth.cli.flags import load_settings
from tenth.cli.terminal import in_units, is_terminal, message, visible
from tenth.config import EngineConfig

if TYPE_CHECKING:
    from tenth.library import Progress
    from tenth.model import Model

LOADING = "loading"  # what tenth.load reports while it reads weights
SHOW_AFTER_S = 0.4  # a load that is done by then shows nothing


def load_model(name: str, **settings: Any) -> Model:
    """tenth.load, imported when called. Tests put a model of their own here."""
    import tenth

    return tenth.load(name, **settings)


@contextmanager
def open_model(name: str | None, engine: EngineConfig, template: str | None = None) -> Iterator[Model]:
    """The model (None: the default one), closed at the end. ``template``: text of a chat template."""
    if name is None:
        name = default_model()
    settings = load_settings(engine)
    if template is not None:
        settings["template"] = template
    with showing_progress() as progress:
        model = load_model(name, progress=progress, **settings)
    for note in getattr(model, "notes", ()):
        message(f"note: {note}")
    try:
        yield model
    finally:
        model.close()


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """A Progress: one line for loading, which takes seconds; the bars of ``tenth pull`` for a download."""
    from tenth.cli.progress import progress_bar

    status = StatusLine()
    with progress_bar(transient=True) as bars:
        try:
            yield lambda what, done, total: (status if what == LOADING else bars)(what, done, total)
        finally:
            status.clear()


def default_model() -> str:
    """The model used when none is named."""
    from tenth.library import DEFAULT_MODEL

    return str(DEFAULT_MODEL)


class StatusLine:
    """One line on standard error that rewrites itself: a Progress for anything slow. Silent unless a terminal."""

    def __init__(self) -> None:
        self.start_s = time.monotonic()
        self.last_s = 0.0
        self.shown = False
        self.live = is_terminal(sys.stderr)

    def __call__(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """Shows ``what`` and how much of it is done, at most ten times a second."""
        now = time.monotonic()
        if not self.live or now - self.start_s < SHOW_AFTER_S or now - self.last_s < 0.1:
            return
        self.last_s = now
        amount = in_units(done_bytes)
        if total_bytes > 0:
            share = min(done_bytes / total_bytes, 1.0)
            amount = f"[{'#' * int(20 * share):<20}] {100 * share:3.0f} %  {amount} of {in_units(total_bytes)}"
        self._write(f"\r\x1b[K{visible(what)} {amount}")
        self.shown = True

    def clear(self) -> None:
        """Takes the line away."""
        if self.shown:
            self._write("\r\x1b[K")
        self.shown = False

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            self.live = False
