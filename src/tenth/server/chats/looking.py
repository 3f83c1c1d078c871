"""Looking inside answers: their tokens with what else was likely, and the experts that ran. Kept of the last ones.

A token's text is what it completes: a character whose bytes are spread over several tokens stands at the last of them,
so that the texts of all tokens, one behind the other, are the answer as the model wrote it, marks of thinking included.
"""

from __future__ import annotations

import codecs
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

from tenth.server.state import State
from tenth.stream import TokenLogprob
from tenth.text.begun import Begun
from tenth.text.tokenizer import Tokenizer

MOST_KEPT = 500  # answers of one owner; about 15 KB for a thousand tokens
LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON has not

Inside = dict[str, Any]


def inside(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer, experts: list[list[int]] | None) -> Inside:
    """What is kept of an answer."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def alone(id: int) -> str:
        return tokenizer.token_bytes(id).decode(errors="replace")

    return {"experts": experts, "tokens": [
        [token.token, decoder.decode(tokenizer.token_bytes(token.token)), _rounded(token.logprob), token.kind,
         [[alone(id), _rounded(logprob)] for id, logprob in token.top]] for token in tokens]}


def _rounded(logprob: float) -> float:
    return round(max(logprob, LEAST_LOGPROB), 4)


class Insides:
    """What is kept in a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, owner: str, message_id: str, more: Inside, begun: Begun | None = None) -> None:
        """Keep what an answer, or its continuation, was made of; the oldest answers are forgotten.

        ``begun``: what it said before. Where nobody knows its tokens any more, it counts as one without probability.
        """
        with self._state.transaction() as db:
            row = db.execute("SELECT data FROM message_tokens WHERE message_id = ?", (message_id,)).fetchone()
            before = _read(row["data"]) if row else _unknown(begun)
            data = zlib.compress(json.dumps(_joined(before, more)).encode(), 6)
            db.execute("INSERT INTO message_tokens (message_id, owner, made_at, data) VALUES (?, ?, ?, ?) "
                       "ON CONFLICT (message_id) DO UPDATE SET data = excluded.data, made_at = excluded.made_at",
                       (message_id, owner, time.time(), data))
            db.execute("DELETE FROM message_tokens WHERE owner = ? AND made_at < (SELECT min(made_at) FROM (SELECT "
                       "made_at FROM message_tokens WHERE owner = ? ORDER BY made_at DESC LIMIT ?) AS kept)",
                       (owner, owner, MOST_KEPT))

    def get(self, message_id: str) -> dict[str, Any]:
        """The tokens and experts of a message whose owner was checked; none when they are not, or no longer, kept."""
        rows = self._state.query("SELECT data FROM message_tokens WHERE message_id = ?", message_id)
        if not rows:
            return {"tokens": [], "experts": None}
        found = _read(rows[0]["data"])
        tokens = [{"id": id, "text": text, "logprob": logprob, "kind": kind,
                   "top": [{"text": other, "logprob": likely} for other, likely in top]}
                  for id, text, logprob, kind, top in found["tokens"]]
        counts = found["experts"]
        experts = {"n_layers": len(counts), "n_experts": len(counts[0]), "counts": counts} if counts else None
        return {"tokens": tokens, "experts": experts}


    def forget(self, message_id: str) -> None:
        """Keep nothing of a message whose text is another one now."""
        with self._state.transaction() as db:
            db.execute("DELETE FROM message_tokens WHERE message_id = ?", (message_id,))


def _unknown(begun: Begun | None) -> Inside:
    parts = (("thinking", begun.thinking), ("content", begun.content)) if begun else ()
    return {"experts": None, "tokens": [[-1, text, None, kind, []] for kind, text in parts if text]}


def _read(data: bytes) -> Inside:
    found: Inside = json.loads(zlib.decompress(bytes(data)))
    return found


def _joined(first: Inside, more: Inside) -> Inside:
    counts = more["experts"] or first["experts"]
    if first["experts"] and more["experts"] and len(first["experts"]) == len(more["experts"]):
        counts = [[a + b for a, b in zip(*layers, strict=False)]
                  for layers in zip(first["experts"], more["experts"], strict=True)]
    return {"tokens": first["tokens"] + more["tokens"], "experts": counts}
