"""An answer that goes on: its beginning in the prompt reads as it was said, what comes belongs to the right part."""

import pytest

from tenth.text.begun import Begun, go_on
from tenth.text.families import FAMILIES
from tenth.text.stream import DeltaStream

BEGUN = [Begun("I th"), Begun("I think", "Yes, b"), Begun("", "Yes, b")]


def read(family, prompt, text, **how):
    """Thinking and content of a text behind a prompt."""
    stream = DeltaStream(family, prompt, **how)
    found = {"thinking": "", "content": ""}
    for kind, piece in (*stream.push(text), *stream.finish()):
        found[kind] += piece
    return found


@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize("opens", [False, True], ids=["", "thought open in the prompt"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_was_begun_reads_as_it_was_said_and_goes_on(family, opens, begun):
    asked = "question\n" + (family.opening if opens else "")
    prompt, opening = go_on(asked, family, begun)
    assert prompt.startswith(asked)
    assert read(family, asked, prompt[len(asked) :]) == begun._asdict()
    part = "content" if begun.content else "thinking"
    for more in ("ink", "\n\nAnd"):  # a paragraph that follows begins with its own line breaks
        assert read(family, opening, more, continuing=True) == {"thinking": "", "content": ""} | {part: more}


def test_a_model_that_does_not_think_goes_on_with_its_text():
    assert go_on("question\n", None, Begun("ignored", "Yes, b")) == ("question\nYes, b", "question\n")
