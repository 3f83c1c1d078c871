"""Downloads from an address: resuming, servers that do not play along, kills at every step, full disks."""

from __future__ import annotations

import errno
import signal

import pytest
from library_kit import gguf_bytes, run_driver, sha256, start_driver, wait_for

from tenth.errors import ModelFileError, RequestError, ResourceError
from tenth.library import list_models, pull, resolve
from tenth.library.partial import Partial
from tenth.library.sources import web

CONTENT = gguf_bytes(400_000)


@pytest.fixture
def url(server, monkeypatch):
    (server.folder / "m.gguf").write_bytes(CONTENT)
    monkeypatch.setattr(web.time, "sleep", lambda seconds: None)
    return server.url("m.gguf")


def test_a_url_is_downloaded_once(url, server):
    assert resolve(url).read_bytes() == CONTENT
    assert resolve(url).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_broken_connection_goes_on_where_it_stopped(url, server):
    server.drops = [100_000, 150_000]
    assert pull(url).paths()[0].read_bytes() == CONTENT
    first, *later = server.ranges_asked()
    assert first is None
    assert later == ["bytes=100000-", "bytes=250000-"]


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_a_killed_pull_goes_on_where_it_saved(url, server, home, share):
    server.hold_at = int(share * len(CONTENT))
    process = start_driver("pull", url)
    wait_for(lambda: sum(path.stat().st_size for path in home.rglob("*.partial")) > server.hold_at - (16 << 10))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(RequestError, match="not in the library"):
        resolve(url, download=False)
    server.hold_at = None
    server.go_on.set()
    assert pull(url).paths()[0].read_bytes() == CONTENT
    last = server.ranges_asked()[-1]
    saved = int(last.removeprefix("bytes=").removesuffix("-")) if last else 0
    assert saved > share * len(CONTENT) - (128 << 10)  # a save every 32 KiB, and blocks of up to 64 KiB


def test_a_crash_before_any_step_leaves_the_old_or_the_new_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(40_000, seed=2))
    (tmp_path / "m.gguf.old").write_bytes(gguf_bytes(30_000, seed=3))
    code, out, err = run_driver("crashes", str(tmp_path / "m.gguf"), str(tmp_path / "homes"))
    assert code == 0, err
    assert all(int(steps) > 15 for steps in out.split())  # else the walk saw only a part of the pull


def test_two_pulls_at_once_download_once(url, server):
    server.block_delay_s = 0.005
    first, second = start_driver("pull", url), start_driver("pull", url)
    outputs = [process.communicate(timeout=90) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert len(server.requests) == 1
    assert resolve(url).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_asked_for_the_whole_file(url, server):
    server.ranges, server.drops = False, [100_000]
    assert pull(url).paths()[0].read_bytes() == CONTENT
    assert server.ranges_asked() == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_comes_whole(url, server):
    server.drops = [100_000] + [0] * 20
    with pytest.raises(ResourceError, match="broke off after 100000 bytes"):
        pull(url)
    server.drops = []
    other = gguf_bytes(500_000, seed=2)
    (server.folder / "m.gguf").write_bytes(other)
    assert pull(url).paths()[0].read_bytes() == other


def test_a_file_without_a_version_is_not_resumed_unless_its_digest_is_known(url, server):
    server.etags, server.drops = False, [100_000, 200_000]
    assert pull(url).paths()[0].read_bytes() == CONTENT
    assert server.ranges_asked() == [None, None, None]
    server.requests.clear()
    server.drops = [100_000]
    assert pull(f"{url}?2#sha256={sha256(CONTENT)}").files[0].pinned
    assert server.ranges_asked() == [None, "bytes=100000-"]


def test_a_wrong_digest_is_refused_and_the_file_deleted(url, home):
    with pytest.raises(ModelFileError, match="expected " + "0" * 64):
        pull(f"{url}#sha256={'0' * 64}")
    assert not list(home.rglob("*gguf*.partial"))
    assert list_models() == []


def test_a_web_page_is_refused_at_its_first_bytes(url, server):
    (server.folder / "m.gguf").write_bytes(b"<!doctype html>" + bytes(10_000_000))
    with pytest.raises(ModelFileError, match="begins with b'<!do'"):
        pull(url)


@pytest.mark.parametrize(("status", "error"), [(404, RequestError), (403, RequestError), (418, ResourceError)])
def test_refusals_are_told_apart(url, server, status, error):
    server.statuses = [503, status]  # the first is tried again, after noting how much has come
    with pytest.raises(error, match=str(status)):
        pull(url)
    assert list_models() == []


def test_a_busy_server_is_asked_again_and_in_the_end_given_up(url, server):
    server.statuses = [503, 500]
    assert pull(url).paths()[0].read_bytes() == CONTENT
    server.statuses = [503] * 100
    with pytest.raises(ResourceError, match="answered 503"):
        pull(url, force=True)
    assert len(server.statuses) > 90
    server.statuses = []
    assert resolve(url, download=False).read_bytes() == CONTENT  # the old file stayed


def test_redirects_lead_to_the_file_but_not_into_the_open(url, server):
    server.replies["/moved"] = (302, {"Location": url}, b"")
    server.replies["/open"] = (302, {"Location": "http://192.0.2.1/m.gguf"}, b"")
    server.replies["/round"] = (302, {"Location": "/round"}, b"")
    assert pull(server.url("moved")).paths()[0].read_bytes() == CONTENT
    with pytest.raises(RequestError, match="not encrypted"):
        pull(server.url("open"))
    with pytest.raises(ResourceError, match="redirect"):
        pull(server.url("round"))


def test_a_reply_that_begins_elsewhere_is_not_appended(url, server):
    server.drops = [100_000]
    server.replies["/m2.gguf"] = (206, {"Content-Range": f"bytes 5-{len(CONTENT)}/{len(CONTENT) + 1}"}, b"GGUF")
    with pytest.raises(ResourceError, match="instead of the one that was asked for"):
        pull(server.url("m2.gguf"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_error_and_the_old_file_stays(url, server, monkeypatch, code):
    resolve(url)
    other = gguf_bytes(500_000, seed=2)
    (server.folder / "m.gguf").write_bytes(other)
    real, calls = Partial.write, []

    def write(self, data):
        calls.append(len(data))
        if len(calls) == 5:
            raise OSError(code, "no room")
        real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "write", write)
        with pytest.raises(ResourceError, match="no room on the disk"):
            pull(url, force=True)
    assert resolve(url, download=False).read_bytes() == CONTENT
    assert pull(url, force=True).paths()[0].read_bytes() == other


def test_a_file_size_limit_of_the_process_leaves_a_pull_that_can_go_on(url, server):
    code, _, err = run_driver("limit", "200000", url)
    assert (code, "no room on the disk" in err) == (4, True), err
    assert pull(url).paths()[0].read_bytes() == CONTENT
    assert server.ranges_asked()[-1] is not None


def test_a_file_that_cannot_fit_is_refused_before_it_is_fetched(url, server, monkeypatch):
    from tenth.library import partial

    monkeypatch.setattr(partial.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ResourceError, match=r"needs 0 MB more.* has 0 MB left"):
        pull(url)


@pytest.mark.parametrize(
    "address",
    ["http://example.com/m.gguf", "https:///m.gguf", "https://me:secret@example.com/m.gguf", "https://a:b:c/",
     "https://example.com/m.gguf#sha256=xyz", "http://localhost.evil.example/m.gguf"],
)  # fmt: skip
def test_addresses_that_are_not_safe_are_refused_before_anything_is_sent(address):
    with pytest.raises(RequestError):
        pull(address)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.gguf", "b.gguf"), ("/a/..", "model.gguf"), ("/a/..%2f..%2fetc", "2f.._2fetc.gguf"), ("/", "model.gguf"),
     ("/x\\..\\y.gguf", "x_._y.gguf"), ("/ä ö.gguf", "gguf.gguf"), ("/.hidden.gguf", "hidden.gguf")],
)  # fmt: skip
def test_file_names_from_addresses_cannot_leave_their_folder(path, name):
    from tenth.library.store import safe_name

    found = web.local_file_name(path)
    assert safe_name(found, "x") == found
    if "%" not in path:
        assert found == name
