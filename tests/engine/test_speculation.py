"""The policy: pure, fed with made-up times and acceptances; then the engine, whose text no guess may change."""

import random
from collections import Counter

import pytest

from tenth.engine.chunk import Chunk
from tenth.engine.outlook import SUFFIX, Outlook, StepTimes, share_rows
from tenth.engine.request import Reaction, Request, Sequence, TokenChoice
from tenth.engine.speculation import MAX_DRAFT, Speculation
from tenth.feed import Feed, ThinkingBudget, TokenReader
from tenth.stream import Stream
from tenth.text.stream import StopStrings

from . import toy
from .test_stream import Deltas, Letters
from .toy import PERIOD, Recorder, RepeatingRuntime, ToyRuntime, ask, prompt_of, random_traffic, repeating


class Guesses:
    """Speculation that always guesses: what is expected, with every so manieth token wrong."""

    def __init__(self, n=7, wrong_every=3, seed=0):
        self.n, self.wrong_every, self.random = n, wrong_every, random.Random(seed)
        self.n_calls = 0

    def propose(self, chunks, room):
        drafts = {}
        for chunk in chunks:
            sequence = chunk.sequence
            if chunk.n_rows != 1 or not chunk.reaches_end or not sequence.request.speculate:
                continue
            most = min(self.n, room, sequence.max_tokens - sequence.n_generated - 1)
            ids = toy.guess(sequence, most)
            draft = tuple((id + 1) % toy.VOCAB if self.random.randrange(self.wrong_every) == 0 else id for id in ids)
            if draft:
                drafts[sequence] = draft
            room -= len(draft)
            self.n_calls += 1
        return drafts

    def measured(self, chunks, seconds):
        pass

    def learn(self, chunk, n_accepted, n_sequences):
        pass


# ---- step times


def steps_of_one(n=3):
    times = StepTimes()
    for _ in range(n):
        times.add(1, 1.0)
    return times


def test_rows_are_tried_a_few_at_a_time_and_then_known():
    assert StepTimes().estimates(1, 8) == steps_of_one(2).estimates(1, 8) == []
    times = steps_of_one()
    assert len(times.estimates(1, 8)) == 4  # 1 row is known, 3 more may be tried
    for _ in range(9):
        times.add(4, 2.0)
    estimates = times.estimates(1, 8)
    assert len(estimates) == 7
    assert estimates[3] == pytest.approx(2.0, abs=0.2)
    assert estimates[1] < 1.2


def test_one_disturbed_step_changes_little():
    times = StepTimes()
    for seconds in (1.0, 1.1, 0.9, 30.0, 1.0):
        times.add(1, seconds)
    assert times.estimates(1, 1) == [1.0]
    times.add(2, 5.0)
    assert times.estimates(1, 2)[1] < 3


def test_a_plain_step_is_measured_again_even_if_every_guess_is_right():
    times = steps_of_one()
    for _ in range(65):
        assert times.estimates(1, 4)
        times.add(4, 1.2)
    assert times.estimates(1, 4) == []
    times.add(1, 1.0)
    assert times.estimates(1, 4)


def test_a_number_of_rows_that_once_was_slow_is_tried_again_later():
    times = steps_of_one()
    for _ in range(9):
        times.add(2, 9.0)
    assert times.estimates(1, 2)[1] > 5
    for _ in range(300):
        times.add(1, 1.0)
    assert times.estimates(1, 2)[1] < 4


# ---- sharing rows


def test_as_many_rows_are_shared_as_give_the_most_tokens_a_second():
    cheap, dear = [1 + 0.05 * n for n in range(8)], [1 + 0.6 * n for n in range(8)]
    assert share_rows(1, [[0.95] * 7], cheap) == [7]
    assert share_rows(1, [[0.95] * 2], cheap) == [2]
    assert share_rows(1, [[0.3] * 7], dear) == [0]
    assert 1 <= share_rows(1, [[0.5] * 7], cheap)[0] <= 4
    assert share_rows(1, [[0.04] * 7], cheap) == [0]


def test_the_measured_shape_of_the_times_decides():
    flat_to_4 = [1, 1.3, 1.3, 1.3, 2.5, 2.5, 2.5, 2.5]
    assert share_rows(1, [[0.8] * 7], flat_to_4) == [3]


def test_rows_go_to_the_sequence_whose_guesses_are_likelier():
    times = [1 + 0.2 * n for n in range(9)]
    few, many = share_rows(2, [[0.1] * 7, [0.9] * 7], times)
    assert few == 0
    assert many > 1


def test_full_batches_are_left_alone_where_rows_cost_in_proportion():
    times = [8 + n for n in range(9)]
    assert share_rows(8, [[0.9] * 7] * 8, times) == [0] * 8


def test_a_request_learns_which_matches_to_trust():
    outlook = Outlook()
    long, short = Outlook.kind(SUFFIX, 20), Outlook.kind(SUFFIX, 2)
    assert outlook.chance(long) > outlook.chance(short)
    for _ in range(5):
        outlook.note_each([long] * 7, 7)
        outlook.note_each([short] * 3, 0)
    assert outlook.chance(long) > 0.95
    assert outlook.chance(short) < 0.1


# ---- the whole policy, with a clock of its own


def run(tokens, n_prompt, times, speculation=None, disturbed=0.0, seed=0):
    """(seconds, plain seconds, counts) of generating the rest of some tokens, with steps of so many rows taking so."""
    rng = random.Random(seed)
    speculation = speculation or Speculation()
    sequence = Sequence(Request(tokens[:n_prompt], Recorder()), 1, 1 << 20)
    sequence.max_tokens = len(tokens) - n_prompt
    sequence.append([tokens[n_prompt]])
    counts, seconds = Counter(), 0.0
    while sequence.n_tokens < len(tokens):
        sequence.n_computed = sequence.n_tokens - 1
        draft = speculation.propose([Chunk(sequence, 1)], 24).get(sequence, ())
        chunk = Chunk(sequence, 1, draft)
        speculation.measured([chunk], times[len(draft)] * rng.lognormvariate(0, disturbed))
        seconds += times[len(draft)]
        following = tokens[sequence.n_tokens :]
        n = next((i for i, guess in enumerate(draft) if guess != following[i]), len(draft))
        counts.update(steps=1, drafted=len(draft), accepted=n)
        sequence.append(following[: n + 1])
        speculation.learn(chunk, n, 1)
    return seconds, float(len(tokens) - n_prompt - 1), counts


FEW_ROWS = [1, 1.2, 1.25, 1.3, 1.5, 1.55, 1.6, 1.7]


@pytest.mark.parametrize("disturbed", [0.0, 0.3])
def test_a_copied_text_takes_a_third_of_the_time(disturbed):
    text = random.Random(1).choices(range(5000), k=300)
    seconds, plain, counts = run([*text, 1, *text], 301, FEW_ROWS, disturbed=disturbed)
    assert seconds < plain / 3
    assert counts["accepted"] > 0.9 * counts["drafted"]


@pytest.mark.parametrize("disturbed", [0.0, 0.3])
@pytest.mark.parametrize("times", [FEW_ROWS, [1 + 0.4 * n for n in range(8)], [1 + n for n in range(8)]])
@pytest.mark.parametrize("alphabet", [4, 30, 300, 5000])
def test_text_that_only_seems_to_repeat_is_at_most_2_percent_slower(times, alphabet, disturbed):
    tokens = random.Random(alphabet).choices(range(alphabet), k=900)
    ratios = []
    for seed in range(5):
        seconds, plain, _ = run(tokens, 400, times, disturbed=disturbed, seed=seed)
        ratios.append(seconds / plain)
    assert sum(ratios) / len(ratios) < 1.02
    assert max(ratios) < 1.05


def test_guessing_is_taken_up_again_when_a_text_begins_to_repeat():
    rng = random.Random(4)
    noise, text = rng.choices(range(30), k=400), rng.choices(range(100, 5000), k=200)
    seconds, plain, _ = run([*text, *noise, *text], 300, FEW_ROWS)
    assert plain - seconds > 120  # of the 199 steps of the copy at the end


def test_guesses_keep_to_the_room_of_the_step_and_the_tokens_left():
    text = list(range(50))
    speculation = Speculation()
    for _ in range(3):
        sequence = Sequence(Request([*text, *text[:30]], Recorder()), 1, 1000)
        sequence.max_tokens = 3
        sequence.n_computed = 79
        for _ in range(3):
            speculation.measured([Chunk(sequence, 1)], 1.0)
        assert len(speculation.propose([Chunk(sequence, 1)], 24)[sequence]) == 2
        assert len(speculation.propose([Chunk(sequence, 1)], 1)[sequence]) == 1
        assert speculation.propose([Chunk(sequence, 1)], 0) == {}
        sequence.request.speculate = False
        assert speculation.propose([Chunk(sequence, 1)], 24) == {}


def test_steps_with_a_prompt_in_them_are_neither_timed_nor_drafted():
    speculation = Speculation()
    chunk = Chunk(Sequence(Request([1, 2, 1, 2], Recorder()), 1, 1000), 4)
    speculation.measured([chunk], 1.0)
    assert speculation.times.estimates(1, 8) == []
    assert speculation.propose([chunk], 24) == {}


# ---- the engine


@pytest.fixture
def start(start_engine):
    def make(runtime=None, **options):
        return start_engine(runtime or RepeatingRuntime(), **{"speculation": Guesses(), **options})

    return make


@pytest.mark.parametrize("wrong_every", [1, 2, 5, 1000])
@pytest.mark.parametrize("n_prompt", [1, 31, 32, 33, 90])
def test_the_text_does_not_depend_on_guesses(start, n_prompt, wrong_every):
    prompt = prompt_of(n_prompt)
    request, heard = ask(start(speculation=Guesses(wrong_every=wrong_every)), prompt, 150)
    assert heard.wait().tokens == repeating(prompt, 150)
    counts = request.speculated
    assert counts.n_drafted > 0
    assert counts.n_steps + counts.n_accepted == 150
    assert (counts.n_accepted == 0) == (wrong_every == 1)


def test_guesses_that_are_right_save_steps(start):
    runtime = RepeatingRuntime()
    engine = start(runtime, speculation=Guesses(wrong_every=10**9))
    request, heard = ask(engine, prompt_of(20), 120)
    heard.wait()
    assert len(runtime.batches) < 40
    assert engine.stats.n_accepted == request.speculated.n_accepted > 80
    assert engine.stats.n_drafted == request.speculated.n_drafted


def test_without_leave_nothing_is_guessed(start):
    runtime = RepeatingRuntime()
    request, heard = ask(start(runtime), prompt_of(20), 30, speculate=False)
    assert heard.wait().tokens == repeating(prompt_of(20), 30)
    assert len(runtime.batches) == 30
    assert (request.speculated.n_drafted, request.speculated.n_steps) == (0, 30)


def test_the_policy_itself_guesses_and_changes_nothing(start):
    engine = start(speculation=Speculation())
    for i in range(5):
        _, heard = ask(engine, prompt_of(40, seed=i), 150)
        assert heard.wait().tokens == repeating(prompt_of(40, seed=i), 150)


@pytest.mark.parametrize("max_tokens", range(1, 24))
def test_max_tokens_is_kept_to_the_token(start, max_tokens):
    _, heard = ask(start(speculation=Guesses(wrong_every=9)), prompt_of(10), max_tokens)
    assert heard.wait().tokens == repeating(prompt_of(10), max_tokens)
    assert (heard.reason, heard.n_generated) == ("length", max_tokens)


@pytest.mark.parametrize("options", [{"context_tokens": 64}, {"n_pages": 2}])
def test_the_end_of_the_context_or_cache_is_kept_to_the_token(start, options):
    _, heard = ask(start(RepeatingRuntime(**options), speculation=Guesses(wrong_every=9)), prompt_of(40), None)
    assert heard.wait().tokens == repeating(prompt_of(40), 24)
    assert heard.reason == "length"


def test_a_stop_token_among_guesses_cuts_what_follows(start):
    prompt = prompt_of(20)
    tokens = repeating(prompt, 60)
    for n in range(40, 50):
        stop = tokens[n]
        at = tokens.index(stop)
        _, heard = ask(start(speculation=Guesses(wrong_every=9)), prompt, 60, stop_ids=frozenset([stop]))
        assert heard.wait().tokens == tokens[:at]
        assert (heard.reason, heard.n_generated) == ("stop", at + 1)


@pytest.mark.parametrize("n", range(1, 20))
def test_a_listener_that_stops_hears_nothing_more(start, n):
    heard_n = []

    def react(token):
        heard_n.append(token)
        return Reaction(stop=len(heard_n) == n)

    _, heard = ask(start(speculation=Guesses(wrong_every=9)), prompt_of(10), 60, react=react)
    assert heard.wait().tokens == repeating(prompt_of(10), n)
    assert (heard.reason, heard.n_generated) == ("stop", n)


@pytest.mark.parametrize("n", range(1, 20, 3))
@pytest.mark.parametrize("n_forced", [1, 5, 40])
def test_forced_tokens_come_where_they_are_asked_for(start, n, n_forced):
    def run(speculation):
        heard = []

        def react(token):
            heard.append(token)
            return Reaction(force=tuple(range(n_forced)) if len(heard) == n else ())

        return ask(start(speculation=speculation), prompt_of(10), 90, react=react)[1].wait()

    plain, guessed = run(Guesses(n=0)), run(Guesses(wrong_every=9))
    assert guessed.tokens == plain.tokens
    assert guessed.n_generated == plain.n_generated == 90


@pytest.mark.parametrize("budget", [1, 2, 5, 8, 13, 40])
@pytest.mark.parametrize("wrong_every", [2, 9])
def test_a_thinking_budget_and_a_stop_string_cut_guesses_where_they_cut_plain_text(start, budget, wrong_every):
    def answer(speculation):
        reader = TokenReader(Letters(), Deltas(), StopStrings((chr(100) + chr(101) + chr(102),)))
        feed = Feed(reader, 10, ThinkingBudget(budget, (ord("."), ord("|"))))
        engine = start(speculation=speculation)
        request = Request(prompt_of(10), feed, max_tokens=200)
        engine.submit(request)
        stream = Stream(feed, lambda: engine.cancel(request), 0.0, None, request.speculated).wait()
        return stream.thinking, stream.text, stream.finish_reason, stream.usage, stream.logprobs, stream.speculation

    *plain, none = answer(Guesses(n=0))
    *guessed, some = answer(Guesses(wrong_every=wrong_every))
    assert guessed == plain
    assert plain[2] == "stop"
    assert some.drafted > none.drafted == 0


def test_a_listener_that_raises_among_guesses_fails_its_own_request_only(start):
    heard_n = []

    def react(token):
        heard_n.append(token)
        if len(heard_n) == 12:
            raise KeyError("mine")
        return Reaction()

    runtime = RepeatingRuntime()
    engine = start(runtime, speculation=Guesses(wrong_every=9))
    runtime.gate.clear()
    bad, good = ask(engine, prompt_of(5), 60, react=react)[1], ask(engine, prompt_of(6, seed=2), 60)[1]
    runtime.gate.set()
    assert isinstance(bad.wait().error, KeyError)
    assert len(bad.tokens) == 12
    assert good.wait().tokens == repeating(prompt_of(6, seed=2), 60)


def test_a_row_without_a_token_counts_only_if_it_is_reached(start):
    prompt = prompt_of(20)
    tokens = repeating(prompt, 60)
    runtime = RepeatingRuntime()
    plain_step = runtime.step

    def step(batch):
        result = plain_step(batch)
        result.tokens[batch.sampling.counter == 30] = -1
        return result

    runtime.step = step
    _, heard = ask(start(runtime, speculation=Guesses(wrong_every=4)), prompt, 60)
    assert "not numbers" in str(heard.wait().error)
    assert heard.tokens == tokens[:30]
    _, heard = ask(start(runtime, speculation=Guesses(wrong_every=4)), prompt, 30)
    assert heard.wait().tokens == tokens[:30]


def test_guessing_in_company_changes_no_text_and_keeps_to_the_limits_of_a_step(start):
    runtime = RepeatingRuntime(max_rows=20, max_outputs=9)
    engine = start(runtime, max_sequences=4)
    prompts = [prompt_of(n, seed=n) for n in (3, 150, 64, 31, 90, 1, 33, 100)]
    runtime.gate.clear()
    heard = [ask(engine, prompt, 70, choice=TokenChoice(seed=n))[1] for n, prompt in enumerate(prompts)]
    runtime.gate.set()
    for n, (prompt, listener) in enumerate(zip(prompts, heard, strict=True)):
        assert listener.wait().tokens == repeating(prompt, 70, seed=n)
    assert engine.stats.n_accepted > 0
    assert max(len(batch.outputs) for batch in runtime.batches) <= 9  # the toy checks that as well


def test_penalties_look_at_the_guesses_before_each_row(start):
    runtime = RepeatingRuntime()
    _, heard = ask(start(runtime), prompt_of(20), 60, choice=TokenChoice(repetition=1.2))
    heard.wait()
    tokens = [*prompt_of(20), *heard.tokens]
    n_rows = 0
    for batch in runtime.batches:
        for row, history, counter in zip(batch.outputs, batch.sampling.history, batch.sampling.counter, strict=True):
            assert history[-1] == batch.tokens[row]
            assert len(history) == batch.positions[row] + 1 == 20 + counter
            n_rows += history.tolist() == tokens[: len(history)]
    assert n_rows == 60  # every token was chosen once with just the tokens before it, and no guess was wrong twice


def test_guesses_never_preempt_anyone(start):
    def run(speculation):
        runtime = RepeatingRuntime(n_pages=6)
        engine = start(runtime, speculation=speculation, max_sequences=2)
        runtime.gate.clear()
        heard = [ask(engine, prompt_of(40, seed=i), 54)[1] for i in range(2)]
        runtime.gate.set()
        assert [h.wait().tokens for h in heard] == [repeating(prompt_of(40, seed=i), 54) for i in range(2)]
        return engine.stats.n_preemptions

    assert run(Guesses(n=0)) == run(Guesses(wrong_every=2)) == 0


def test_when_pages_run_out_guesses_and_restarts_change_no_text(start):
    runtime = RepeatingRuntime(n_pages=8, max_rows=50)
    engine = start(runtime, max_sequences=4)
    prompts = [prompt_of(40, seed=i) for i in range(5)]
    runtime.gate.clear()
    heard = [ask(engine, prompt, 70)[1] for prompt in prompts]
    runtime.gate.set()
    for prompt, listener in zip(prompts, heard, strict=True):
        assert listener.wait().tokens == repeating(prompt, 70)
    assert engine.stats.n_preemptions > 0
    assert engine.stats.n_accepted > 0


def test_only_what_was_accepted_is_reused(start):
    engine = start(speculation=Guesses(wrong_every=2))
    prompt = prompt_of(40)
    answer = ask(engine, prompt, 90)[1].wait().tokens
    assert answer == repeating(prompt, 90)
    following = [*prompt, *answer, 7, 8]
    _, heard = ask(engine, following, 30)
    assert heard.wait().cached == 128
    assert heard.tokens == repeating(following, 30)


def test_random_traffic_with_guesses_gives_everyone_the_right_text_and_all_pages_back(start):
    random_traffic(start(RepeatingRuntime(n_pages=10, max_rows=33), max_sequences=4), 60, repeating)


def test_a_request_that_has_ended_is_forgotten(start):
    speculation = Speculation()
    engine = start(speculation=speculation)
    for _ in range(3):
        ask(engine, prompt_of(10), 20)[1].wait()
    engine.close()
    assert len(speculation._requests) <= 1


def test_the_toy_repeats_itself_but_not_always():
    tokens = repeating(prompt_of(10), 200)
    same = sum(a == b for a, b in zip(tokens, tokens[PERIOD:], strict=False))
    assert 0.5 < same / len(tokens) < 0.99
    assert ToyRuntime.next_token is not RepeatingRuntime.next_token
    assert MAX_DRAFT == 7
