"""The tree that a chat's messages are: who follows whom. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

TREE = "SELECT id, parent_id FROM messages WHERE chat_id = ? ORDER BY n"  # the rows that children_of takes


def children_of(rows: Sequence[Any]) -> defaultdict[str | None, list[str]]:
    """The messages that follow each one, oldest first; None: the first ones."""
    children = defaultdict[str | None, list[str]](list)
    for row in rows:
        children[row["parent_id"]].append(row["id"])
    return children


def all_below(children: Mapping[str | None, list[str]], id: str) -> list[str]:
    """A message and all that hang on it, each behind its parent."""
    found = [id]
    for one in found:
        found += children.get(one, ())
    return found


def leaf_below(children: Mapping[str | None, list[str]], id: str) -> str:
    """The newest message below one."""
    while following := children.get(id):
        id = following[-1]
    return id
