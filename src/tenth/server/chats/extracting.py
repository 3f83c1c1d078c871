"""The text of a file, in a process of its own: ``python -m tenth.server.chats.extracting NAME < FILE``, as JSON.

Files come from anywhere. The process has limits on memory, time and output, opens nothing, and starts nothing; the
server only reads what it prints.

Printed is ``{"kind", "text", "is_cut"}`` or ``{"error", "hint", "cause"}``.
"""

from __future__ import annotations

import contextlib
import html.parser
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePath

from tenth.errors import Cause
from tenth.server.chats.workers import limit

MOST_BYTES = 64 << 20  # of the file
MOST_CHARACTERS = 4 << 20  # of the text; more is cut
MOST_PAGES = 5000
MOST_UNPACKED = 128 << 20  # of what a package holds and is read
MEMORY_BYTES, PROCESSOR_S = 1 << 30, 60

_CODE = """
    bash c cc clj cpp cs css cu cxx dart diff el erl ex f90 go gradle groovy h hpp hs ini ipynb java jl js json
    jsonl jsx kt lua m make mjs ml nim patch php pl proto ps1 py pyi r rb rs scala scss sh sql svelte swift tex
    toml ts tsx vb vue xml yaml yml zig zsh
"""
CODE = frozenset(_CODE.split())


DAMAGED, TOO_MUCH = Cause("file-damaged"), Cause("file-too-much")


class Unreadable(Exception):
    """The file has no text that can be had: what to say, a hint, and what it is for programs."""

    def __init__(self, message: str, hint: str = "", cause: Cause = DAMAGED) -> None:
        super().__init__(message)
        self.hint, self.cause = hint, cause


def kind_of(name: str, data: bytes) -> str:
    """What a file is, by its beginning, else by its name."""
    suffix = PurePath(name).suffix.lower().lstrip(".")
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return "docx"
    if suffix in ("html", "htm", "xhtml") or re.match(rb"\s*(<!doctype html|<html)", data[:256], re.IGNORECASE):
        return "html"
    known = {"md": "markdown", "markdown": "markdown", "csv": "csv", "tsv": "csv", "pdf": "pdf", "docx": "docx"}
    return known.get(suffix, "code" if suffix in CODE else "text")


def extract(name: str, data: bytes) -> dict[str, object]:
    """The text of a file. Raises Unreadable."""
    kind = kind_of(name, data)
    text, is_cut = _gathered(READERS.get(kind, _plain)(data))
    return {"kind": kind, "text": text, "is_cut": is_cut}


def _gathered(parts: Iterator[str]) -> tuple[str, bool]:
    """Parts put together, as far as there is room; and whether some is left out."""
    found, room = [], MOST_CHARACTERS
    for part in parts:
        found.append(part[:room])
        if len(part) > room:
            return _tidy("".join(found)), True
        room -= len(part)
    return _tidy("".join(found)), False


def _tidy(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    return re.sub(r"\n{4,}", "\n\n\n", text.encode(errors="replace").decode())  # surrogates are no text


def _plain(data: bytes) -> Iterator[str]:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            yield data.decode(encoding, errors="replace")
            return
    if b"\0" in data[:65536]:
        raise Unreadable("this file is no text", "text, code, Markdown, CSV, HTML, PDF and DOCX can be read",
                         cause=Cause("file-no-text"))
    try:
        yield data.decode()
    except UnicodeDecodeError:
        yield data.decode("cp1252", errors="replace")  # what is no UTF-8 mostly comes from there


def _pdf(data: bytes) -> Iterator[str]:
    import logging

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.disable(logging.CRITICAL)  # it tells of every oddity of a file
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("this PDF is protected by a password", "save it without one", cause=Cause("pdf-password"))
        has_text = False
        for number, page in enumerate(reader.pages):
            if number == MOST_PAGES:
                raise Unreadable(f"this PDF has more than {MOST_PAGES} pages", "split it",
                                 cause=Cause("pdf-long", most=MOST_PAGES))
            text = page.extract_text().strip()
            has_text = has_text or bool(text)
            yield text + "\n\n"
    except PyPdfError as error:
        raise Unreadable(f"this PDF cannot be read: {str(error)[:200]}", cause=Cause("file-damaged")) from None
    if not has_text:
        raise Unreadable("this PDF has no text", "it may consist of pictures: recognise the text first (OCR)",
                         cause=Cause("pdf-pictures"))


W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def _docx(data: bytes) -> Iterator[str]:
    from defusedxml.ElementTree import iterparse

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package, package.open("word/document.xml") as file:
            document = file.read(MOST_UNPACKED + 1)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError):
        raise Unreadable("this file is no DOCX document", "of packages only DOCX can be read",
                         cause=Cause("docx-none")) from None
    if len(document) > MOST_UNPACKED:
        raise Unreadable(f"this document is larger than {MOST_UNPACKED >> 20} MiB when unpacked",
                         cause=Cause("file-large", most=MOST_UNPACKED >> 20))
    level, cells = 0, 0  # of the paragraph's heading; of open table rows
    for event, element in iterparse(io.BytesIO(document), events=("start", "end")):
        tag = element.tag.removeprefix(W)
        if event == "start":
            cells += tag == "tr"
            continue
        if tag == "pStyle":
            match = re.fullmatch(r"Heading([1-6])", element.get(f"{W}val", ""))
            level = int(match.group(1)) if match else 0
        elif tag == "p":
            text = "".join(_runs(element))
            yield ("#" * level + " " if level and text else "") + text + (" " if cells else "\n")
            level = 0
            element.clear()
        elif tag == "tc":
            yield "\t"
        elif tag == "tr":
            cells -= 1
            yield "\n"
            element.clear()


def _runs(paragraph: object) -> Iterator[str]:
    for part in paragraph.iter():  # type: ignore[attr-defined]
        tag = part.tag.removeprefix(W)
        if tag == "t":
            yield part.text or ""
        elif tag in ("tab", "br", "cr"):
            yield "\t" if tag == "tab" else "\n"


_HIDDEN = """
    script style noscript template svg math iframe object select button
"""
_VOID = """
    area base br col embed hr img input link meta param source track wbr
"""
_BLOCKS = """
    address article aside blockquote body dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav
    ol p pre section table tr ul title
"""


class _Page(html.parser.HTMLParser):
    """What a reader of a web page would see, as text."""

    HIDDEN, VOID, BLOCKS = (frozenset(names.split()) for names in (_HIDDEN, _VOID, _BLOCKS))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[tuple[str, bool]] = []  # (element, whether it is hidden)
        self.n_pre = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "br":
            self.parts.append("\n")
        if tag in self.VOID:
            return
        style = given.get("style", "").replace(" ", "").lower()
        hides = (tag in self.HIDDEN or "hidden" in given or given.get("aria-hidden") == "true"
                 or "display:none" in style or "visibility:hidden" in style)
        if len(self.open) < 512:  # deeper ones count as what they are in
            self.open.append((tag, hides or self.is_hidden))
        self.n_pre += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._say("#" * int(tag[1]) + " ")
        elif tag == "li":
            self._say("- ")
        elif tag in ("td", "th") and not self.at_line_start:
            self._say("\t")

    def handle_endtag(self, tag: str) -> None:
        names = [name for name, _ in self.open]
        if tag in names:
            del self.open[len(names) - 1 - names[::-1].index(tag):]
        self.n_pre -= tag == "pre" and self.n_pre > 0
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        text = data if self.n_pre else re.sub(r"\s+", " ", data)
        self._say(text.lstrip(" ") if self.at_line_start and not self.n_pre else text)

    @property
    def at_line_start(self) -> bool:
        return not self.parts or self.parts[-1].endswith("\n")

    @property
    def is_hidden(self) -> bool:
        return bool(self.open) and self.open[-1][1]

    def _say(self, text: str) -> None:
        if not self.is_hidden:
            self.parts.append(text)


def _html(data: bytes) -> Iterator[str]:
    match = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", data[:4096], re.IGNORECASE)
    text = "".join(_plain(data))
    if match and "\ufffd" not in text and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        with contextlib.suppress(LookupError):
            text = data.decode(match.group(1).decode(), errors="replace")
    page = _Page()
    page.feed(text)
    page.close()
    yield re.sub(r"[ \t]*\n([ \t]*\n)*", "\n", "".join(page.parts)).strip() + "\n"


READERS: dict[str, Callable[[bytes], Iterator[str]]] = {"pdf": _pdf, "docx": _docx, "html": _html}


def failed(message: str, hint: str, cause: Cause) -> dict[str, object]:
    """What is printed of a file without a text."""
    return {"error": message, "hint": hint, "cause": cause.as_data()}


def main() -> None:
    """Read, extract, print."""
    limit(MEMORY_BYTES, PROCESSOR_S)
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise Unreadable(f"the file is larger than {MOST_BYTES >> 20} MiB",
                             cause=Cause("file-large", most=MOST_BYTES >> 20))
        said = extract(sys.argv[1], data)
    except Unreadable as error:
        said = failed(str(error), error.hint, error.cause)
    except MemoryError:
        said = failed("the file needs too much memory to be read", "", TOO_MUCH)
    except Exception as error:  # whatever a library makes of a damaged file
        said = failed(f"the file cannot be read: {type(error).__name__}", "it may be damaged", DAMAGED)
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
