"""pull, list, show, verify and rm as a user types them: data on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json

import pytest
from library_kit import gguf_bytes, sha256

CONTENT = gguf_bytes(100_000)


@pytest.fixture
def url(server):
    (server.folder / "m.gguf").write_bytes(CONTENT)
    return server.url("m.gguf")


@pytest.fixture
def tenth(capsys, monkeypatch):
    """Runs one command line; (exit code, stdout, stderr)."""
    from tenth.cli.main import main

    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*args: str) -> tuple[int, str, str]:
        code = main(list(args))
        return (code, *capsys.readouterr())

    return run


def test_pull_prints_the_file_and_tells_its_progress_on_stderr(tenth, url):
    code, out, err = tenth("pull", url)
    assert code == 0
    assert out.startswith(f"{url}: 100 kB")
    assert err.splitlines()[-1] == f"pulling {url}: 0.1 of 0.1 MB (100 %)"


def test_json_is_the_only_thing_on_stdout(tenth, url):
    (record,) = json.loads(tenth("pull", url, "--json")[1])
    assert record["files"][0]["sha256"] == sha256(CONTENT)
    (entry,) = json.loads(tenth("list", "--json")[1])
    assert (entry["name"], entry["state"], entry["size_bytes"]) == (url, "ready", len(CONTENT))
    assert json.loads(tenth("show", url, "--json")[1])["header"]["architecture"] == "llama"
    (result,) = json.loads(tenth("verify", "--json")[1])
    assert (result["ok"], result["files"][0]["found_sha256"]) == (True, sha256(CONTENT))
    (gone,) = json.loads(tenth("rm", url, "--yes", "--json")[1])
    assert gone["name"] == url
    assert json.loads(tenth("list", "--json")[1]) == []


def test_an_empty_list_says_on_stderr_what_to_do(tenth):
    code, out, err = tenth("list")
    assert (code, out) == (0, "")
    assert "tenth pull smollm2:135m" in err
    assert "qwen2.5-coder:1.5b" in tenth("list", "--all")[1]


def test_verify_exits_with_3_when_a_digest_differs(tenth, url):
    path = json.loads(tenth("pull", url, "--json")[1])[0]["paths"][0]
    with open(path, "r+b") as file:
        file.seek(-1, io.SEEK_END)
        file.write(b"x")
    code, out, err = tenth("verify", url)
    assert code == 3
    assert f"expected {sha256(CONTENT)}" in out
    assert "hint: `tenth pull" in err


def test_rm_deletes_nothing_unasked(tenth, url):
    tenth("pull", url)
    code, out, err = tenth("rm", url)
    assert (code, out) == (2, "")
    assert "--yes" in err
    assert tenth("rm", url, "nosuch", "--yes")[0] == 2
    assert len(json.loads(tenth("list", "--json")[1])) == 1
    assert tenth("rm", "--yes", "/etc/passwd")[0] == 2


@pytest.mark.parametrize("args", [("pull", "nosuch"), ("show", "./nosuch.gguf"), ("verify", "gemma3"), ("pull",)])
def test_a_wrong_name_is_exit_code_2_and_one_message(tenth, args):
    code, out, err = tenth(*args)
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert err
