"""bench --speculation: turns, figures and table, with a stand-in for the model."""

import json
from types import SimpleNamespace

import pytest

from tenth.bench import speculation
from tenth.bench.speculation import TEXTS, lines, many_seeds, measure
from tenth.errors import ResourceError


class Model:
    """Answers twice as fast when it may guess."""

    def __init__(self):
        self.speculate, self.asked, self.changes_text = True, [], False

    def chat(self, messages, **settings):
        self.asked.append((messages[0]["content"], self.speculate, settings))
        tokens = [7] * settings["max_tokens"]
        if self.changes_text and self.speculate:
            tokens[-1] = 8
        n = len(tokens)
        stream = SimpleNamespace(
            logprobs=[SimpleNamespace(token=t) for t in tokens], usage=SimpleNamespace(prompt_tokens=30),
            timings=SimpleNamespace(generated_tokens_per_second=20.0 if self.speculate else 10.0),
            speculation=SimpleNamespace(drafted=n, accepted=n // 2, steps=n - n // 2) if self.speculate
            else SimpleNamespace(drafted=0, accepted=0, steps=n),
        )
        return _Stream(stream)


class _Stream:
    def __init__(self, said):
        self.__dict__.update(said.__dict__)

    def __iter__(self):
        return iter(())


def test_every_text_is_answered_plainly_and_with_guesses_in_turn():
    model = Model()
    results = measure(model, 40, 2)
    assert [r["name"] for r in results] == [text.name for text in TEXTS]
    assert len(model.asked) == len(TEXTS) * 3 * 2
    first = [speculate for _, speculate, _ in model.asked[:6]]
    assert sorted(first) == [False] * 3 + [True] * 3
    assert first[0::2] != [first[0]] * 3  # neither is always first
    assert model.speculate is True
    for plain, guessed in zip(model.asked[::2], model.asked[1::2], strict=True):
        assert (plain[0], plain[2]) == (guessed[0], guessed[2])


def test_gain_and_acceptance():
    result = measure(Model(), 40, 3)[0]
    assert result["gain"] == pytest.approx(1.0)
    assert result["acceptance"] == 0.5
    assert result["tokens_per_step"] == 2.0
    assert result["plain"]["runs"] == [10.0] * 3
    assert (result["n_prompt"], result["n_generated"]) == (30, 40)


def test_an_answer_that_guessing_changed_is_an_error():
    model = Model()
    model.changes_text = True
    with pytest.raises(ResourceError, match="differs"):
        measure(model, 40, 1)


def test_many_seeds_are_asked_in_turn_and_their_seconds_summed():
    model = Model()
    result = many_seeds(model, 4, 40)
    assert (result["n_seeds"], result["n_tokens"]) == (4, 160)
    assert result["plain_seconds"] == pytest.approx(16)
    assert result["slower"] == result["slower_median"] == pytest.approx(-0.5)
    seeds = [settings["seed"] for _, _, settings in model.asked[2:]]
    assert seeds == [0, 0, 1, 1, 2, 2, 3, 3]
    order = [speculate for _, speculate, _ in model.asked[2:6]]
    assert order in ([True, False, False, True], [False, True, True, False])
    model.changes_text = True
    with pytest.raises(ResourceError, match="differs"):
        many_seeds(model, 1, 40)


def test_the_table_has_a_row_for_each_text():
    rows = lines(measure(Model(), 40, 1))
    assert len(rows) == 1 + len(TEXTS)
    assert {len(row) for row in rows} == {7}
    assert rows[1] == ("editing code", "40", "10.0", "20.0", "2.00", "50 % of 40", "+100 %")


def test_the_texts_repeat_themselves_and_the_control_does_not():
    *repeating, control = TEXTS
    assert all(text.temperature == 0 for text in repeating)
    assert control.temperature > 0
    assert "load_table" in speculation.CODE
    assert json.dumps(speculation.JSON)
