"""Models on the Hugging Face Hub: ``hf:organisation/repository:quant``.

huggingface-hub lists the repository at one commit, with sizes and sha256; the bytes are then fetched like any other
HTTPS file (its own downloader begins anew after a kill). ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` work as
usual; its telemetry, which adds installed packages and detected tools to requests, is switched off.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tenth.errors import Cause, ModelFileError, RequestError, ResourceError
from tenth.library.partial import Partial
from tenth.library.sources import Address, RemoteFile, Report
from tenth.library.sources.web import fetch, local_file_name
from tenth.library.store import is_sha256

_PART = r"[A-Za-z0-9](?!.*(?:\.\.|--))[A-Za-z0-9._-]{0,95}"
_NAME = re.compile(
    rf"hf:(?P<repo>(?:{_PART})/(?:{_PART}))(?::(?P<quant>[A-Za-z0-9][A-Za-z0-9._-]{{0,150}}))?", re.IGNORECASE
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
_REMOTE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._+@()-]{0,199}")
_SPELLING = "check the spelling; for a private one set HF_TOKEN"
# GGUF files that are not language models: image projectors and calibration data.
_OTHER_KINDS = re.compile(r"(^|[/._-])(mmproj|imatrix)([._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class HubModel:
    """A repository, and which of its GGUF files: a quant such as Q4_K_M, a file name, or "" for the only one."""

    repo: str
    quant: str

    @classmethod
    def parse(cls, text: str) -> HubModel:
        """Raises RequestError when the name has another form."""
        match = _NAME.fullmatch(text)
        if match is None or ".." in text:
            raise RequestError(
                f"{text!r} cannot be read",
                "write hf:organisation/repository:QUANT, e.g. hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M",
                cause=Cause("model-unknown", name=text),
            )
        return cls(match["repo"], match["quant"] or "")

    @property
    def name(self) -> str:
        """As typed, with the prefix in lower case."""
        return f"hf:{self.repo}:{self.quant}" if self.quant else f"hf:{self.repo}"

    @property
    def key(self) -> str:
        """Organisation, repository and quant; repositories have no "--" in their names, so it is unique."""
        key = "--".join(["hf", *self.repo.split("/"), *([self.quant.lower()] if self.quant else [])])
        return key if len(key) <= 150 else f"{key[:130]}--{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    @property
    def origin(self) -> str:
        """The hub and the repository."""
        return f"Hugging Face Hub: {self.repo}"

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """The files that carry the quant, shards in order, at the repository's present commit."""
        commit, entries = self._chosen()
        places = self._addresses(commit, entries)
        return [self._file(commit, entry, place) for entry, place in zip(entries, places, strict=True)]

    def addresses(self) -> list[Address]:
        """The same files, to be read in part."""
        return self._addresses(*self._chosen())

    def quants(self) -> dict[str, int]:
        """Every model of the repository, by what chooses it (its path without the number of a shard): bytes."""
        return {
            group: sum(entry.size or 0 for entry in entries)
            for group, entries in _groups(self._info.siblings or []).items()
        }

    @cached_property
    def _info(self) -> Any:
        """What the hub says of the repository, asked once: all that is done with this object is of one commit."""
        return _ask(_quiet_hub(), self.repo)

    def choosing(self, quant: str) -> HubModel:
        """Another model of the same listing."""
        other = replace(self, quant=quant)
        other.__dict__["_info"] = self._info  # where cached_property keeps it
        return other

    def _chosen(self) -> tuple[str, list[Any]]:
        """(commit, what the hub says of each file)."""
        info = self._info
        entries = {entry.rfilename: entry for entry in info.siblings or []}
        chosen = choose_files(list(entries), self.quant, self.name)
        if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9a-f]{40,64}", info.sha):
            raise ModelFileError(f"the hub named no commit for {self.repo}")
        return info.sha, [entries[path] for path in chosen]

    def _addresses(self, commit: str, entries: list[Any]) -> list[Address]:
        hub = _quiet_hub()
        headers = hub.utils.build_hf_headers(library_name="tenth", library_version="0")
        return [
            Address(
                hub.hf_hub_url(self.repo, entry.rfilename, revision=commit), local_file_name(entry.rfilename), headers,
                entry.size if isinstance(entry.size, int) and entry.size > 0 else None,
            )
            for entry in entries
        ]  # fmt: skip

    def _file(self, commit: str, entry: Any, place: Address) -> RemoteFile:
        sha256 = entry.lfs.sha256 if entry.lfs else None
        if sha256 is not None and not is_sha256(sha256):
            raise ModelFileError(f"the hub gives {entry.rfilename} the sha256 {sha256!r}, expected 64 hex digits")

        def get(partial: Partial, report: Report) -> None:
            fetch(place.url, dict(place.headers), partial, report)

        return RemoteFile(
            place.name, place.size_bytes, sha256, f"{self.repo} {entry.rfilename} {sha256 or commit}", get
        )


def choose_files(paths: list[str], quant: str, name: str) -> list[str]:
    """Which of a repository's files make up the model: one file, or all shards of one, in order.

    ``quant`` must stand in a path as a word of its own: Q4_K does not find Q4_K_M. Raises RequestError when none or
    several fit, listing what there is; ModelFileError when shards are missing or a path is not a safe one.
    """
    groups = _groups(paths)
    fitting = [group for group in groups if _fits(group, quant)]
    if len(fitting) != 1:
        found = "no GGUF file fits" if not fitting else "several GGUF files fit"
        choices = ", ".join(sorted(fitting or groups)[:40]) or "none"
        raise RequestError(
            f"{found} {name}", f"put one of these behind the last colon, by quant or file name: {choices}",
            cause=Cause("hub-choose", name=name, choices=choices),
        )
    files = sorted(groups[fitting[0]])
    _require_safe_and_whole(files)
    return files


def _groups(files: list[Any]) -> dict[str, list[Any]]:
    """Files, or what the hub says of them, that make up one model each; by path without the number of a shard."""
    groups: dict[str, list[Any]] = {}
    for file in files:
        path = str(getattr(file, "rfilename", file))
        if path.lower().endswith(".gguf") and not _OTHER_KINDS.search(path):
            groups.setdefault(_SHARD.sub("", path), []).append(file)
    return groups


def _fits(path: str, quant: str) -> bool:
    if not quant:
        return True
    if quant.lower() == path.rpartition("/")[2].lower():
        return True
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", path, re.IGNORECASE) is not None


def _require_safe_and_whole(files: list[str]) -> None:
    for path in files:
        if not all(_REMOTE_PART.fullmatch(part) and ".." not in part for part in path.split("/")):
            raise ModelFileError(f"the hub lists a file {path!r}, whose name is not safe to use")
    shards = [match for match in map(_SHARD.search, files) if match]
    numbers = [int(match[1]) for match in shards]
    total = int(shards[0][2]) if shards else len(files)
    if (shards and numbers != list(range(1, total + 1))) or (not shards and len(files) != 1):
        raise ModelFileError(f"the hub lists {len(files)} shards of {files[0]}, expected {total}")


def _quiet_hub() -> Any:
    """huggingface_hub without its telemetry, also when something else imported it before."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def _ask(hub: Any, repo: str) -> Any:
    """The repository's files with sizes and digests. Raises RequestError or ResourceError in our words."""
    import httpx2
    from huggingface_hub import errors

    try:
        return hub.HfApi(library_name="tenth", library_version="0").model_info(repo, files_metadata=True, timeout=30)
    except errors.GatedRepoError as error:
        raise RequestError(
            f"{repo} asks for its licence to be accepted", "accept it on the model's page, then set HF_TOKEN",
            cause=Cause("hub-licence", name=repo),
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(f"the hub has no model {repo}, or it is private", _SPELLING,
                           cause=Cause("hub-missing", name=repo)) from error
    except errors.OfflineModeIsEnabled as error:
        raise ResourceError(
            f"{repo} is not here and HF_HUB_OFFLINE forbids asking the hub", "unset HF_HUB_OFFLINE",
            cause=Cause("hub-offline"),
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403, 404):
            raise RequestError(f"the hub refused {repo}: it answered {status}", _SPELLING,
                               cause=Cause("download-refused", status=status)) from error
        raise ResourceError(
            f"the hub could not answer about {repo}: it answered {status}", "try again later",
            cause=Cause("download-later", status=status),
        ) from error
    except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(
            f"the hub could not be asked about {repo}: {reason}", "check the network, or HF_ENDPOINT",
            cause=Cause("download-network"),
        ) from error
