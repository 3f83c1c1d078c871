"""The model library: names to files, downloads that survive a kill, and what is known about each file.

    resolve(name)      a name, path or URL -> a local file, downloaded when needed
    pull(name)         download (or finish, or repair) a model of the library
    list_models()      what is here, and what the catalogue offers
    show(name)         facts about one model
    verify(name)       recompute sha256 against the record
    remove(name)       delete a model of the library

Everything lies under one folder: ``TENTH_HOME``, or the platform's data folder (``store.py`` draws the layout).
Nothing touches the network except ``pull`` and, when it may download, ``resolve``. Importing this package is cheap:
names are loaded on first use (PEP 562), network libraries
when a download starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenth.library.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueModel
    from tenth.library.facts import Facts, HeaderFacts, show
    from tenth.library.listing import Entry, list_models
    from tenth.library.progress import Progress
    from tenth.library.pulling import pull
    from tenth.library.removing import Removal, plan_removal, remove
    from tenth.library.resolving import resolve
    from tenth.library.store import Record, library_folder
    from tenth.library.verifying import FileCheck, Verification, verify

_HOME = {
    "CATALOGUE": "catalogue",
    "DEFAULT_MODEL": "catalogue",
    "CatalogueModel": "catalogue",
    "Entry": "listing",
    "Facts": "facts",
    "FileCheck": "verifying",
    "HeaderFacts": "facts",
    "Progress": "progress",
    "Record": "store",
    "Removal": "removing",
    "Verification": "verifying",
    "library_folder": "store",
    "list_models": "listing",
    "plan_removal": "removing",
    "pull": "pulling",
    "remove": "removing",
    "resolve": "resolving",
    "show": "facts",
    "verify": "verifying",
}

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "CatalogueModel",
    "Entry",
    "Facts",
    "FileCheck",
    "HeaderFacts",
    "Progress",
    "Record",
    "Removal",
    "Verification",
    "library_folder",
    "list_models",
    "plan_removal",
    "pull",
    "remove",
    "resolve",
    "show",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
