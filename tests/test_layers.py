"""Imports go one way: a module may import what stands in its row, errors, and nothing else of tenth."""

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "tenth"

# layer -> layers it may import. "errors" and "config" are open to all; a layer may always import itself.
MAY_IMPORT = {
    "errors": set(),
    "config": set(),
    "batch": set(),
    "program": set(),
    "cpu": {"_core"},  # asks one question, before numpy is imported
    "runtime": {"program", "batch", "_core"},
    "tracing": set(),
    "usage": {"weights"},
    "observed": {"weights", "library", "loader", "placing", "usage"},
    "weights": {"_core"},
    "models": {"program"},
    "placing": {"program", "weights", "runtime", "batch"},
    "loader": {"models", "program", "weights", "runtime", "batch", "placing", "tracing"},
    "engine": {"runtime", "batch"},
    "text": set(),
    "library": {"weights"},  # show() and verify() read headers
    "sampling": set(),
    "feed": {"engine"},
    "stream": {"engine", "feed"},
    "gathering": {"engine", "batch"},
    "facts": {"loader", "runtime"},
    "preparing": {"engine", "feed", "text", "sampling"},
    "prompting": {"text"},
    "model": {"facts", "preparing", "prompting", "loader", "engine", "text", "batch", "sampling", "feed", "stream",
              "gathering"},
    "opening": {"model", "usage", "observed", "loader", "text", "library", "weights"},
    "bench": {"model", "loader", "engine", "text", "library", "weights", "sampling", "stream", "runtime", "program",
              "batch", "placing", "tracing"},
    "forecast": {"bench", "observed", "loader", "placing", "library", "weights", "runtime", "program"},
    "server": {"model", "preparing", "loader", "engine", "text", "library", "weights", "sampling", "stream",
               "gathering", "batch", "forecast", "bench", "observed"},
    "cli": {"model", "loader", "engine", "text", "library", "weights", "sampling", "stream", "runtime", "program",
            "batch", "bench", "server", "models", "forecast", "observed"},
    "__main__": {"cli"},
}  # fmt: skip
OPEN_TO_ALL = {"errors", "config", "cpu"}


def layer_of(path):
    return path.relative_to(SOURCES).parts[0].removesuffix(".py")


def imports(tree, package):
    """Full names of the modules of tenth that a tree imports anywhere, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tenth")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, base]).rstrip(".")
            if base == "tenth":
                yield from (f"tenth.{alias.name}" for alias in node.names)
            elif base.startswith("tenth."):
                yield base


def wrong_arrows(path, source):
    layer = layer_of(path)
    package = ".".join(["tenth", *path.relative_to(SOURCES).parts[:-1]])
    for name in imports(ast.parse(source), package):
        target = name.split(".")[1] if "." in name else None
        if target is None:  # `import tenth`: the whole public API
            if layer not in ("cli", "bench", "server"):
                yield f"{layer} imports tenth itself"
        elif target != layer and target not in OPEN_TO_ALL | MAY_IMPORT[layer]:
            yield f"{layer} imports {name}"


FILES = sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_module_imports_only_layers_to_its_right(path):
    assert list(wrong_arrows(path, path.read_text())) == []


def test_only_the_runtime_and_headers_import_the_native_module():
    assert [layer for layer, allowed in MAY_IMPORT.items() if "_core" in allowed] == ["cpu", "runtime", "weights"]


def test_the_table_has_no_cycles():
    left = {layer: allowed & set(MAY_IMPORT) for layer, allowed in MAY_IMPORT.items()}
    while left:
        done = {layer for layer, allowed in left.items() if not allowed}
        assert done, f"a cycle among {sorted(left)}"
        left = {layer: allowed - done for layer, allowed in left.items() if layer not in done}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("engine/x.py", "from tenth.model import Model"),
        ("engine/x.py", "from ..text import stream"),
        ("models/x.py", "def f():\n    import tenth.weights.gguf"),
        ("text/x.py", "from tenth import _core"),
        ("weights/x.py", "import tenth"),
    ],
)
def test_a_wrong_arrow_is_noticed(file, source):
    assert len(list(wrong_arrows(SOURCES / file, source))) == 1
