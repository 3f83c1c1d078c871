"""What the page shows while answers run: speed, context, memory; and what they cost. Looked at once a second."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from tenth.config import EngineConfig
from tenth.server.chats.answering import Answering
from tenth.server.chats.energy import Meter, Rate
from tenth.server.chats.events import Hub
from tenth.server.chats.live import Live
from tenth.server.shelf import Shelf
from tenth.weights.budget import memory_budget

EVERY_S = 1.0


class Watching:
    """Numbers of the running answers of every owner."""

    def __init__(self, answering: Answering, shelf: Shelf, hub: Hub, engine: EngineConfig) -> None:
        self._answering, self._shelf, self._hub, self._engine = answering, shelf, hub, engine
        self.meter = Meter()
        self._rates: dict[str, Rate] = {}  # of each answer
        self._process = psutil.Process()

    async def run(self) -> None:
        """Look, and tell who listens and has answers at work; once more when the last one has ended."""
        busy: set[str] = set()
        while True:
            await asyncio.sleep(EVERY_S)
            self.look()
            now = {live.owner for live in self._answering.live.values()}
            for owner in now | busy:
                if self._hub.has_reader(owner):
                    self._hub.tell(owner, "stats", self.stats(owner))
            busy = now

    def look(self) -> None:
        """Share the energy since the last look among the answers that are computed, and note how far they are."""
        joules = self.meter.joules()
        running = [live for live in self._answering.live.values() if live.message["status"] in ("prompt", "running")]
        for live in running:
            live.joules += joules / len(running)
            live.are_joules_measured = self.meter.is_measured
            self._rates.setdefault(live.id, Rate()).note(len(live.tokens))
        self._rates = {id: rate for id, rate in self._rates.items() if id in self._answering.live}

    def stats(self, owner: str) -> dict[str, Any]:
        """What an owner is shown: their answers, and the machine."""
        mine = [live for live in self._answering.live.values() if live.owner == owner]
        answers = [self._answer(live) for live in mine]
        newest: dict[str, Any] = answers[-1] if answers else {}
        gates = [one.gate for one in self._shelf.models.values() if one.gate is not None]
        models = [one.model for one in self._shelf.models.values() if one.model is not None]
        rates = [statistics["hit_rate"] for model in models if (statistics := model.expert_statistics())]
        return {
            "tokens_per_second": round(sum(one["tokens_per_second"] for one in answers), 2), "answers": answers,
            "n_running": sum(gate.n_at_work for gate in gates), "n_waiting": sum(gate.n_waiting for gate in gates),
            "context_used": newest.get("context_used"), "context": newest.get("context"),
            "memory_bytes": self._process.memory_info().rss,
            "budget_bytes": memory_budget(self._engine.memory_bytes).n_bytes,
            "expert_hit_rate": rates[-1] if rates else None,
        }

    def _answer(self, live: Live) -> dict[str, Any]:
        rate, answer = self._rates.get(live.id), live.answer
        n_prompt = len(answer.prompts[0]) if answer is not None else 0
        served = self._shelf.models.get(live.message["model"])
        return {"message_id": live.id, "chat_id": live.message["chat_id"], "n_tokens": len(live.tokens),
                "is_opening": answer is None and served is not None and served.model is None,
                "tokens_per_second": round(rate.per_second, 2) if rate else 0.0,
                "context_used": n_prompt + len(live.tokens) if answer is not None else None,
                "context": answer.model.description["context_tokens"] if answer is not None else None}
