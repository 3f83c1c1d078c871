"""What goes wrong with a request, as an HTTP status: the one place where errors become numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tenth.errors import Cause, RequestError, ResourceError, TenthError

log = logging.getLogger("tenth.server")


class Refused(RequestError):
    """A request that is refused with a certain HTTP status. ``param``: the field that is wrong."""

    def __init__(
        self, status: int, message: str, hint: str | None = None, *, param: str | None = None,
        retry_after_s: int | None = None, cause: Cause | None = None,
    ) -> None:
        super().__init__(message, hint, cause=cause)
        self.status, self.param, self.retry_after_s = status, param, retry_after_s


@dataclass(frozen=True)
class Failure:
    """An error as every dialect tells it: status, text, the field that is wrong, when to come again."""

    status: int
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    cause: Cause | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        headers = {"retry-after": str(self.retry_after_s)} if self.retry_after_s is not None else {}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def failure_of(error: BaseException) -> Failure:
    """How an error is told. Faults of the server's own are logged, and told without detail."""
    if isinstance(error, Refused):
        return Failure(error.status, _text(error), error.param, error.retry_after_s, error.cause)
    if isinstance(error, RequestError):
        return Failure(400, _text(error), cause=error.cause)
    if isinstance(error, ResourceError):
        return Failure(503, _text(error), retry_after_s=1, cause=error.cause)
    log.error("request failed", exc_info=error)
    return Failure(500, "the server failed; its log says more", cause=Cause("fault"))


def _text(error: TenthError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
