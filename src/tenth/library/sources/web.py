"""Models at an address of their own: HTTPS downloads that go on where they stopped.

Resuming (RFC 9110, sections 13.1.5 and 14): ``Range`` from the saved count, with ``If-Range`` and the strong ETag or
the Last-Modified date seen at first, so that a file that changed meanwhile comes whole (200) instead of as a tail of
another file. A server that ignores ranges answers 200 as well. Plain HTTP is refused except on this machine, also
behind redirects.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tenth.errors import Cause, ModelFileError, RequestError, ResourceError
from tenth.library.partial import Partial
from tenth.library.sources import Address, RemoteFile, Report
from tenth.library.store import is_sha256
from tenth.weights.shards import MAX_SHARDS, parse_shard_name, shard_names

if TYPE_CHECKING:
    import httpx2

_CHECKPOINT_BYTES = 32 << 20  # what a kill costs at most; an fsync this often is not felt
_ATTEMPTS = 5  # in a row without one new byte
_TIMEOUT_S = 30.0
_MAX_REDIRECTS = 5
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class WebFile:
    """One GGUF file at a URL. ``#sha256=<64 hex digits>`` behind the address pins its content."""

    url: str
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> WebFile:
        """Raises RequestError for an address that cannot be used."""
        url, _, fragment = text.partition("#")
        try:
            parts = urlsplit(url)
            host, user, _ = parts.hostname, parts.username, parts.port
        except ValueError as error:
            raise RequestError(f"the address {url!r} cannot be read: {error}") from error
        _require_safe(parts.scheme, host or "")
        if not host or user is not None:
            raise RequestError(
                f"the address {url!r} has no host, or carries a user name", "give https://host/path/file.gguf"
            )
        digest = fragment.removeprefix("sha256=").lower() if fragment.startswith("sha256=") else None
        if digest is not None and not is_sha256(digest):
            raise RequestError(f"the sha256 behind the address is {digest!r}, expected 64 hex digits")
        return cls(url, digest)

    @property
    def name(self) -> str:
        """The address."""
        return self.url

    @property
    def key(self) -> str:
        """A readable folder name, made unique by a digest of the address."""
        return f"url--{self._file[:80]}--{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    @property
    def origin(self) -> str:
        """The address."""
        return self.url

    @property
    def _file(self) -> str:
        return local_file_name(unquote(urlsplit(self.url).path))

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """One file; nothing is asked of the server yet."""
        return [
            RemoteFile(
                self._file, None, self.sha256, self.url, lambda partial, report: fetch(self.url, {}, partial, report)
            )
        ]


    def addresses(self) -> list[Address]:
        """The file, or all shards when its name says that it is one of several."""
        from pathlib import PurePosixPath

        parts = urlsplit(self.url)
        name = parse_shard_name(PurePosixPath(parts.path))
        if name is None or not 1 < name.n_shards <= MAX_SHARDS:
            return [Address(self.url, self._file, {})]
        folder = parts.path.rpartition("/")[0]
        paths = [f"{folder}/{shard}" for shard in shard_names(name)]
        return [Address(parts._replace(path=path).geturl(), local_file_name(unquote(path)), {}) for path in paths]


def local_file_name(path: str) -> str:
    """A name for the file behind a remote path: its last part, with what a file system might mind replaced."""
    last = path.rstrip("/").rpartition("/")[2]
    name = (
        re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._+-]", "_", last)).lstrip("._+-")[-150:].lstrip("._+-") or "model"
    )
    return name if name.lower().endswith(".gguf") else name + ".gguf"


def _require_safe(scheme: str, host: str) -> None:
    if scheme == "https" or (scheme == "http" and host in _LOCAL_HOSTS):
        return
    raise RequestError(
        f"{scheme}://{host} is not encrypted",
        "use an https:// address, or download the file yourself and give its path",
    )


def fetch(url: str, headers: dict[str, str], partial: Partial, report: Report) -> None:
    """Bring the rest of ``url`` into ``partial``, trying again after a broken connection while bytes still come.

    ``headers`` go to the first host only: httpx2 drops Authorization when a redirect leads elsewhere. Raises
    RequestError (no such file, not allowed), ResourceError (network), ModelFileError (another file than expected).
    """
    import httpx2

    failures = 0
    with polite_client() as client:
        while True:
            before = partial.n_bytes
            try:
                return _attempt(client, url, headers, partial, report)
            except httpx2.HTTPError as error:
                failures = 0 if partial.n_bytes > before else failures + 1
                partial.checkpoint()
                hopeless = isinstance(error, httpx2.TooManyRedirects | httpx2.UnsupportedProtocol)
                unreachable = isinstance(error, httpx2.ConnectError) and failures > 1  # no name, no route, no trust
                if hopeless or unreachable or failures >= _ATTEMPTS:
                    raise ResourceError(
                        f"{url} broke off after {partial.n_bytes} bytes: {error or type(error).__name__}",
                        "check the network and pull again: it goes on from there",
                        cause=Cause("download-network"),
                    ) from error
                time.sleep(min(0.2 * 2**failures, 5.0))
            except httpx2.InvalidURL as error:
                raise RequestError(f"the address {url!r} cannot be used: {error}", "check the address") from error
            except KeyboardInterrupt:
                with contextlib.suppress(OSError):
                    partial.checkpoint()
                raise


def polite_client() -> httpx2.Client:
    """A client that follows redirects to encrypted addresses only, and asks for bytes as they are."""
    import httpx2

    def check(request: Any) -> None:  # called for every hop of a redirect
        _require_safe(request.url.scheme, request.url.host)

    return httpx2.Client(
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        timeout=_TIMEOUT_S,
        event_hooks={"request": [check]},
        headers={"User-Agent": "tenth", "Accept-Encoding": "identity"},
    )


def _attempt(client: httpx2.Client, url: str, headers: dict[str, str], partial: Partial, report: Report) -> None:
    """One request for what is missing, and its bytes."""
    if partial.n_bytes and partial.n_bytes == partial.size_bytes:
        return
    if partial.n_bytes and not (partial.validator or partial.sha256):
        partial.restart()  # nothing could tell whether the rest would belong to the same file
    wanted = dict(headers)
    if partial.n_bytes:
        wanted["Range"] = f"bytes={partial.n_bytes}-"
        if partial.validator and not partial.sha256:  # a pinned digest decides by itself; mirrors differ in their ETags
            wanted["If-Range"] = partial.validator
    with client.stream("GET", url, headers=wanted) as response:
        if response.status_code == 416:  # our bytes do not fit the file that is there now
            partial.restart()
            raise _interrupted("the server has another file now")
        _start(response, url, partial)
        report(partial.n_bytes)
        saved = partial.n_bytes
        for data in response.iter_raw():  # as it arrives: larger blocks would lose what a broken connection brought
            partial.write(data)
            report(partial.n_bytes)
            if partial.n_bytes - saved >= _CHECKPOINT_BYTES:
                partial.checkpoint()
                saved = partial.n_bytes
    if partial.size_bytes is not None and partial.n_bytes < partial.size_bytes:
        raise _interrupted("the connection was closed early")


def _interrupted(reason: str) -> httpx2.HTTPError:
    import httpx2

    return httpx2.RemoteProtocolError(reason)


def _start(response: httpx2.Response, url: str, partial: Partial) -> None:
    """Set the partial to where this reply begins, and learn size and version from the headers."""
    require_success(response, url)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ModelFileError(
            f"{url} was sent compressed though that was not asked for", "download it yourself and give its path"
        )
    if response.status_code == 206:
        total = _range_total(response, partial)
    else:
        if partial.n_bytes:
            partial.restart()
        length = response.headers.get("content-length", "")
        total = int(length) if length.isascii() and length.isdigit() else None
    if total is not None and partial.size_bytes is not None and total != partial.size_bytes:
        raise ModelFileError(
            f"{url} has {total} bytes, expected {partial.size_bytes}", "the source has another file now"
        )
    if partial.size_bytes is None and total is not None:
        partial.expect_size(total)
    etag = response.headers.get("etag", "")
    partial.validator = etag if etag.startswith('"') else response.headers.get("last-modified")


def _range_total(response: httpx2.Response, partial: Partial) -> int | None:
    """Size of the whole file, from a ``Content-Range`` that begins where we stopped."""
    text = response.headers.get("content-range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", text)
    if match is None or int(match[1]) != partial.n_bytes:
        partial.restart()
        raise _interrupted(f"the server sent the range {text!r} instead of the one that was asked for")
    return None if match[3] == "*" else int(match[3])


def require_success(response: httpx2.Response, url: str) -> None:
    """Raises in our words for a reply that is no file; httpx2's own error for one that may come another time."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in (429, 500, 502, 503, 504):
        raise _interrupted(f"the server answered {status}")
    if status in (401, 403):
        raise RequestError(
            f"{url} may not be read: the server answered {status}",
            "it may need an account: for hf: models set HF_TOKEN",
            cause=Cause("download-refused", status=status),
        )
    if status in (404, 410):
        raise RequestError(f"nothing is at {url}: the server answered {status}", "check the address",
                           cause=Cause("download-nothing"))
    raise ResourceError(
        f"{url}: the server answered {status}", "try again later, or download the file yourself and give its path",
        cause=Cause("download-later", status=status),
    )
