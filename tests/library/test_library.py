"""Names, records, list, show, verify and rm."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from library_kit import gguf_bytes, sha256

from tenth.errors import ModelFileError, RequestError, ResourceError, TenthError
from tenth.library import CATALOGUE, DEFAULT_MODEL, catalogue, list_models, pull, remove, resolve, show, store, verify
from tenth.library.sources import web

CONTENT = gguf_bytes(100_000)


@pytest.fixture
def url(server):
    (server.folder / "m.gguf").write_bytes(CONTENT)
    return server.url("m.gguf")


@pytest.fixture
def here(url):
    """(name, path) of a model that was pulled."""
    return url, resolve(url)


def test_rows_of_the_catalogue_are_sound():
    names = [name for model in CATALOGUE.values() for name in (model.name, *model.aliases)]
    assert len(names) == len(set(names))
    assert DEFAULT_MODEL in CATALOGUE
    for model in CATALOGUE.values():
        assert store.is_sha256(model.sha256)
        assert store.safe_name(model.key, "key") == model.key
        (file,) = model.plan("/nowhere")
        assert (file.size_bytes, file.sha256) == (model.size_bytes, model.sha256)
        assert store.safe_name(file.name, "file") == file.name


def test_importing_the_library_imports_no_network_code():
    heavy = ["httpx2", "huggingface_hub", "rich", "zipfile", "numpy", "subprocess"]
    code = f"import sys, tenth.library.resolving; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_path_is_itself(tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    file.write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    assert resolve(str(file)) == file
    assert resolve("x.gguf").read_bytes() == CONTENT
    assert resolve("./x.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name", ["", "nosuch", "./nosuch.gguf", "..", "/", "a\0b", "x" * 5000, "smollm3:135m", "ftp://x/y"]
)
def test_a_name_that_means_nothing_is_a_request_error_with_a_hint(name):
    with pytest.raises(RequestError) as caught:
        resolve(name, download=False)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["ftp://host/model.gguf", "s3://bucket/model.gguf", "file:///model.gguf"])
def test_an_address_of_another_kind_is_not_taken_for_a_path(name):
    with pytest.raises(RequestError, match="kind that is not known") as refused:
        resolve(name)
    assert "https://" in str(refused.value.hint)


def test_a_close_name_is_suggested():
    with pytest.raises(RequestError, match=r"did you mean smollm2:135m\?"):
        resolve("smolm2:135m")


def test_an_absent_model_is_not_downloaded_when_that_is_forbidden(url, server):
    with pytest.raises(RequestError, match="tenth pull"):
        resolve(url, download=False)
    assert server.requests == []


def test_a_file_that_was_changed_underneath_is_noticed_and_repaired(here):
    name, path = here
    data = bytearray(CONTENT)
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="is not as it was pulled") as caught:
        resolve(name)
    assert "tenth verify" in caught.value.hint
    assert [entry.state for entry in list_models()] == ["changed"]
    assert not verify(name).ok
    assert pull(name).paths()[0].read_bytes() == CONTENT
    assert resolve(name).read_bytes() == CONTENT
    assert len(list(path.parent.parent.rglob("*.gguf"))) == 1


def test_a_file_that_was_only_touched_is_accepted_again_after_verify(here):
    name, path = here
    os.utime(path)
    with pytest.raises(ModelFileError):
        resolve(name)
    assert verify(name).ok
    assert resolve(name) == path


def test_pull_does_not_download_a_file_that_was_only_touched(here, server):
    name, path = here
    os.utime(path)
    server.requests.clear()
    assert pull(name).paths()[0] == path
    assert server.requests == []


def test_a_deleted_file_is_noticed_and_fetched_again(here):
    name, path = here
    path.unlink()
    with pytest.raises(ModelFileError, match="is gone"):
        resolve(name)
    assert verify(name).files[0].found_sha256 is None
    assert pull(name).paths()[0].read_bytes() == CONTENT


def test_a_record_cannot_vouch_for_other_bytes_than_the_catalogues(here, monkeypatch, server):
    name, _ = here
    row = dataclasses.replace(CATALOGUE[DEFAULT_MODEL], name=name, sha256="1" * 64)
    monkeypatch.setattr(catalogue, "CATALOGUE", {name: row})
    assert not verify(name).ok


@pytest.mark.parametrize(
    "damage",
    [lambda r: "{", lambda r: "[]", lambda r: json.dumps(r | {"files": []}), lambda r: json.dumps(r | {"extra": 1}),
     lambda r: json.dumps(r | {"key": "other"}), lambda r: json.dumps(r | {"generation": "../../.."}),
     lambda r: json.dumps(r | {"files": [r["files"][0] | {"file": "../../../../etc/passwd"}]}),
     lambda r: json.dumps(r | {"files": [r["files"][0] | {"sha256": "../x"}]})],
)  # fmt: skip
def test_a_damaged_or_hostile_record_is_refused_and_replaced_by_a_pull(here, damage):
    name, path = here
    record = path.parent.parent / "record.json"
    record.write_text(damage(json.loads(record.read_text())))
    with pytest.raises(ModelFileError):
        resolve(name, download=False)
    assert [entry.state for entry in list_models()] == ["damaged"]
    assert resolve_after_pull(name) == CONTENT


def resolve_after_pull(name):
    pull(name)
    return resolve(name, download=False).read_bytes()


def test_symbolic_links_in_the_library_are_not_followed(here, tmp_path):
    name, path = here
    outside = tmp_path / "outside.gguf"
    outside.write_bytes(CONTENT)
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(ModelFileError):
        resolve(name)
    remove(name)
    assert outside.read_bytes() == CONTENT


def test_a_linked_model_folder_is_refused(home, url, tmp_path):
    key = web.WebFile.parse(url).key
    (tmp_path / "elsewhere").mkdir()
    (home / "models").mkdir(parents=True)
    (home / "models" / key).symlink_to(tmp_path / "elsewhere")
    for act in (pull, remove, lambda name: resolve(name, download=False)):
        with pytest.raises(ModelFileError, match="symbolic link"):
            act(url)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_rm_deletes_the_model_and_nothing_else(here, home, tmp_path):
    name, _ = here
    assert remove(name).size_bytes >= len(CONTENT)
    assert list((home / "models").iterdir()) == []
    with pytest.raises(RequestError, match="not in the library"):
        remove(name)


@pytest.mark.parametrize("name", ["/etc/passwd", "../home", "./x.gguf", "..", ".", "~", "models"])
def test_rm_refuses_what_is_no_model_of_the_library(here, name, home):
    with pytest.raises(RequestError):
        remove(name)
    assert resolve(here[0]).exists()


def test_rm_and_verify_refuse_while_a_pull_holds_the_model(here):
    name, path = here
    with store.locked(web.WebFile.parse(name).key):
        for act in (remove, verify):
            with pytest.raises(ResourceError, match="another process"):
                act(name)
    assert path.exists()


def test_rm_gives_back_what_a_broken_pull_left(url, server, monkeypatch):
    monkeypatch.setattr(web.time, "sleep", lambda seconds: None)
    server.drops = [50_000] + [0] * 20
    server.statuses = []
    with pytest.raises(ResourceError):
        pull(url)
    (entry,) = list_models()
    assert (entry.state, entry.size_bytes > 50_000) == ("incomplete", True)
    remove(entry.name)
    assert list_models() == []


def test_list_shows_the_catalogue_only_when_asked(here):
    assert [entry.name for entry in list_models()] == [here[0]]
    names = [entry.name for entry in list_models(available=True)]
    assert names == [here[0], *sorted(CATALOGUE)]


def test_show_tells_what_the_header_says(here, tmp_path):
    name, path = here
    facts = show(name)
    assert facts.header.architecture == "llama"
    assert facts.header.parameters == 25_000
    assert facts.header.formats == {"F32": 25_000}
    assert (facts.header.context_tokens, facts.header.has_template) == (2048, False)
    assert facts.sha256 == (sha256(CONTENT),)
    assert show(str(path)).header == facts.header


def test_show_of_a_model_that_is_not_here_downloads_nothing():
    facts = show("smollm2")
    assert (facts.name, facts.path, facts.header, facts.entry.state) == ("smollm2:135m", None, None, "available")
    with pytest.raises(TenthError):
        show("hf:org/repo:Q8_0")


def test_a_library_folder_that_cannot_be_made_is_a_resource_error(url, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="could not be stored"):
        pull(url)


def test_the_models_may_lie_behind_a_link_to_another_disk(home, url, tmp_path):
    (tmp_path / "disk").mkdir()
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(tmp_path / "disk")
    pull(url)
    assert resolve(url, download=False).read_bytes() == CONTENT
    assert [entry.state for entry in list_models()] == ["ready"]
    assert remove(url).size_bytes >= len(CONTENT)
    assert list((tmp_path / "disk").iterdir()) == []
