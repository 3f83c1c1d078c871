"""Bodies of requests: bounded JSON, and models that refuse what they do not know, naming it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

import pydantic_core
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from tenth.errors import Cause
from tenth.sampling import COUNTS, MAX_BIASES, MAX_STOP_BYTES, MAX_STOP_STRINGS, NUMBERS
from tenth.server.failures import Refused
from tenth.text.effort import EFFORTS

MOST_DEPTH = 64
MOST_TOKENS = COUNTS["max_tokens"][2]
TEXT_ONLY = "this server reads and writes text only"


def parse(data: bytes) -> Any:
    """A JSON value. Refuses (400) what is none, nests deeper than 64 or holds numbers that are none."""
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {str(error)[:200]}") from None
    layer, depth = [value], 0
    while layer := [inner for outer in layer for inner in _inside(outer)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise Refused(400, f"the body nests deeper than {MOST_DEPTH} levels")
    return value


def _inside(value: Any) -> list[Any]:
    """What a list or an object holds that can itself hold something."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [inner for inner in values if isinstance(inner, (dict, list))]


class _JsonRequest(Request):
    async def json(self) -> Any:
        """The body, parsed within its bounds, once."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that refuses parameters of the address which it does not know, naming them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See fastapi."""
        handle = super().get_route_handler()
        known = set(_parameters(self.dependant))

        async def strict(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    raise Refused(400, f"there is no parameter {name[:100]!r} here", param=name[:100])
            return await handle(request)

        return strict


def _parameters(dependant: Dependant) -> Iterator[str]:
    """The address's parameters that a route and what it depends on ask for."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _parameters(inner)


class JsonRoute(StrictRoute):
    """A route whose JSON is parsed within bounds."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See fastapi."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            if self.body_field is not None:
                if not await request.body():
                    raise Refused(400, "the body is empty, expected JSON")
                await request.json()  # here, since fastapi tells what it raises as "an error parsing the body"
            return await handle(request)

        return bounded


class Body(BaseModel):
    """A JSON object whose fields are all known. ``unsupported``: fields of the API that are refused, and why.

    An unsupported field that is null, or has the value in ``harmless``, counts as not given.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    unsupported: ClassVar[dict[str, str]] = {}
    harmless: ClassVar[dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        cls._check_type(value.get("type"))
        for name, why in cls.unsupported.items():
            if name not in value:
                continue
            given = value[name]
            if given is not None and not (name in cls.harmless and given == cls.harmless[name]):
                raise _unsupported(name, f"{name} is not supported: {why}")
        return {name: given for name, given in value.items() if name not in cls.unsupported}

    @classmethod
    def _check_type(cls, given: Any) -> None:
        """Refuse what is meant to be something else by its type, before its fields are told to be unknown."""
        field = cls.model_fields.get("type")
        branches = [field.annotation, *get_args(field.annotation)] if field else []
        known = [word for branch in branches for word in get_args(branch) if isinstance(word, str)]
        if known and isinstance(given, str) and given not in known:
            raise _unsupported("type", f"the type {given[:100]!r} is not supported, expected {' or '.join(known)}")


def _unsupported(name: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", "{message}", {"message": message, "name": name})


def number(name: str) -> Any:
    """A field for a setting of tenth.sampling, within its bounds."""
    _, low, high = NUMBERS[name]
    return Field(default=None, ge=low, le=high, allow_inf_nan=False)


def effort(description: str | None = None) -> Any:
    """A field for a reasoning effort."""
    return Field(default=None, description=description, json_schema_extra={"enum": [*EFFORTS, None]})


def count(name: str, least: int | None = None) -> Any:
    """A field for a whole number of tenth.sampling, within its bounds."""
    _, low, high = COUNTS[name]
    return Field(default=None, ge=low if least is None else least, le=high)


class SamplingBody(Body):
    """The sampling settings that OpenAI's dialects share; top_k, min_p, repetition_penalty and ignore_eos are ours."""

    temperature: float | None = number("temperature")
    top_p: float | None = number("top_p")
    top_k: int | None = count("top_k")
    min_p: float | None = number("min_p")
    repetition_penalty: float | None = number("repetition_penalty")
    presence_penalty: float | None = number("presence_penalty")
    frequency_penalty: float | None = number("frequency_penalty")
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASES)
    seed: int | None = count("seed", least=-(1 << 63))
    stop: str | list[str] | None = Field(default=None, description=(
        f"At most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_BYTES} bytes."))
    ignore_eos: bool = False

    def sampling(self) -> dict[str, Any]:
        """The settings that were given, as SamplingParams takes them."""
        names = SamplingBody.model_fields.keys()
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if "seed" in given:
            given["seed"] %= 1 << 64
        if "logit_bias" in given:
            given["logit_bias"] = {_token(id): bias for id, bias in given["logit_bias"].items()}
        return given


def _token(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise Refused(400, f"logit_bias holds {text[:100]!r}, expected token ids", param="logit_bias")
    return int(text)


def explain(error: RequestValidationError) -> Refused:
    """A body that does not fit its model, as one sentence about what is wrong."""
    return wrong_field([{**one, "loc": one["loc"][1:]} for one in error.errors()])


def wrong_field(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """One of pydantic's errors as one sentence: the innermost, which is of the branch of a union that was meant."""
    first = max(errors, key=lambda one: (one["type"] == "unsupported", len(one["loc"])))
    path = ".".join(str(part) for part in first["loc"] if not _is_type(part)) or "body"
    if first["type"] == "unsupported":
        name = first["ctx"]["name"]
        if path == "body":
            return Refused(400, first["msg"], param=name)
        return Refused(400, f"{first['msg']} (in {path})", param=f"{path}.{name}")
    if first["type"] == "extra_forbidden":
        return Refused(400, f"there is no field {path!r} here", param=path)
    if first["type"] == "union_tag_invalid":
        known = f"{first['ctx']['tag']!r} is not supported, expected {first['ctx']['expected_tags']}"
        return Refused(400, f"{path}: the type {known}", param=path)
    given = f", not {first['input']!r:.100}" if first["type"] == "literal_error" else ""
    return Refused(400, f"{path}: {first['msg']}{given}", param=path, cause=_cause(path, first.get("ctx", {})))


def _cause(path: str, bounds: Mapping[str, Any]) -> Cause:
    """Which field, and the bound that it does not keep, if that is what is wrong."""
    least = next((bounds[name] for name in ("ge", "gt", "min_length") if name in bounds), None)
    most = next((bounds[name] for name in ("le", "lt", "max_length") if name in bounds), None)
    field = path.rpartition(".")[2]
    if least is not None:
        return Cause("field-least", field=field, least=least)
    return Cause("field", field=field) if most is None else Cause("field-most", field=field, most=most)


def _is_type(part: object) -> bool:
    """Whether a part of a location is pydantic's name for a branch of a union, not of the body."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or part[:1].isupper())

