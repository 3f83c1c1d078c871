"""The built page: the files of one folder of the package, known by name since the start, open to everyone.

Nothing outside the folder can be asked for, because no path is put together: a request's path is looked up among those
that were found. What the documents may load and run is said by policies that the page's build writes beside them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

FOLDER = Path(__file__).parents[1] / "page"
POLICIES = "policies.json"  # path -> Content-Security-Policy; web/tools/policy.ts has the reasons
STRICTEST = "default-src 'none'; frame-ancestors 'none'"  # where the build says nothing
HEADERS = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json",
         ".woff2": "font/woff2", ".svg": "image/svg+xml", ".json": "application/json", ".css": "text/css",
         ".html": "text/html; charset=utf-8", ".txt": "text/plain; charset=utf-8"}
PACKED = (".js", ".css", ".html", ".json", ".svg", ".webmanifest")  # a phone's connection is slow
FOR_EVER = "public, max-age=31536000, immutable"  # names under /assets have a hash of the content
NO_PAGE = "<!doctype html><title>tenth</title><p>This build has no page. <a href=/docs>The API</a> is there."


@dataclass(frozen=True)
class File:
    """A file of the page and how it is sent."""

    path: Path
    kind: str
    headers: dict[str, str]


class Page:
    """The files under a folder. ``router`` has a route for each."""

    def __init__(self, folder: Path = FOLDER) -> None:
        policies = folder / POLICIES
        self._policies: dict[str, str] = json.loads(policies.read_text()) if policies.is_file() else {}
        self.files = {"/" + path.relative_to(folder).as_posix(): self._file(folder, path)
                      for path in sorted(folder.rglob("*"))
                      if path.is_file() and not path.is_symlink() and path != policies}
        self._packed: dict[str, bytes] = {}
        self.router = APIRouter()
        for name in ("/", *self.files):
            self.router.add_api_route(name, self._send, methods=["GET", "HEAD"], include_in_schema=False)

    @property
    def paths(self) -> frozenset[str]:
        """Paths that are open to everyone."""
        return frozenset({"/", *self.files})

    def _file(self, folder: Path, path: Path) -> File:
        name = path.relative_to(folder)
        policy = self._policies.get("/" if name.name == "index.html" else f"/{name.as_posix()}",
                                    self._policies.get("/", STRICTEST))
        return File(path, TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream",
                    {**HEADERS, "content-security-policy": policy, "vary": "Accept-Encoding",
                     "etag": f'"{sha256(path.read_bytes()).hexdigest()[:24]}"',
                     "cache-control": FOR_EVER if name.parts[0] == "assets" else "no-cache"})

    async def _send(self, request: Request) -> Response:
        path = request.scope["path"]
        file = self.files.get("/index.html" if path == "/" else path)
        if file is None:
            return Response(NO_PAGE, media_type="text/html", headers={**HEADERS, "content-security-policy": STRICTEST})
        if request.headers.get("if-none-match") == file.headers["etag"]:
            return Response(status_code=304, headers=file.headers)
        taken = {part.partition(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")}
        if "gzip" in taken and file.path.suffix in PACKED:
            packed = self._packed.get(path)
            if packed is None:  # compressed once, when somebody needs it
                packed = self._packed[path] = await asyncio.to_thread(gzip.compress, file.path.read_bytes(), 6)
            return Response(packed, media_type=file.kind, headers={**file.headers, "content-encoding": "gzip"})
        return FileResponse(file.path, media_type=file.kind, headers=file.headers)
