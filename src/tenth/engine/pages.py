"""Which page of the KV cache holds what: pure bookkeeping, no keys or values.

A page is free, referenced by one or more sequences, or cached: full, unreferenced, kept for a prompt with the same
beginning until its place is needed (least recently used first).

The index of prefixes is a tree of full pages, as one table: (identity of the parent, the 32 token ids) -> page. The
identity of a page's content is a number that is never used twice and a parent's identity stands for all tokens before
it, so equal keys mean equal prefixes; the table compares the ids themselves, a hash is never trusted. (Chained block
hashes, as in Kwon et al. 2023, "PagedAttention", and vLLM's prefix caching, are the same idea with the comparison left
out.) A sequence holds every ancestor of its pages, so ancestors are always evicted after their descendants.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

Key = tuple[int, bytes]  # identity of the parent (ROOT for a first page), token ids

ROOT = 0


class Pages:
    """All pages of a cache. ``reuse`` False: nothing is kept after its last reference is gone."""

    def __init__(self, n_pages: int, reuse: bool = True) -> None:
        self.n_pages = n_pages
        self._reuse = reuse
        self._free = list(range(n_pages - 1, -1, -1))
        self._references = [0] * n_pages
        self._index: dict[Key, int] = {}
        self._keys: list[Key | None] = [None] * n_pages
        self._identities = [ROOT] * n_pages
        self._next_identity = ROOT + 1
        self._cached: OrderedDict[int, None] = OrderedDict()  # oldest first

    @property
    def n_available(self) -> int:
        """Pages that ``take`` could hand out."""
        return len(self._free) + len(self._cached)

    @property
    def n_cached(self) -> int:
        """Unreferenced pages that are kept for reuse."""
        return len(self._cached)

    def match(self, page_tokens: Iterator[bytes]) -> list[int]:
        """Reference and return the pages of the longest known prefix, given as the ids of one page after the other."""
        matched: list[int] = []
        parent = ROOT
        for tokens in page_tokens:
            page = self._index.get((parent, tokens))
            if page is None:
                break
            self._reference(page)
            matched.append(page)
            parent = self._identities[page]
        return matched

    @property
    def reuses(self) -> bool:
        """Whether pages are kept after their last reference is gone."""
        return self._reuse

    def identity(self, page: int) -> int:
        """What a published page's content is known by, and all before it; ROOT for one that was not published."""
        return self._identities[page]

    def take(self, n: int) -> list[int] | None:
        """Reference and return n pages with nothing in them, or None (and no change) when there are not so many."""
        if n > self.n_available:
            return None
        taken = [self._free.pop() if self._free else self._evict() for _ in range(n)]
        for page in taken:
            self._references[page] = 1
        return taken

    def publish(self, page: int, parent: int | None, tokens: bytes) -> int:
        """Make a full, computed page findable. ``parent``: the page before it, None for the first one.

        Returns the page to use from now on: when another with the same prefix is known already, that one (the caller's
        reference moves to it and its own page is freed). Contents are equal because rows do not depend on company.
        """
        if not self._reuse:
            return page
        key = (ROOT if parent is None else self._identities[parent], tokens)
        known = self._index.get(key)
        if known is None:
            self._index[key] = page
            self._keys[page] = key
            self._identities[page] = self._next_identity
            self._next_identity += 1
            return page
        if known != page:
            self._reference(known)
            self.release([page])
        return known

    def release(self, pages: list[int]) -> None:
        """Give back one reference to each page of a sequence, given in order of position."""
        for page in reversed(pages):  # so that the deepest is the first to be evicted
            assert self._references[page] > 0, f"page {page} was released more often than referenced"
            self._references[page] -= 1
            if self._references[page]:
                continue
            if self._keys[page] is not None:
                self._cached[page] = None
            else:
                self._free.append(page)

    def clear(self) -> None:
        """Forget every cached page."""
        while self._cached:
            self._free.append(self._evict())

    def _reference(self, page: int) -> None:
        self._references[page] += 1
        self._cached.pop(page, None)

    def _evict(self) -> int:
        page, _ = self._cached.popitem(last=False)
        key = self._keys[page]
        assert key is not None, f"cached page {page} is not in the index"
        del self._index[key]
        self._keys[page] = None
        self._identities[page] = ROOT
        return page
