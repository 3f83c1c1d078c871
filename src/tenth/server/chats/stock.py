"""The models that there are, here or to be had, with what ``tenth plan`` says of each on this machine.

A forecast needs the probe of the machine that plan keeps. Where there is none yet it is measured once, by a process of
its own; until then speeds are not known. Of a model that is not here only the size is known, so its numbers are
estimates and say so.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenth.config import EngineConfig
from tenth.errors import TenthError
from tenth.library import DEFAULT_MODEL, catalogue, list_models
from tenth.library.listing import Entry
from tenth.server.chats.workers import command
from tenth.server.shelf import Shelf
from tenth.weights.budget import memory_budget

PROMPT_TOKENS = 128
STEP_BYTES = 256 << 20  # budgets are rounded down to this: what is free changes all the time, forecasts need not
BESIDES_BYTES = 300 << 20  # what a model takes beside its file: keys and values, workspace, Python
ESTIMATED = (0.4, 0.9)  # shares of the memory's rate at which models of unknown shape generate


@dataclass(frozen=True)
class Outline:
    """What a file's header says, and what is forecast from it."""

    title: str
    parameters: int
    context: int
    has_thinking: bool
    is_moe: bool
    can_chat: bool
    forecast: dict[str, Any]


class Stock:
    """The library as the page shows it. Methods may be called from any thread, but ``probe`` from the event loop."""

    def __init__(self, shelf: Shelf, engine: EngineConfig) -> None:
        self._shelf, self._engine = shelf, engine
        self._lock = threading.Lock()  # one forecast at a time: they take a moment of the processor
        self._kept: dict[tuple[Any, ...], Outline | str] = {}
        self._probing: asyncio.Task[None] | None = None

    def models(self) -> dict[str, Any]:
        """Every model, those that are here first."""
        self._shelf.refresh()
        budget = memory_budget(self._engine.memory_bytes).n_bytes
        entries = {entry.name: entry for entry in list_models(available=True)}
        files = {name for name, served in self._shelf.models.items()
                 if name not in entries or (not _is_here(entries[name]) and Path(served.source).is_file())}
        found = [self._entry(entry, budget) for name, entry in entries.items() if name not in files]
        found += [self._served(name, budget) for name in files]
        found.sort(key=lambda one: (not one["is_here"], one["name"]))
        return {"models": found, "proposal": self._proposal(found), "has_probe": self._probe() is not None,
                "budget_bytes": budget}

    def _entry(self, entry: Entry, budget: int) -> dict[str, Any]:
        is_here = _is_here(entry)
        about = self._about(entry.path, budget) if is_here and entry.path else self._guess(entry, budget)
        return {**self._state(entry.name), "name": entry.name, "is_here": is_here, "state": entry.state,
                "bytes": entry.size_bytes, "licence": entry.licence, "origin": entry.origin,
                "description": entry.description, **about}

    def _served(self, name: str, budget: int) -> dict[str, Any]:
        """A model that was given on the command line, as a file or a name of elsewhere."""
        path = Path(self._shelf.models[name].source)
        about = self._about(path, budget) if path.is_file() else {**_unknown(), "title": name}
        return {**self._state(name), "name": name, "is_here": True, "state": "ready", "licence": "", "origin": "",
                "bytes": path.stat().st_size if path.is_file() else 0, "description": "", **about}

    def _state(self, name: str) -> dict[str, Any]:
        served = self._shelf.models.get(name)
        return {"is_served": served is not None or self._shelf.is_on_demand,
                "is_loaded": served is not None and served.model is not None}

    def _about(self, path: Path, budget: int) -> dict[str, Any]:
        outline = self._outline(path, budget)
        if isinstance(outline, str):
            return {"title": path.stem, "error": outline, **_unknown()}
        return {"title": outline.title or path.stem, "parameters": outline.parameters, "context": outline.context,
                "has_thinking": outline.has_thinking, "is_moe": outline.is_moe, "can_chat": outline.can_chat,
                "is_estimate": False, **outline.forecast}

    def _guess(self, entry: Entry, budget: int) -> dict[str, Any]:
        """Of a model that is not here: by its size."""
        model = catalogue.CATALOGUE.get(entry.name)
        size = model.size_bytes if model else entry.size_bytes
        probe, memory = self._probe(), size + BESIDES_BYTES
        rates = [share * probe.read / size for share in ESTIMATED] if probe and size else None
        return {"title": entry.description or entry.name, **_unknown(), "bytes": size, "memory_bytes": memory,
                "can_chat": "tenth embed" not in entry.description,  # the catalogue says so of vectors
                "fits": memory <= budget, "tokens_per_second": rates, "bound_by": "memory" if rates else None,
                "is_estimate": True}

    def _outline(self, path: Path, budget: int) -> Outline | str:
        """The header's facts and a forecast, or why there are none; kept until the file or the budget changes."""
        about, probe = path.stat(), self._probe()
        key = (str(path), about.st_mtime_ns, about.st_size, budget // STEP_BYTES, probe is not None)
        with self._lock:
            if key not in self._kept:
                if len(self._kept) > 256:
                    self._kept.clear()
                try:
                    self._kept[key] = outline_of(path, self._engine, budget // STEP_BYTES * STEP_BYTES, probe)
                except TenthError as error:
                    self._kept[key] = error.message
            return self._kept[key]

    def _probe(self) -> Any:
        from tenth.forecast.probe import kept_probe

        return kept_probe(None, self._engine.threads)

    def _proposal(self, models: list[dict[str, Any]]) -> str | None:
        """The model to begin with: the largest here that chats, else the largest that takes half of the memory."""
        chat = [one for one in models if one["can_chat"] and one["fits"] is not False
                and (one["is_served"] or not one["is_here"])
                and "base" not in one["description"]]  # the catalogue says so of models that only continue text
        here = [one for one in chat if one["is_here"]]
        if here:
            return str(max(here, key=lambda one: one["bytes"])["name"])
        small = [one for one in chat if 2 * (one["memory_bytes"] or 0) <= self._budget()] or [
            one for one in chat if one["name"] == DEFAULT_MODEL]
        return str(max(small, key=lambda one: one["bytes"])["name"]) if small else None

    def _budget(self) -> int:
        return memory_budget(self._engine.memory_bytes).n_bytes

    def probe(self, then: Callable[[], None]) -> None:
        """Measure the machine once, in a process of its own, if nobody has; call ``then`` when that is done."""
        if self._probing is None and self._probe() is None:
            self._probing = asyncio.create_task(self._measure(then))

    async def _measure(self, then: Callable[[], None]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command("tenth.forecast.probe", str(self._engine.threads)), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
        try:
            if await process.wait() == 0:
                then()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def close(self) -> None:
        """End measuring."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)


def _is_here(entry: Entry) -> bool:
    return entry.state in ("ready", "changed") and entry.path is not None


def outline_of(path: Path, engine: EngineConfig, budget: int, probe: Any) -> Outline:
    """What a file's header says, and what is to be expected of it here. Raises ModelFileError."""
    from tenth.library.facts import header_facts
    from tenth.text.families import family_of
    from tenth.weights.gguf import read_header

    header = read_header(path)
    facts, metadata = header_facts(header), header.metadata
    template = metadata.get_str("tokenizer.chat_template", default="")
    return Outline(
        title=facts.title, parameters=facts.parameters, context=facts.context_tokens,
        has_thinking=family_of(template) is not None,
        is_moe=metadata.get_int(f"{facts.architecture}.expert_count", default=0) > 0,
        can_chat=not metadata.get_int(f"{facts.architecture}.pooling_type", default=0),  # others write no text
        forecast=_forecast(header, engine, budget, probe))


def _forecast(header: Any, engine: EngineConfig, budget: int, probe: Any) -> dict[str, Any]:
    from tenth.errors import ResourceError
    from tenth.forecast.outlook import Outlook
    from tenth.loader import lay_out, place_with_chunk
    from tenth.observed import observed

    try:
        if probe is None:
            placement = place_with_chunk(lay_out(header, engine), engine, budget, "the budget")
            return {**_unknown_speed(), "fits": True, **_taken(placement)}
        outlook = Outlook.of(header, engine, probe, observed(header))
        placement = outlook.placed(budget)
    except ResourceError as error:
        return {**_unknown_speed(), "fits": False, "memory_bytes": None, "streams": False, "reason": error.message,
                "reason_cause": error.cause.as_data() if error.cause else None}
    rate, first = outlook.generation(placement), outlook.first_token(placement, PROMPT_TOKENS)
    return {"fits": True, **_taken(placement),
            "tokens_per_second": [round(rate.low, 2), round(rate.high, 2)],
            "first_token_s": round(PROMPT_TOKENS / first.likely, 2), "bound_by": rate.bound}


def _taken(placement: Any) -> dict[str, Any]:
    """What a placement takes beside this process, which other models may fill, and the context that it has room for."""
    data = placement.as_data()
    kinds = ("trunk", "kv", "state", "workspace", "expert_slot")
    return {"memory_bytes": sum(data[f"{kind}_bytes"] for kind in kinds), "streams": placement.streams,
            "context": data["context_tokens"]}


def _unknown_speed() -> dict[str, Any]:
    return {"tokens_per_second": None, "first_token_s": None, "bound_by": None}


def _unknown() -> dict[str, Any]:
    return {"parameters": None, "context": None, "has_thinking": None, "is_moe": None, "can_chat": True,
            "is_estimate": False, "memory_bytes": None, "fits": None, "streams": None, **_unknown_speed()}
