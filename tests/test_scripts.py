"""Scripts that use what the tests have start as the documents write it: from the repository, without a path set."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [path.name for path in (ROOT / "scripts").glob("*.py")
           if "\nfrom tests" in path.read_text() and "argparse" in path.read_text()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_starts(name):
    done = subprocess.run([sys.executable, f"scripts/{name}", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
