"""The pages say what is so: docs/commands.md is current, and README's examples are commands and code that exist."""

import re
import shlex
from pathlib import Path

import pytest

from tenth.cli import commands
from tenth.cli.main import ALIASES, COMMANDS
from tenth.cli.reference import commands_markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_lines():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("tenth") or "&& tenth" in line]


def test_the_page_of_commands_is_current():
    assert (ROOT / "docs" / "commands.md").read_text() == commands_markdown(), (
        "run: python -m tenth.cli.reference > docs/commands.md")


def test_the_page_of_commands_has_every_command():
    page = commands_markdown()
    for name in COMMANDS:
        assert f"\n## {name}\n" in page


def test_readme_leads_with_the_two_commands():
    first, second = blocks("sh")[:2]
    assert first == 'pip install . && tenth ask "Explain in two sentences why the sky is blue."\n'
    assert second == "pip install '.[test]' && pytest\n"


@pytest.mark.parametrize("line", shell_lines())
def test_readme_s_commands_parse(line):
    words = shlex.split(line.split("&& ")[-1].split("<")[0])[1:]
    if not words:
        return  # bare tenth
    name = ALIASES.get(words[0], words[0])
    assert commands.build(name).make_context(name, words[1:]).params


def test_readme_s_python_uses_the_public_api():
    import tenth

    assert len(blocks("python")) == 2
    for block in blocks("python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"\btenth\.(\w+)", block):
            assert name in tenth.__all__


def test_links_of_the_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, target) for page in pages
             for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())]
    assert len(links) > 50
    assert [f"{page.name} links to {target}" for page, target in links if not (page.parent / target).exists()] == []
