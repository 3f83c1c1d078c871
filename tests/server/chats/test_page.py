"""The page's files: open, compressed where it helps, under the policies that the build wrote."""

from __future__ import annotations

import json

import pytest

from tenth.server.chats.page import FOLDER, STRICTEST, Page

POLICIES = json.loads((FOLDER / "policies.json").read_text())


@pytest.mark.parametrize("path", ["/", "/diagram.html"])
def test_a_document_is_sent_under_its_own_policy(desk, path):
    answer = desk.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICIES[path]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_text_is_compressed_and_the_same_when_unpacked(desk):
    name = next(path for path in desk.app.page.paths if path.endswith(".js") and "/index-" in path)
    plain = desk.get(name, headers={"accept-encoding": "identity"})
    packed = desk.get(name, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.content == plain.content == (FOLDER / name.lstrip("/")).read_bytes()


def test_what_a_browser_has_is_not_sent_again(desk):
    first = desk.get("/")
    again = desk.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    asset = desk.get(next(path for path in desk.app.page.paths if path.startswith("/assets/")))
    assert "immutable" in asset.headers["cache-control"]


@pytest.mark.parametrize("path", ["/policies.json", "/../chats/page.py", "/assets/../../app.py", "/assets/",
                                  "/%2e%2e/app.py"])
def test_nothing_else_is_there(desk, path):
    assert desk.get(path).status_code == 404


def test_files_without_a_policy_of_their_own_get_the_strictest(tmp_path):
    (tmp_path / "x.html").write_text("x")
    assert Page(tmp_path).files["/x.html"].headers["content-security-policy"] == STRICTEST
