"""hf: names: which files are chosen, and a whole pull against a hub of our own."""

from __future__ import annotations

import json

import pytest
from library_kit import gguf_bytes, run_driver, sha256

from tenth.errors import ModelFileError, RequestError
from tenth.library.sources.hub import HubModel, choose_files

FILES = [
    "README.md", "M-Q4_K_M.gguf", "M-Q4_K_S.gguf", "M-Q8_0.gguf", "M-IQ4_XS.gguf", "mmproj-M-Q8_0.gguf",
    "M.imatrix.gguf",
    "Q5_K_M/M-Q5_K_M-00002-of-00002.gguf", "Q5_K_M/M-Q5_K_M-00001-of-00002.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("quant", "chosen"),
    [("Q4_K_M", ["M-Q4_K_M.gguf"]), ("q8_0", ["M-Q8_0.gguf"]), ("M-Q4_K_S.gguf", ["M-Q4_K_S.gguf"]),
     ("Q5_K_M", ["Q5_K_M/M-Q5_K_M-00001-of-00002.gguf", "Q5_K_M/M-Q5_K_M-00002-of-00002.gguf"])],
)  # fmt: skip
def test_a_quant_chooses_its_file_or_all_its_shards(quant, chosen):
    assert choose_files(FILES, quant, "x") == chosen


@pytest.mark.parametrize("quant", ["Q4_K", "Q4_XS", "Q2_K", ""])
def test_no_or_several_fitting_files_are_refused_with_the_choices(quant):
    with pytest.raises(RequestError, match=r"GGUF files? fit") as caught:
        choose_files(FILES, quant, "x")
    assert "M-Q4_K_M.gguf" in caught.value.hint


def test_the_only_file_needs_no_quant():
    assert choose_files(["a.gguf", "b.txt"], "", "x") == ["a.gguf"]


@pytest.mark.parametrize(
    "files",
    [["../../M-Q8_0.gguf"], ["/etc/M-Q8_0.gguf"], ["a\\..\\Q8_0.gguf"], ["x/..Q8_0/M-Q8_0.gguf"],
     ["M-Q8_0-00001-of-00003.gguf", "M-Q8_0-00003-of-00003.gguf"], ["M-Q8_0-00002-of-00002.gguf"]],
)  # fmt: skip
def test_unsafe_paths_and_missing_shards_are_refused(files):
    with pytest.raises(ModelFileError):
        choose_files(files, "Q8_0", "x")


@pytest.mark.parametrize(
    "name", ["hf:", "hf:a", "hf:a/b/c", "hf:../x:Q8", "hf:a/..:Q8", "hf:a/b:../x", "hf:a/b:", "hf:a--b/c:Q"]
)
def test_names_of_another_form_are_refused(name):
    with pytest.raises(RequestError, match="cannot be read"):
        HubModel.parse(name)


def test_a_name_becomes_one_folder():
    model = HubModel.parse("HF:org/Repo-GGUF:Q4_K_M")
    assert (model.name, model.key) == ("hf:org/Repo-GGUF:Q4_K_M", "hf--org--Repo-GGUF--q4_k_m")


def serve_repository(server, digests=None):
    """A hub with one repository of two shards; the bytes come from a second host, as from a CDN."""
    shards = {f"Q8_0/M-Q8_0-0000{i}-of-00002.gguf": gguf_bytes(60_000, seed=i) for i in (1, 2)}
    commit = "c" * 40
    siblings = []
    for path, data in shards.items():
        file = path.rpartition("/")[2]
        (server.folder / file).write_bytes(data)
        location = {"Location": server.url(file, host="localhost")}
        server.replies[f"/org/repo/resolve/{commit}/{path}"] = (302, location, b"")
        lfs = {"sha256": (digests or {}).get(file, sha256(data)), "size": len(data), "pointerSize": 1}
        siblings.append({"rfilename": path, "size": len(data), "lfs": lfs})
    info = {
        "id": "org/repo",
        "sha": commit,
        "siblings": siblings,
        "private": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }
    server.replies["/api/models/org/repo"] = (200, {"Content-Type": "application/json"}, json.dumps(info).encode())
    return shards


def test_a_sharded_model_comes_from_the_hub_whole_and_resumes(server, home):
    shards = serve_repository(server)
    server.drops = [30_000]
    env = {"HF_ENDPOINT": server.url("").rstrip("/"), "HF_TOKEN": "hf_secret", "HF_HOME": str(home / "hf")}
    code, out, err = run_driver("pull", "hf:org/repo:Q8_0", **env)
    assert code == 0, err
    files = sorted(home.glob("models/hf--org--repo--q8_0/*/*.gguf"))
    assert [file.read_bytes() for file in files] == list(shards.values())
    assert out.strip() == str(files[0])
    asked = {path.partition("?")[0]: headers for path, headers in server.requests}
    assert asked["/api/models/org/repo"]["authorization"] == "Bearer hf_secret"
    assert "authorization" not in asked["/M-Q8_0-00001-of-00002.gguf"]  # the token stays with the hub
    assert any("range" in headers for _, headers in server.requests)
    assert not any("telemetry" in path or "harness" in path for path, _ in server.requests)


def test_bytes_that_differ_from_the_hubs_digest_are_refused(server, home):
    serve_repository(server, {"M-Q8_0-00002-of-00002.gguf": "0" * 64})
    env = {"HF_ENDPOINT": server.url("").rstrip("/"), "HF_HOME": str(home / "hf"), "HF_TOKEN": ""}
    code, _, err = run_driver("pull", "hf:org/repo:Q8_0", **env)
    assert (code, "expected " + "0" * 64 in err) == (3, True), err
    assert not list(home.glob("models/*/record.json"))


@pytest.mark.parametrize(("status", "code"), [(404, 2), (401, 2), (500, 4)])
def test_a_hub_that_refuses_is_one_error(server, home, status, code):
    server.replies["/api/models/org/repo"] = (status, {}, b"")
    env = {"HF_ENDPOINT": server.url("").rstrip("/"), "HF_HOME": str(home / "hf")}
    found, _, err = run_driver("pull", "hf:org/repo:Q8_0", **env)
    assert (found, "Traceback" in err) == (code, False), err
