"""tenth: open models at a tenth. The whole public API; everything is imported when it is first used.

    import tenth
    with tenth.load("smollm2:135m") as model:
        for piece in model.chat([{"role": "user", "content": "Hello"}]):
            print(piece, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenth.config import EngineConfig
    from tenth.errors import ModelFileError, RequestError, ResourceError, TenthError
    from tenth.model import Model
    from tenth.opening import load, open_tokenizer
    from tenth.sampling import SamplingParams
    from tenth.stream import CallPart, Piece, Speculation, Stream, Timings, TokenLogprob, ToolCall, Usage
    from tenth.text.grammar import Grammar

__version__ = "0.1.0"

__all__ = [
    "CallPart",
    "EngineConfig",
    "Grammar",
    "Model",
    "ModelFileError",
    "Piece",
    "RequestError",
    "ResourceError",
    "SamplingParams",
    "Speculation",
    "Stream",
    "TenthError",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "__version__",
    "load",
    "open_tokenizer",
]

_HOMES = {
    "EngineConfig": "config",
    "Grammar": "text.grammar",
    **dict.fromkeys(("ModelFileError", "RequestError", "ResourceError", "TenthError"), "errors"),
    "Model": "model",
    **dict.fromkeys(("load", "open_tokenizer"), "opening"),
    "SamplingParams": "sampling",
    **dict.fromkeys(
        ("CallPart", "Piece", "Speculation", "Stream", "Timings", "TokenLogprob", "ToolCall", "Usage"), "stream"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tenth' has no attribute {name!r}")
    from importlib import import_module

    from tenth.cpu import require_supported_cpu

    require_supported_cpu()
    value = getattr(import_module(f"tenth.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
