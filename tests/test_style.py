"""What machines can check of how code and pages read: ruff, mypy, the stub of the native module, marks of a merge."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUB = ROOT / "src" / "tenth" / "_core.pyi"


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)


def test_ruff_finds_nothing():
    result = run("ruff", "check", "--no-cache", ".")
    assert result.returncode == 0, result.stdout


def test_mypy_finds_nothing():
    result = run("mypy")
    assert result.returncode == 0, result.stdout


def test_no_page_has_the_marks_of_a_merge():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert len(pages) > 10
    assert not [page.name for page in pages if re.search(r"^(<{7}|>{7}) ", page.read_text(encoding="utf-8"), re.M)]


def names(module):
    found = set()
    for name, value in vars(module).items():
        if not name.startswith("__"):
            found.add(name)
            if isinstance(value, type):
                found |= {f"{name}.{part}" for part in vars(value) if not part.startswith("_")}
    return found


def stub_names():
    found = set()
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            parts = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            found |= {f"{node.name}.{part}" for part in parts if not part.startswith("_")}
    return found


def test_the_stub_names_what_the_native_module_has():
    from tenth import _core

    assert stub_names() == names(_core), (
        "regenerate it: python -m nanobind.stubgen -m tenth._core -o src/tenth/_core.pyi"
    )
