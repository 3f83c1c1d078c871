"""Files that go with a question: by button, paste and folder, with what they take, and what does not fit."""

from __future__ import annotations

from ..server.chats.test_attachments import pdf


def attach(page, name, data, kind="application/octet-stream"):
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": kind, "buffer": data})


def test_a_pdf_goes_with_a_question_and_can_be_read_again(visit, server):
    person = visit()
    page = person.go()
    attach(page, "colours.pdf", pdf("The colour of the house is green", "Second page"), "application/pdf")
    page.wait_for_selector(".chip .note:has-text('token')")
    answer = person.ask("Which colour has the house?")
    person.wait_done(answer)
    page.locator("[data-role=user] .chip .open").click()
    dialog = page.get_by_role("dialog", name="colours.pdf")
    dialog.locator("pre").wait_for()
    assert "The colour of the house is green" in dialog.locator("pre").inner_text()
    asked = server.get(f"/api/chats/{page.url.partition('#/c/')[2]}").json()["messages"]
    assert [one["kind"] for one in asked[0]["attachments"]] == ["pdf"]
    assert asked[1]["usage"]["prompt_tokens"] > 20, "the model read it"


def test_what_cannot_be_read_and_what_does_not_fit_is_said(visit):
    person = visit()
    person.expected.append("422|415|400")
    page = person.go()
    attach(page, "broken.pdf", b"%PDF-1.4 nothing")
    page.wait_for_selector(".chip.wrong")
    assert page.locator(".chip .note").inner_text() not in ("", "Being read…")
    page.get_by_role("button", name="Remove broken.pdf").click()
    attach(page, "long.txt", b"word " * 60_000, "text/plain")
    page.wait_for_selector(".warn")
    assert "only" in page.locator(".warn").inner_text()
    person.write("What is in it?")
    assert page.get_by_role("button", name="Send").is_disabled()
    person.picture("does-not-fit")
    page.get_by_role("button", name="Remove long.txt").click()
    person.until("() => !document.querySelector('[type=submit].round').disabled")


def test_long_text_that_is_pasted_becomes_a_file(visit):
    person = visit()
    page = person.go()
    page.locator("[data-action=write]").evaluate("""(one) => {
      const data = new DataTransfer();
      data.setData('text/plain', 'pasted words '.repeat(500));
      one.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
    }""")
    page.wait_for_selector(".chip .name:text('pasted-1.txt')")
    assert page.input_value("[data-action=write]") == ""


def test_of_a_folder_the_texts_come_along(visit, tmp_path):
    folder = tmp_path / "project"
    (folder / "node_modules").mkdir(parents=True)
    for name in ("a.py", "b.md", "picture.png", "node_modules/c.js"):
        (folder / name).write_text("some text")
    person = visit()
    page = person.go()
    page.locator("input[webkitdirectory]").set_input_files(folder)
    page.wait_for_selector(".chip .name:text('project/b.md')")
    names = page.locator(".chip .name").all_inner_texts()
    assert sorted(names) == ["project/a.py", "project/b.md"]
    page.get_by_text("2 files were left out").wait_for()
