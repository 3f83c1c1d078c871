"""From nothing to a first answer, and models that come and go, on a server whose library is empty."""

from __future__ import annotations

import re

from ..server.chats.test_library import bare, packaged  # noqa: F401  (a catalogue with the tiny model in it)
from .visiting import tell_pages


def test_the_first_run_names_the_machine_fetches_a_model_and_asks(bare, visit, axe):  # noqa: F811
    person = visit(server=bare, max_tokens=8)
    page = person.go()
    page.get_by_role("heading", name="Your machine").wait_for()
    assert bare.get("/api/machine").json()["cpu"] in page.locator("main").inner_text()
    assert page.locator("[data-action=write]").count() == 0, "nobody is there to be asked"
    person.picture("first-run")
    person.check_axe(axe)
    bar = page.locator("progress")
    page.get_by_role("button", name=re.compile("Get it")).click()
    bar.wait_for()
    page.get_by_text("What would you like to know?").wait_for()
    examples = page.locator("main section li button")
    assert examples.count() == 3
    question = examples.first.inner_text()
    examples.first.click()
    page.wait_for_selector(f".bubble:text-is({question!r})")
    person.wait_done(page.locator("[data-role=assistant]"))


def test_a_pull_that_ended_with_its_server_can_be_begun_again(bare, visit):  # noqa: F811
    person = visit(server=bare)
    page = person.go()
    get = page.get_by_role("button", name=re.compile("Get it"))
    get.wait_for()
    name = bare.get("/api/library").json()["proposal"]
    pull = {"name": name, "what": "", "done_bytes": 1, "total_bytes": 3, "state": "running", "error": None}
    tell_pages(bare, "pull", pull)
    page.locator("progress").wait_for()
    tell_pages(bare, "reset", {})  # what a server says that was started again; this one knows of no pull
    get.wait_for()
    assert page.locator("progress").count() == 0


def test_models_are_shown_fetched_by_name_and_removed(bare, visit, axe):  # noqa: F811
    person = visit(server=bare)
    page = person.go("#/models")
    person.expected.append("404|400")
    page.get_by_label("Name of the model").fill("nonsense:1")
    page.get_by_role("button", name="Get", exact=True).click()
    page.get_by_role("alert").wait_for()  # says what is wrong
    page.get_by_label("Name of the model").fill("tiny:1")
    page.get_by_role("button", name="Get", exact=True).click()
    remove = page.get_by_role("button", name="Remove tiny:1")
    remove.wait_for()
    page.locator("summary").click()
    person.picture("models")
    person.check_axe(axe)
    remove.click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Get tiny:1").wait_for()
    one = next(model for model in bare.get("/api/library").json()["models"] if model["name"] == "tiny:1")
    assert not one["is_here"]
