"""Whether this CPU can run tenth at all. Asked before NumPy is imported, which dies on such a CPU without a word."""

from __future__ import annotations

from tenth.errors import ResourceError


def require_supported_cpu() -> None:
    """Raise ResourceError on a CPU without SSE4.2."""
    try:
        from tenth import _core
    except ImportError as error:  # the wheel was built for another Python, or the build was skipped
        raise ResourceError(
            f"tenth's native core could not be loaded: {error}", "reinstall with: pip install ."
        ) from error
    if not _core.cpu_is_supported():
        raise ResourceError("this CPU lacks SSE4.2, which tenth needs", "run tenth on an x86-64 CPU made after 2011")
