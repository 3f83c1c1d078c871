"""Lists in pages, as OpenAI's API has them: ``after``, ``limit``, ``order``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query

from tenth.server.failures import Refused

USUAL = 20


class Paging:
    """Which part of a list is asked for, from the address's parameters."""

    def __init__(
        self, after: Annotated[str | None, Query(max_length=128, description="The id before the first one.")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = USUAL,
    ) -> None:
        self.after, self.limit = after, limit

    def page(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The page of a whole list, whose rows have ids. Refuses (400) an ``after`` that is none of them."""
        ids = [row["id"] for row in rows]
        if self.after is not None and self.after not in ids:
            raise Refused(400, f"after is {self.after!r}, which is not in the list", param="after")
        first = ids.index(self.after) + 1 if self.after is not None else 0
        data = list(rows[first : first + self.limit])
        return {"object": "list", "data": data, "has_more": first + len(data) < len(rows),
                "first_id": data[0]["id"] if data else "", "last_id": data[-1]["id"] if data else ""}


class OrderedPaging(Paging):
    """The same of a list that may be asked for in either order; ``rows`` have to come newest first."""

    def __init__(
        self, after: Annotated[str | None, Query(max_length=128, description="The id before the first one.")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = USUAL, order: Literal["asc", "desc"] = "desc",
    ) -> None:
        super().__init__(after, limit)
        self.order = order

    def page(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """See Paging."""
        return super().page(rows if self.order == "desc" else rows[::-1])
