"""Headers of files that are elsewhere: by ranges, from servers that know none, of shards and of the hub."""

from __future__ import annotations

import struct

import pytest
from library_kit import gguf_bytes
from test_pull_hub import serve_repository

from tenth.errors import ModelFileError, RequestError
from tenth.library import remote
from tenth.library.remote import remote_header
from tenth.library.sources import parse

N_WEIGHTS = 2_000_000


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def model_bytes(n_words: int, split: tuple[int, int] | None = None) -> bytes:
    """A file whose header holds so many words, with one tensor of 8 MB; ``split``: (number, count) of a shard."""
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    if split:
        numbers = {"split.no": split[0], "split.count": split[1], "split.tensors.count": split[1]}
        keys += [text(name) + struct.pack("<IH", 2, value) for name, value in numbers.items()]
    words = b"".join(text(f"word {i:06}") for i in range(n_words))
    keys.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, n_words) + words)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys)
    head += text(f"t{split[0] if split else 0}.weight") + struct.pack("<IQIQ", 1, N_WEIGHTS, 0, 0)
    return head + b"\0" * (-len(head) % 32) + b"\1" * 4 * N_WEIGHTS


@pytest.fixture
def url(server):
    (server.folder / "m.gguf").write_bytes(model_bytes(60_000))  # 1.1 MB of header
    return server.url("m.gguf")


def check(address, n_words):
    with remote_header(parse(address)) as header:
        assert header.metadata.architecture == "llama"
        assert header.metadata.count("tokenizer.ggml.tokens") == n_words
        assert header.tensors["t0.weight"].shape == (N_WEIGHTS,)


def test_a_header_comes_by_growing_ranges_and_no_weights_do(url, server):
    check(url, 60_000)
    assert server.ranges_asked() == ["bytes=0-262143", "bytes=262144-524287", "bytes=524288-1048575",
                                     "bytes=1048576-2097151"]  # fmt: skip
    assert server.sent_bytes < 3 << 20


def test_a_server_without_ranges_is_read_no_further_than_needed(url, server):
    server.ranges = False
    server.block_delay_s = 0.0005
    check(url, 60_000)
    assert server.sent_bytes < 4 * len(model_bytes(60_000))


def test_all_shards_of_an_address_are_read(server):
    for i in range(2):
        (server.folder / f"m-0000{i + 1}-of-00002.gguf").write_bytes(model_bytes(10, (i, 2)))
    with remote_header(parse(server.url("m-00002-of-00002.gguf"))) as header:
        assert set(header.tensors) == {"t0.weight", "t1.weight"}
        assert header.size_bytes == 2 * len(model_bytes(10, (0, 2)))
    assert server.sent_bytes <= 2 * remote.FIRST_BYTES


def test_a_missing_shard_is_an_error(server):
    (server.folder / "m-00001-of-00002.gguf").write_bytes(model_bytes(10, (0, 2)))
    with pytest.raises(RequestError, match="nothing is at"), remote_header(parse(server.url("m-00001-of-00002.gguf"))):
        pass


def test_a_model_of_the_hub_is_read_through_its_redirects(server, monkeypatch):
    import huggingface_hub
    from huggingface_hub.hf_api import HfApi

    shards, endpoint = serve_repository(server), server.url("").rstrip("/")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **how: HfApi(endpoint=endpoint, token=False, **how))
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repo, file, revision: f"{endpoint}/{repo}/resolve/{revision}/{file}"
    )
    model = parse("hf:org/repo:Q8_0")
    assert [place.name for place in model.addresses()] == [path.rpartition("/")[2] for path in shards]
    assert model.quants() == {"Q8_0/M-Q8_0.gguf": sum(map(len, shards.values()))}
    # The two files are no real shards: each says that it is whole.
    with pytest.raises(ModelFileError, match="the file says nothing of parts"), remote_header(model):
        pass
    other = model.choosing("M-Q8_0.gguf")
    assert (other.name, other.quants()) == ("hf:org/repo:M-Q8_0.gguf", model.quants())
    assert sum("/api/models/" in path for path, _ in server.requests) == 1, "the repository is listed once"
    assert server.sent_bytes < 400_000


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"<html>not here</html>" * 50, "not a GGUF file"), (gguf_bytes()[:100], "ends"), (b"", "is empty")],
)
def test_what_is_no_model_is_refused(server, content, what):
    (server.folder / "m.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match=what), remote_header(parse(server.url("m.gguf"))):
        pass


def test_a_header_without_end_is_refused(url, server, monkeypatch):
    monkeypatch.setattr(remote, "MOST_BYTES", 1 << 20)
    with pytest.raises(ModelFileError, match="its header has more than 1 MiB"), remote_header(parse(url)):
        pass
    assert server.sent_bytes <= 2 << 20


def test_a_reply_that_breaks_off_is_an_error(url, server):
    server.drops = [1000]
    with pytest.raises(Exception, match=r"could not be read|ended after"), remote_header(parse(url)):
        pass
