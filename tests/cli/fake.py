"""A model that answers what it is told to, for tests of what the command line does around one."""

from __future__ import annotations

from tenth.stream import Piece, Speculation, Timings, Usage


class FakeStream:
    """Plays the part of a Stream: the pieces it was given, then the figures."""

    def __init__(self, pieces):
        self.pieces, self.said, self.cancelled = pieces, [], False
        self.finish_reason, self.logprobs = None, None
        self.usage = Usage(prompt_tokens=3, completion_tokens=len(pieces), cached_tokens=0)
        self.timings = Timings(0.5, 0.25, prompt_tokens_per_second=100.0, generated_tokens_per_second=40.0)
        self.speculation = Speculation(drafted=7, accepted=5, steps=4)

    def __iter__(self):
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            self.said.append(piece)
            yield piece
        self.finish_reason = "stop"

    @property
    def text(self):
        return "".join(p for p in self.said if p.kind == "content")

    @property
    def thinking(self):
        return "".join(p for p in self.said if p.kind == "thinking")

    def cancel(self):
        self.cancelled = True


class FakeModel:
    """Plays the part of a Model: notes what it is asked and answers with ``pieces``."""

    name = "fake:1b"
    lossy: dict[str, float] = {}  # noqa: RUF012

    def __init__(self):
        self.description = {"architecture": "fake", "parameters": 10**9, "context_tokens": 64,
                            "formats": {"Q8_0": 10**9}}
        self.pieces = [Piece("It is "), Piece("Rayleigh scattering.")]
        self.asked, self.loads, self.streams, self.closed = [], [], [], 0

    def load(self, name, progress=None, **settings):
        self.loads.append((name, settings))
        return self

    def chat(self, messages, **settings):
        return self._stream("chat", [dict(m) for m in messages], settings)

    def generate(self, prompt, **settings):
        return self._stream("generate", prompt, settings)

    def _stream(self, how, what, settings):
        self.asked.append((how, what, settings))
        self.streams.append(FakeStream(list(self.pieces)))
        return self.streams[-1]

    def expert_statistics(self):
        return {}

    def expert_read_bytes(self):
        return None

    def memory(self):
        return {"peak_bytes": 5_000_000, "weights_bytes": 4_000_000, "kv_bytes": 1_000_000, "workspace_bytes": 1000}

    def close(self):
        self.closed += 1
