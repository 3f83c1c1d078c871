"""The engine's side of an answer: ``Feed`` listens and wakes readers, ``TokenReader`` makes pieces of token ids.

The engine's thread pushes tokens into a Feed, which turns them into pieces of text, notices stop strings and the end
of a thinking budget, and wakes whoever reads: a ``tenth.stream.Stream``.
"""

from __future__ import annotations

from tenth.feed.feed import Feed, ThinkingBudget
from tenth.feed.reader import TokenReader

__all__ = ["Feed", "ThinkingBudget", "TokenReader"]
