"""The public API is exactly what is listed here, and importing it costs next to nothing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tenth

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "CallPart", "EngineConfig", "Grammar", "Model", "ModelFileError", "Piece", "RequestError", "ResourceError",
    "SamplingParams", "Speculation", "Stream", "TenthError", "Timings", "TokenLogprob", "ToolCall", "Usage",
    "__version__", "load", "open_tokenizer",
}  # fmt: skip


def fresh(code):
    """What a new interpreter prints for this code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_these():
    assert set(tenth.__all__) == PUBLIC
    assert len(tenth.__all__) == len(PUBLIC)
    assert set(tenth.__all__) <= set(dir(tenth))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_described(name):
    value = getattr(tenth, name)
    assert name == "__version__" or value.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tenth.nothing


def test_the_version_is_that_of_the_package():
    assert tenth.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_importing_brings_in_little_and_nothing_large():
    code = (
        "import sys; before = set(sys.modules); import tenth; new = set(sys.modules) - before;"
        "print(len(new), sorted({'numpy', 'jinja2', 'tokenizers', 'tenth._core'} & new))"
    )
    n_modules, large = fresh(code).split(maxsplit=1)
    assert int(n_modules) < 60  # 32 when this was written; what takes the time is how many files are opened
    assert large == "[]"
