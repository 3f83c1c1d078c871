"""Structured logs: one JSON object a line on standard error, without prompts, answers, keys or ids of stored things.

Only where the one who starts the server asks for it (--log-text), what is asked and answered is in them too.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenth.server.answers import Choice
from tenth.server.metrics import Metrics

log = logging.getLogger("tenth.server")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, message, and the fields given as ``extra={"fields": …}``."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{at}.{int(record.msecs):03}Z", "level": record.levelname.lower(),
                "message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Have tenth's server and uvicorn's errors write to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, at in (("tenth.server", level.upper()), ("uvicorn.error", "ERROR")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(at)


def asked(id: str, owner: str, prompt: object) -> None:
    """Note what an answer goes on from: text, as the model's template has it, or token ids."""
    log.info("asked", extra={"fields": {"id": id, "owner": owner, "prompt": prompt}})


def answered(id: str, index: int, choice: Choice) -> None:
    """Note what was answered, as far as it went."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in choice.calls]
    log.info("answered", extra={"fields": {
        "id": id, "choice": index, "text": choice.text, "thinking": choice.thinking, "calls": calls,
        "reason": choice.end.reason if choice.end else "unfinished"}})


class AccessLog:
    """ASGI middleware: one line and one count per request, by the route's pattern."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, status = time.monotonic(), 499  # of a request that was left before it was answered

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, str(status)).inc()
            log.info("request", extra={"fields": {
                "method": scope["method"], "route": route, "status": status,
                "ms": round(1000 * (time.monotonic() - started_s)), "owner": scope.get("state", {}).get("owner"),
            }})
