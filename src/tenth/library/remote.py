"""Headers of models that are elsewhere: what a file says of itself, without its weights.

The beginning of each file is fetched as the header's reader comes to need it (256 kB, then twice as much each time, at
most ``MOST_BYTES``) into a local file that has the size of the remote one and a hole for the rest, so that every check
of a header holds here too. A server that knows no ranges (RFC 9110, section 14) sends the file from its start: the
connection is closed when enough has come.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.errors import ModelFileError, RequestError, ResourceError
from tenth.library.sources import Address, Remote
from tenth.library.sources.web import polite_client, require_success

if TYPE_CHECKING:
    import httpx2

    from tenth.weights.gguf import ModelFile

FIRST_BYTES = 256 << 10  # of each of what may be a thousand shards
MOST_BYTES = 64 << 20  # the longest headers have some 20 MB


@contextmanager
def remote_header(source: Remote) -> Iterator[ModelFile]:
    """The header of a model at its addresses, all shards; its texts can be read until the end of the ``with``.

    Raises ModelFileError (no GGUF file, damaged, a header without end), RequestError (nothing there), ResourceError
    (network).
    """
    import httpx2

    from tenth.weights.gguf import read_header

    addresses = source.addresses()
    with tempfile.TemporaryDirectory(prefix="tenth-") as folder, polite_client() as client:
        beginnings = {}
        try:
            for address in addresses:
                beginning = Beginning(client, address, Path(folder) / address.name)
                beginnings[beginning.path] = beginning
                beginning.reach(1)  # also says how large the file is
            yield read_header(Path(folder) / addresses[0].name, lambda path, end: beginnings[path].reach(end))
        except httpx2.HTTPError as error:
            raise ResourceError(
                f"{addresses[0].url} could not be read: {error or type(error).__name__}", "check the network"
            ) from error
        except httpx2.InvalidURL as error:
            raise RequestError(f"the address {addresses[0].url!r} cannot be used: {error}") from error


class Beginning:
    """The first bytes of a remote file, in a local one of the same size."""

    def __init__(self, client: httpx2.Client, address: Address, path: Path):
        self.client, self.address, self.path = client, address, path
        self.size_bytes = address.size_bytes
        self.n_bytes = 0  # that have come

    def reach(self, end: int) -> None:
        """Fetch until byte ``end`` has come. Raises ModelFileError, RequestError, or httpx2's errors."""
        if end <= self.n_bytes:
            return
        wanted = max(end, 2 * self.n_bytes, FIRST_BYTES)
        if end > MOST_BYTES:
            raise ModelFileError(f"{self.address.url}: its header has more than {MOST_BYTES >> 20} MiB")
        wanted = min(wanted, MOST_BYTES, self.size_bytes or MOST_BYTES)
        asked = {**self.address.headers, "Range": f"bytes={self.n_bytes}-{wanted - 1}"}
        with self.client.stream("GET", self.address.url, headers=asked) as response:
            if response.status_code == 416:  # even the first byte lies behind the end
                raise ModelFileError(f"{self.address.url}: the file is empty, or became shorter")
            require_success(response, self.address.url)
            at = self._check(response)
            with self.path.open("r+b" if self.n_bytes else "wb") as file:
                file.seek(self.n_bytes)
                for data in response.iter_raw():
                    new = data[max(self.n_bytes - at, 0) : wanted - at]  # of a whole file we may have the first part
                    at += len(data)
                    file.write(new)
                    self.n_bytes += len(new)
                    if self.n_bytes >= wanted:
                        break
                file.truncate(self.size_bytes)
        if self.n_bytes < min(end, self.size_bytes or end):
            raise ModelFileError(f"{self.address.url}: the reply ended after {self.n_bytes} bytes", "try again")

    def _check(self, response: httpx2.Response) -> int:
        """Where in the file the reply's bytes begin. Learns the file's size."""
        url = self.address.url
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ModelFileError(f"{url} was sent compressed though that was not asked for")
        start, length = 0, response.headers.get("content-length", "")
        if response.status_code == 206:
            text = response.headers.get("content-range", "")
            found = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})", text)
            if found is None or int(found[1]) != self.n_bytes:
                raise ModelFileError(f"{url}: the server sent the range {text!r}, not the one that was asked for")
            start, length = int(found[1]), found[2]
        if not re.fullmatch(r"[0-9]{1,19}", length):
            raise ModelFileError(f"{url}: the server does not say how large the file is", "download it: tenth pull")
        if self.size_bytes not in (None, int(length)):
            raise ModelFileError(f"{url} has {int(length)} bytes, expected {self.size_bytes}", "try again")
        self.size_bytes = int(length)
        return start
