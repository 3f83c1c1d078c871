"""The built page: the files of one folder of the package, known by name since the start, open to everyone.

Nothing outside the folder can be asked for, because no path is put together: a request's path is looked up among those
that were found. The policy lets the page load nothing from elsewhere and run no script but its own files.
"""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

FOLDER = Path(__file__).parents[1] / "page"

# Styles in attributes are KaTeX's; a style in an attribute loads nothing, as every kind of source is listed here.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; font-src 'self'; "
          "img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; worker-src 'self'; frame-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json",
         ".woff2": "font/woff2", ".svg": "image/svg+xml", ".json": "application/json", ".css": "text/css",
         ".html": "text/html; charset=utf-8", ".txt": "text/plain; charset=utf-8"}
PACKED = {"br": ".br", "gzip": ".gz"}  # made by the page's build beside the files
FOR_EVER = "public, max-age=31536000, immutable"  # names under /assets have a hash of the content
NO_PAGE = "<!doctype html><title>tenth</title><p>This build has no page. <a href=/docs>The API</a> is there."


@dataclass(frozen=True)
class File:
    """A file of the page and how it is sent. ``packed``: encodings in which it is there too."""

    path: Path
    kind: str
    etag: str
    cache: str
    packed: dict[str, Path]


class Page:
    """The files under a folder. ``router`` has a route for each."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.files = {"/" + path.relative_to(folder).as_posix(): _file(folder, path)
                      for path in sorted(folder.rglob("*"))
                      if path.is_file() and not path.is_symlink() and path.suffix not in PACKED.values()}
        self.router = APIRouter()
        for name in ("/", *self.files):
            self.router.add_api_route(name, self._send, methods=["GET", "HEAD"], include_in_schema=False)

    @property
    def paths(self) -> frozenset[str]:
        """Paths that are open to everyone."""
        return frozenset({"/", *self.files})

    async def _send(self, request: Request) -> Response:
        path = request.scope["path"]
        file = self.files.get("/index.html" if path == "/" else path)
        if file is None:
            return Response(NO_PAGE, media_type="text/html", headers=HEADERS)
        headers = HEADERS | {"etag": file.etag, "cache-control": file.cache, "vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        taken = {part.partition(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")}
        for encoding, packed in file.packed.items():
            if encoding in taken:
                return FileResponse(packed, media_type=file.kind, headers=headers | {"content-encoding": encoding})
        return FileResponse(file.path, media_type=file.kind, headers=headers)


def _file(folder: Path, path: Path) -> File:
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_hashed = path.relative_to(folder).parts[0] == "assets"
    packed = {encoding: path.with_name(path.name + suffix) for encoding, suffix in PACKED.items()}
    return File(path, kind, f'"{sha256(path.read_bytes()).hexdigest()[:24]}"', FOR_EVER if is_hashed else "no-cache",
                {encoding: file for encoding, file in packed.items() if file.is_file()})
