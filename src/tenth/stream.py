"""The reader's side of an answer: its pieces as they are made, and what is known at the end. See tenth.feed.

Readers may be plain iterators or asyncio tasks, many streams at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from tenth.engine import waking
from tenth.engine.experts import ExpertUse
from tenth.engine.request import FinishReason, Speculated
from tenth.feed.feed import Feed
from tenth.feed.pieces import CallPart, Kind, Piece, Speculation, Timings, TokenLogprob, ToolCall, Usage

__all__ = ["CallPart", "Kind", "Piece", "Speculation", "Stream", "Timings", "TokenLogprob", "ToolCall", "Usage"]


class Stream:
    """An answer: iterate it, plainly or with ``async for``, to get its pieces as they are made.

    ``text`` and the other properties wait for the end. A stream that is dropped before its end is cancelled. A failed
    request raises its error, after the pieces that were made before.
    """

    def __init__(
        self, feed: Feed, cancel: Callable[[], None], load_s: float, seed: int | None = None,
        speculated: Speculated | None = None, experts: ExpertUse | None = None,
    ) -> None:
        self._feed, self._cancel, self._load_s, self._experts = feed, cancel, load_s, experts
        self._speculated = speculated or Speculated()
        self._next = 0
        self.seed = seed  # with it and the same settings the answer can be had again

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is not None and not feed.has_ended:
            self._cancel()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        feed = self._feed
        with feed.changed:
            while not self._is_ready():
                feed.changed.wait()
        piece = self._take()
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        while not await self._changed():
            pass
        piece = self._take()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def ready(self) -> list[Piece]:
        """All pieces made since the last one was taken, waiting for the first; none at the end of the answer."""
        while not await self._changed():
            pass
        pieces = self._feed.pieces[self._next :]
        self._next += len(pieces)
        if not pieces and self._feed.error is not None:
            raise self._feed.error
        return pieces

    def logprobs_from(self, n: int) -> list[TokenLogprob]:
        """The sampled tokens behind the first n, as far as they are known now."""
        return self._feed.logprobs[n:]

    async def _changed(self) -> bool:
        """Whether there is something to take; waits for one change if not."""
        import asyncio  # here, for it takes 3 MB that plain iterating does not need

        loop = asyncio.get_running_loop()
        with self._feed.changed:
            if self._is_ready():
                return True
            changed = loop.create_future()

            def tell() -> None:
                if not changed.done():  # its reader may have been cancelled
                    changed.set_result(None)

            self._feed.wake_later(lambda: waking.soon(loop, tell))
        await changed
        return False

    def _is_ready(self) -> bool:
        return self._next < len(self._feed.pieces) or self._feed.has_ended

    def _take(self) -> Piece | None:
        if self._next < len(self._feed.pieces):
            self._next += 1
            return self._feed.pieces[self._next - 1]
        if self._feed.error is not None:
            raise self._feed.error
        return None

    def cancel(self) -> None:
        """End the answer soon; what was made stays. Nothing happens when it has ended."""
        self._cancel()

    def end_thinking(self) -> bool:
        """Have the model end its thinking now and go on to its answer. False: it does not think, or no longer."""
        return self._feed.end_thinking()

    def wait(self) -> Stream:
        """Wait for the end, taking no pieces. Raises the error of a failed request."""
        with self._feed.changed:
            while not self._feed.has_ended:
                self._feed.changed.wait()
        if self._feed.error is not None:
            raise self._feed.error
        return self

    @property
    def text(self) -> str:
        """The whole content, without thinking."""
        return self._joined("content")

    @property
    def thinking(self) -> str:
        """The whole thinking."""
        return self._joined("thinking")

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that the model made."""
        calls: list[ToolCall] = []
        for piece in self.wait()._feed.pieces:
            if piece.call is None:
                continue
            if piece.call.name is not None:
                calls.append(ToolCall(piece.call.id, piece.call.name, ""))
            else:
                calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + piece)
        return calls

    def _joined(self, kind: Kind) -> str:
        return "".join(piece for piece in self.wait()._feed.pieces if piece.kind == kind)

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended: "stop" (stop token or string, end of a grammar), "length" (max_tokens or end of the context),
        "cancelled"."""
        reason = self.wait()._feed.reason
        assert reason is not None, "a stream that ended without error has no reason"
        return reason

    @property
    def stop_string(self) -> str | None:
        """Which of the request's stop strings ended it; None when another reason did."""
        return self.wait()._feed.stop_string

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Every sampled token, in order; those that were forced or ended the answer are left out."""
        return list(self.wait()._feed.logprobs)

    @property
    def usage(self) -> Usage:
        """Tokens in, out, and known before."""
        feed = self.wait()._feed
        return Usage(feed.n_prompt, feed.n_generated, feed.n_cached, feed.n_thinking)

    @property
    def speculation(self) -> Speculation:
        """How guessing at tokens went."""
        self.wait()
        counts = self._speculated
        return Speculation(counts.n_drafted, counts.n_accepted, counts.n_steps)

    @property
    def expert_counts(self) -> list[list[int]] | None:
        """How many of its tokens used each expert, by layer; None unless the model was loaded with note_experts."""
        self.wait()
        return [[int(n) for n in layer] for layer in self._experts.counts] if self._experts is not None else None

    @property
    def timings(self) -> Timings:
        """How long it took."""
        feed = self.wait()._feed
        if feed.started_s is None or feed.first_s is None or feed.last_s is None:
            return Timings(self._load_s, None, None, None)
        return Timings(
            load_s=self._load_s,
            first_token_s=feed.first_s - feed.asked_s,
            prompt_tokens_per_second=_rate(feed.n_prompt - feed.n_cached, feed.first_s - feed.started_s),
            generated_tokens_per_second=_rate(feed.n_generated - 1, feed.last_s - feed.first_s),
        )


def _rate(n: int, seconds: float) -> float | None:
    return n / seconds if n > 0 and seconds > 0 else None
