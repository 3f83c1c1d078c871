"""What /metrics tells, in Prometheus' format: times, tokens, queues, caches, memory. No prompt and no key is in it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from tenth.server.answers import End

if TYPE_CHECKING:
    from tenth.server.shelf import Shelf

_TO_FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]
        self.first_token = Histogram("tenth_time_to_first_token_seconds", "From the request to its first token.",
                                     model, buckets=_TO_FIRST_S, registry=self.registry)
        self.between = Histogram("tenth_inter_token_seconds", "Between two tokens of one answer.", model,
                                 buckets=_BETWEEN_S, registry=self.registry)
        self.prompt_tokens = Counter("tenth_prompt_tokens", "Tokens of prompts.", model, registry=self.registry)
        self.cached_tokens = Counter("tenth_cached_prompt_tokens", "Tokens of prompts that were known already.", model,
                                     registry=self.registry)
        self.tokens = Counter("tenth_generated_tokens", "Tokens of answers.", model, registry=self.registry)
        self.ended = Counter("tenth_answers", "Answers by how they ended.", ["model", "reason"],
                             registry=self.registry)
        self.texts = Counter("tenth_read_texts", "Texts of which a vector or a score was made.", model,
                             registry=self.registry)
        self.requests = Counter("tenth_http_requests", "Requests by route and status.", ["route", "status"],
                                registry=self.registry)

    def watch(self, model: str, asked_s: float) -> Watch:
        """A stopwatch for one request."""
        return Watch(self, model, asked_s)

    def read(self, model: str, n_tokens: int, n_texts: int) -> None:
        """Texts were read, not answered."""
        self.prompt_tokens.labels(model).inc(n_tokens)
        self.texts.labels(model).inc(n_texts)

    def add_shelf(self, shelf: Shelf) -> None:
        """Also tell of the models of a shelf."""
        self.registry.register(_ShelfCollector(shelf))

    def page(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)


class Watch:
    """Notes the times of one request."""

    def __init__(self, metrics: Metrics, model: str, asked_s: float) -> None:
        self._metrics, self._model, self._asked_s = metrics, model, asked_s
        self._first, self._between = metrics.first_token.labels(model), metrics.between.labels(model)
        self._last_s: dict[int, float] = {}  # of each choice
        self._n_open = 0
        self._ended = False

    def delta(self, index: int, n_tokens: int) -> None:
        """New text of a choice."""
        now_s = time.monotonic()
        last_s = self._last_s.get(index)
        if last_s is None:
            self._first.observe(now_s - self._asked_s)
        elif n_tokens:
            self._between.observe((now_s - last_s) / n_tokens)
        self._last_s[index] = now_s

    def end(self, end: End) -> None:
        """A choice is complete."""
        self._ended = True
        metrics, usage = self._metrics, end.usage
        metrics.prompt_tokens.labels(self._model).inc(usage.prompt_tokens)
        metrics.cached_tokens.labels(self._model).inc(usage.cached_tokens)
        metrics.tokens.labels(self._model).inc(usage.completion_tokens)
        metrics.ended.labels(self._model, end.reason).inc()

    def done(self) -> None:
        """Nothing more comes."""
        if not self._ended:
            self._metrics.ended.labels(self._model, "unfinished").inc()


class _ShelfCollector:
    """What the open models say of themselves at the moment when they are asked."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's registry."""
        def gauge(name: str, help: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, help, labels=["model", *labels])

        loaded = gauge("tenth_model_loaded", "Whether a model is open.")
        waiting = gauge("tenth_queue_waiting", "Requests that wait for their turn.")
        at_work = gauge("tenth_requests_at_work", "Requests that are computed.")
        known = gauge("tenth_prefix_hit_rate", "Share of all prompts' tokens that were known already.")
        hits = gauge("tenth_expert_hit_rate", "Share of expert slices found in memory; only where they are streamed.")
        pages = gauge("tenth_kv_pages", "Pages of the KV cache by what they are: free, cached or used.", "state")
        memory = gauge("tenth_memory_bytes", "Memory by kind.", "kind")
        for served in self._shelf.models.values():
            model, gate, name = served.model, served.gate, served.name
            loaded.add_metric([name], float(model is not None))
            if model is None or gate is None:
                continue
            waiting.add_metric([name], gate.n_waiting)
            at_work.add_metric([name], gate.n_at_work)
            known.add_metric([name], model.stats.n_cached_tokens / max(1, model.stats.n_prompt_tokens))
            if statistics := model.expert_statistics():
                hits.add_metric([name], float(statistics["hit_rate"]))
            for state, n_pages in model.kv_pages.items():
                pages.add_metric([name, state], n_pages)
            for kind, n_bytes in model.memory().items():
                memory.add_metric([name, kind.removesuffix("_bytes")], n_bytes)
        yield from (loaded, waiting, at_work, known, hits, pages, memory)
