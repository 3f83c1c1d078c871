"""What a request says of tools: their names and parameters, and whether one has to be called. OpenAI's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenth.errors import RequestError

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


@dataclass(frozen=True)
class Tool:
    """One function. ``strict``: its arguments are kept to ``parameters``, a JSON schema; else as far as that goes."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False

    def as_openai(self) -> dict[str, Any]:
        """As chat templates expect it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolRequest:
    """The tools of a request. ``must_call``: the answer is a call. ``only``: those that may be called; None: all."""

    tools: tuple[Tool, ...]
    must_call: bool = False
    only: frozenset[str] | None = None
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that may be called."""
        return tuple(tool for tool in self.tools if self.only is None or tool.name in self.only)

    @property
    def is_guided(self) -> bool:
        """Whether a grammar is needed to keep to what was asked for."""
        return self.must_call or self.only is not None or any(tool.strict for tool in self.tools)


def read_tools(tools: Any, choice: Any = None, parallel: bool = True) -> ToolRequest | None:
    """The tools of a request, None when there are none to be called (tool_choice "none").

    ``choice``: "auto", "none", "required", {"type": "function", "function": {"name": ...}} for one call of that tool,
    or {"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": [...]}} for calls of some.
    Raises RequestError naming the field.
    """
    if tools is not None and (not isinstance(tools, (list, tuple)) or len(tools) > MAX_TOOLS):
        raise RequestError(f"tools must be a list of at most {MAX_TOOLS} tools")
    if not isinstance(parallel, bool):
        raise RequestError(f"parallel_tool_calls is {parallel!r}, expected true or false")
    read = tuple(_tool(i, tool) for i, tool in enumerate(tools or ()))
    names = [tool.name for tool in read]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"two tools are named {min(twice)!r}")
    must_call, only = _choice(choice, names)
    if (must_call or only) and not read:
        raise RequestError("tool_choice asks for a call, but there are no tools")
    is_named = isinstance(choice, Mapping) and choice.get("type") == "function"  # such a call is made once
    return ToolRequest(read, must_call, only, parallel and not is_named) if read and choice != "none" else None


def _tool(i: int, tool: Any) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    if not isinstance(function, Mapping):
        raise RequestError(f'tools[{i}] is {tool!r}, expected {{"type": "function", "function": {{"name": ...}}}}')
    _only_known(f"tools[{i}]", tool, {"type", "function"})
    _only_known(f"tools[{i}].function", function, {"name", "description", "parameters", "strict"})
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.match(name):
        raise RequestError(f"tools[{i}].function.name is {name!r}, expected letters, digits, _ . : and -, at most 128")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise RequestError(f"tools[{i}].function.parameters is {parameters!r}, expected a JSON schema")
    description, strict = function.get("description") or "", function.get("strict") or False
    if not isinstance(description, str) or not isinstance(strict, bool):
        raise RequestError(f"tools[{i}].function: description must be a text, strict true or false")
    return Tool(name, description, dict(parameters or {"type": "object", "properties": {}}), strict)


def _only_known(what: str, value: Mapping[str, Any], known: set[str]) -> None:
    if extra := set(value) - known:
        raise RequestError(f"{what} has the field {min(map(str, extra))!r}, which is not known")


def _choice(choice: Any, names: list[str]) -> tuple[bool, frozenset[str] | None]:
    """(whether there has to be a call, the tools that may be called if not all)."""
    kinds: dict[Any, tuple[bool, None]] = {None: (False, None), "auto": (False, None), "none": (False, None),
                                           "required": (True, None)}  # fmt: skip
    if choice is None or (isinstance(choice, str) and choice in kinds):
        return kinds[choice]
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return _allowed(choice, names)
    return True, frozenset({_chosen("tool_choice", choice, names)})


def _allowed(choice: Mapping[str, Any], names: list[str]) -> tuple[bool, frozenset[str]]:
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, Mapping) or allowed.get("mode") not in ("auto", "required"):
        raise RequestError(f'tool_choice is {choice!r}, expected allowed_tools with the mode "auto" or "required"')
    _only_known("tool_choice", choice, {"type", "allowed_tools"})
    _only_known("tool_choice.allowed_tools", allowed, {"mode", "tools"})
    tools = allowed.get("tools")
    if not isinstance(tools, (list, tuple)) or not 1 <= len(tools) <= MAX_TOOLS:
        raise RequestError(f"tool_choice.allowed_tools.tools must be a list of 1 to {MAX_TOOLS} tools")
    return allowed["mode"] == "required", frozenset(_chosen("allowed_tools", tool, names) for tool in tools)


def _chosen(what: str, choice: Any, names: list[str]) -> str:
    """The name of a tool in {"type": "function", "function": {"name": ...}}."""
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise RequestError(f'{what} is {choice!r}, expected "auto", "none", "required" or '
                           '{"type": "function", "function": {"name": ...}}')
    _only_known(what, choice, {"type", "function"})
    _only_known(f"{what}.function", function, {"name"})
    name = function["name"]
    if not isinstance(name, str) or name not in names:
        raise RequestError(f"{what} names the tool {name!r}, the tools are: {', '.join(names)}")
    return name
