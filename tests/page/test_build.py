"""The built page in the package is what its sources give, small, and asks nobody but its own server."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src" / "tenth" / "server" / "page"
MOST_BYTES = 300_000  # of the first load, compressed


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_building_the_sources_again_gives_the_same_bytes(sources, tmp_path):
    built = subprocess.run(["npm", "run", "build", "--", "--outDir", str(tmp_path / "page")], cwd=sources,
                           capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    new, old = files_of(tmp_path / "page"), files_of(PAGE)
    assert sorted(new) == sorted(old), "run npm ci && npm run build in web/, and commit what it writes"
    assert [name for name in new if new[name] != old[name]] == []


def test_types_and_markup_of_the_sources_are_sound(sources):
    checked = subprocess.run(["npm", "run", "check"], cwd=sources, capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stdout


def first_load():
    """What a browser fetches before the page stands there, in the largest language: name -> bytes."""
    files = files_of(PAGE)
    html = files["index.html"].decode()
    names, waiting = {"index.html"}, re.findall(r'(?:src|href)="/(assets/[^"]+)"', html)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            static = re.findall(r'(?:import|from)\s*"\./([^"]+\.js)"', files[name].decode())
            waiting += [f"assets/{other}" for other in static]
    languages = [name for name in files if re.fullmatch(r"assets/(ar|de|en|es|fr|hi|sw|zh)-.*\.js", name)]
    assert len(languages) == 8
    names.add(max(languages, key=lambda name: len(files[name])))
    names |= {"manifest.webmanifest", "icons/icon.svg"}
    return {name: files[name] for name in names}


def test_the_first_load_is_small():
    loaded = first_load()
    assert sum(len(gzip.compress(data, 9)) for data in loaded.values()) < MOST_BYTES
    assert not [name for name in loaded if re.search("katex|highlight|mermaid|diagram", name)], "these load when needed"


def test_the_page_names_no_other_host_that_it_could_fetch_from():
    html = (PAGE / "index.html").read_text() + (PAGE / "diagram.html").read_text()
    assert re.findall(r"https?://", html) == []
    styles = "".join(path.read_text() for path in PAGE.rglob("*.css"))
    assert re.findall(r"url\((?!/assets/|\"?data:)[^)]*\)", styles) == []
    assert "@import" not in styles


def test_the_policies_allow_no_inline_script_and_no_other_host():
    policies = json.loads((PAGE / "policies.json").read_text())
    assert set(policies) == {"/", "/diagram.html"}
    for policy in policies.values():
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self'"
        assert not re.search(r"https?:|\*", policy)
    assert "unsafe" not in policies["/"]
    assert "connect-src" not in policies["/diagram.html"]
