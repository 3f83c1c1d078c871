"""What the server says is said in the language of who reads it: by the codes of its errors."""

from __future__ import annotations

import ast
import re

import pytest

from tenth.library.catalogue import CATALOGUE

from .visiting import ROOT

TEXTS = ROOT / "web" / "src" / "i18n" / "server" / "en.ts"


def texts():
    """Key -> the names in it."""
    found = re.findall(r"^  '([\w.:-]+)': '(.*)',$", TEXTS.read_text(), re.M)
    return {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in found}


def causes():
    """Every cause that the sources name: (code, the values it is given)."""
    for path in (ROOT / "src" / "tenth").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Cause":
                code = ast.literal_eval(call.args[0]) if isinstance(call.args[0], ast.Constant) else ""
                codes = [code] if code else [f"{what}s-many" for what in ("folder", "preset")]
                yield from ((code, {value.arg for value in call.keywords}) for code in codes)


def test_every_code_of_an_error_has_a_text_with_no_more_than_its_values():
    known, named = texts(), dict.fromkeys(code for code, _ in causes())
    assert sorted(f"server.{code}" for code in named) == sorted(key for key in known if key.startswith("server."))
    wrong = [code for code, values in causes() if not known[f"server.{code}"] <= values]
    assert wrong == [], "the page has nothing to fill in there"


def test_every_model_of_the_catalogue_is_described():
    assert {f"about.{name}" for name in CATALOGUE} == {key for key in texts() if key.startswith("about.")}


LONG = "word " * 9000  # more than the small model's context holds
SAID = {
    "de": ("Modelle", "hf:nichts", "steht weder in der Liste", "In dieser Datei ist kein Text",
           r"Dieser Chat hat 9\.\d\d\d Tokens", "ein Grundmodell, das Text fortsetzt", "ist zu groß: höchstens"),
    "ar": ("النماذج", "hf:x", "ليس في القائمة", "لا نص في هذا الملف", "في هذه المحادثة .* من الرموز",
           "نموذج أساسي يكمل النص ولا يتحاور", "أكبر من اللازم"),
}


@pytest.mark.parametrize("code", SAID)
def test_errors_of_the_server_are_told_in_the_readers_language(visit, server, chat_of, tmp_path, code):
    models, name, unknown, no_text, too_long, about, too_large = SAID[code]
    person = visit(locale=code)
    person.expected.append("400 \\(Bad Request\\)")
    page = person.go("#/models")
    page.get_by_role("heading", name=models, exact=True).wait_for()
    page.locator("article", has_text=about).wait_for(state="attached")
    page.locator("form input").fill(name)
    page.keyboard.press("Enter")
    toast = page.locator(".toast", has_text=unknown)
    toast.wait_for()
    assert name in toast.inner_text(), "names are kept"
    assert not re.search("neither|catalogue", toast.inner_text()), "nothing is left in English"

    (tmp_path / "data.bin").write_bytes(b"\0\1\2" * 100)
    person.go()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "data.bin")
    page.locator(".chip.wrong", has_text=no_text).wait_for()

    chat, _, answer = chat_of("x")
    headers = {"origin": server.url}
    asked = server.post(f"/api/chats/{chat['id']}/messages", {"content": LONG, "parent_id": answer["id"]},
                        headers=headers).json()
    person.go(f"#/c/{chat['id']}")
    failed = page.locator(f"[data-message='{asked['answer']['id']}'] .failed")
    failed.wait_for()
    assert re.search(too_long, failed.inner_text())
    assert not re.search("[a-z]{3}.*prompt has", failed.inner_text())
    person.picture(f"error-{code}")
    page.reload()
    failed.wait_for()
    assert re.search(too_long, failed.inner_text()), "as it was stored"

    page.keyboard.press("Alt+s")
    page.locator("dialog summary").click()
    page.locator("dialog input[type=number]").first.fill("7e9")
    page.keyboard.press("Escape")
    page.locator(".toast", has_text=too_large).wait_for()
