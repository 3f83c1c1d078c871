"""How answers are sampled: the settings of a request, their bounds, and where their defaults come from.

A setting that is None takes the model file's recommendation if it carries one, else the publisher's that the catalogue
states, else tenth's default. The file's keys
are those that llama.cpp's converter copies from generation_config.json (gguf-py 0.19, constants.py, Keys.General):
general.sampling.temp, top_k, top_p, min_p and penalty_repeat. What the settings do: native/ops/sample.h.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from tenth.errors import RequestError

MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 256
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20

# (default, least, greatest) of every setting that is one number. A least top_p of 1e-6 stands for "above 0".
NUMBERS: dict[str, tuple[float, float, float]] = {
    "temperature": (0.7, 0.0, 100.0),
    "top_p": (0.95, 1e-6, 1.0),
    "min_p": (0.0, 0.0, 1.0),
    "repetition_penalty": (1.0, 0.01, 10.0),
    "presence_penalty": (0.0, -10.0, 10.0),
    "frequency_penalty": (0.0, -10.0, 10.0),
}
COUNTS: dict[str, tuple[int | None, int, int]] = {
    "top_k": (40, 0, 1 << 24),
    "seed": (None, 0, (1 << 64) - 1),
    "max_tokens": (None, 1, 1 << 24),
    "top_logprobs": (0, 0, MAX_TOP_LOGPROBS),
}
FILE_KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


@dataclass(frozen=True)
class SamplingParams:
    """Sampling settings of a request. Raises RequestError naming the field, its value and the bounds.

    temperature 0 takes the most likely token every time. seed None draws one at random. stop: strings that end the
    answer and are not part of it. logit_bias: token id -> number added to its logit, -100 to 100. max_tokens None:
    until the model ends its answer or the context is full. top_logprobs: so many likely alternatives are reported.
    """

    temperature: float | None = None
    top_k: int | None = None  # 0 = off
    top_p: float | None = None  # 1 = off
    min_p: float | None = None  # 0 = off
    repetition_penalty: float | None = None  # 1 = off; looks at the prompt and the answer
    presence_penalty: float | None = None  # 0 = off; looks at the answer
    frequency_penalty: float | None = None  # 0 = off; looks at the answer
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: str | Iterable[str] = ()
    max_tokens: int | None = None
    top_logprobs: int = 0
    ignore_eos: bool = False  # go on past the model's end tokens (benchmarks)

    def __post_init__(self) -> None:
        for name, (_, low, high) in NUMBERS.items():
            self._set(name, _number(name, getattr(self, name), low, high))
        for name, (_, least, most) in COUNTS.items():
            self._set(name, _count(name, getattr(self, name), least, most))
        if self.top_logprobs is None:
            self._set("top_logprobs", 0)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos is {self.ignore_eos!r}, expected True or False")
        self._set("stop", _stop_strings(self.stop))
        if self.logit_bias is not None:
            self._set("logit_bias", _biases(self.logit_bias))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def completed(self, defaults: SamplingParams) -> SamplingParams:
        """These settings with every None taken from the defaults, and a seed drawn if there is still none."""
        missing = {f.name: getattr(defaults, f.name) for f in fields(self) if getattr(self, f.name) is None}
        complete = replace(self, **missing)
        return complete if complete.seed is not None else replace(complete, seed=secrets.randbits(64))


class SamplingMetadata(Protocol):
    """What ``recommended`` needs of tenth.weights.gguf.Metadata."""

    def get_float(self, key: str, default: float, *, low: float | None = ..., high: float | None = ...) -> float:
        """A checked number."""

    def get_int(self, key: str, default: int, *, low: int | None = ..., high: int | None = ...) -> int:
        """A checked whole number."""


def recommended(metadata: SamplingMetadata, published: Mapping[str, float] | None = None) -> SamplingParams:
    """The defaults for a model: what its file recommends, then what is published of it, tenth's own for the rest.

    Raises ModelFileError when the file recommends something out of bounds.
    """
    own = {name: default for name, (default, _, _) in NUMBERS.items()} | {"top_k": COUNTS["top_k"][0]}
    values: dict[str, Any] = own | dict(published or {})
    for name, key in FILE_KEYS.items():
        _, low, high = NUMBERS[name]
        values[name] = metadata.get_float(key, default=values[name], low=low, high=high)
    most = COUNTS["top_k"][2]
    values["top_k"] = max(0, metadata.get_int("general.sampling.top_k", default=values["top_k"], low=-1, high=most))
    return SamplingParams(**values)


def make_params(settings: Mapping[str, Any]) -> SamplingParams:
    """Settings by name. Raises RequestError for a name that is none."""
    known = [f.name for f in fields(SamplingParams)]
    for name in settings:
        if name not in known:
            raise RequestError(f"there is no sampling setting {name!r}", f"there are: {', '.join(known)}")
    return SamplingParams(**settings)


def _number(name: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise RequestError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise RequestError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}")
    return number


def _count(name: str, value: Any, least: int, most: int) -> int | None:
    if value is None:
        return None
    problem = RequestError(f"{name} is {value!r}, expected a whole number from {least} to {most}")
    if isinstance(value, bool):
        raise problem
    try:
        count = operator.index(value)
    except TypeError:
        raise problem from None
    if not least <= count <= most:
        raise problem
    return count


def _stop_strings(stop: Any) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else (stop,)
    if len(strings) > MAX_STOP_STRINGS:
        raise RequestError(f"stop has {len(strings)} strings, expected at most {MAX_STOP_STRINGS}")
    for string in strings:
        if not isinstance(string, str):
            raise RequestError(f"stop holds {string!r}, expected strings")
        n_bytes = len(string.encode(errors="surrogatepass"))
        if not 1 <= n_bytes <= MAX_STOP_BYTES:
            raise RequestError(f"a stop string has {n_bytes} bytes, expected 1 to {MAX_STOP_BYTES}")
    return strings


def _biases(biases: Any) -> dict[int, float]:
    if not isinstance(biases, Mapping):
        raise RequestError(f"logit_bias is {biases!r}, expected a mapping from token id to a number")
    if len(biases) > MAX_BIASES:
        raise RequestError(f"logit_bias has {len(biases)} tokens, expected at most {MAX_BIASES}")
    checked = {}
    for token, value in biases.items():
        id = _count("a token id of logit_bias", token, 0, (1 << 31) - 1)
        number = _number(f"logit_bias of token {token!r}", value, -100.0, 100.0)
        if id is None or number is None:
            raise RequestError("logit_bias holds None, expected token ids and numbers")
        checked[id] = number
    return checked
