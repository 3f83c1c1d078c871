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
    folder = make_folder(tmp_path)
    person = visit()
    page = person.go()
    page.locator("input[webkitdirectory]").set_input_files(folder)
    page.wait_for_selector(".chip .name:text('project/sub/10.txt')")
    assert page.locator(".chip .name").all_inner_texts() == TEXTS
    page.get_by_text("2 files were left out").wait_for()


def test_a_folder_that_is_dropped_comes_along_too(visit, tmp_path):
    person = visit()
    page = person.go()
    drop(person, make_folder(tmp_path))
    page.wait_for_selector(".chip .name:text('project/sub/10.txt')")
    assert page.locator(".chip .name").all_inner_texts() == TEXTS
    page.get_by_text("One file that is not text was left out").wait_for()  # what tools keep is not even looked into
    drop(person, tmp_path / "project" / "b.md")
    page.wait_for_selector(".chip .name:text-is('b.md')")
    (tmp_path / "empty").mkdir()
    drop(person, tmp_path / "empty")
    page.get_by_text("There is no text in this folder").wait_for()
    assert page.locator(".chip").count() == len(TEXTS) + 1


def test_what_is_dropped_beside_a_chat_does_not_take_the_page_s_place(visit, tmp_path):
    person = visit()
    page = person.go()
    (tmp_path / "a.txt").write_text("text")
    page.evaluate("""() => addEventListener('dragover', (event) =>
      (window.__effect = [event.defaultPrevented, event.dataTransfer.dropEffect]))""")
    drop(person, tmp_path / "a.txt", x=100)  # on the sidebar
    person.until("() => window.__effect")
    assert page.evaluate("() => window.__effect") == [True, "none"], "the browser would open it"
    assert page.locator(".chip").count() == 0


TEXTS = ["project/a.py", "project/b.md", "project/sub/9.txt", "project/sub/10.txt"]


def make_folder(where):
    folder = where / "project"
    for name in (*TEXTS, "project/picture.png", "project/node_modules/c.js"):
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text("some text")
    return folder


def drop(person, path, x=600):
    """What chromium does when something is dragged here from the desk's files."""
    session = person.context.new_cdp_session(person.page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": 300, "data": data})
