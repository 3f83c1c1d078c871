"""The drafter's rows, its guesses and what asking for them is measured to bring. No guess may change a text."""

import random
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest

from tenth.batch import PAGE_TOKENS, StepResult
from tenth.config import EngineConfig
from tenth.engine.chunk import Chunk
from tenth.engine.drafter import Drafter, Guess
from tenth.engine.outlook import StepTimes
from tenth.engine.request import GO_ON, Request, Sequence, TokenChoice
from tenth.engine.speculation import Speculation
from tenth.loader import open_runtime
from tenth.weights.gguf import read_header
from tenth.weights.tensors import read_tensor

from . import toy
from .toy import PERIOD, Recorder, RepeatingRuntime, ask, digest, prompt_of, random_traffic, repeating

DATA = Path(__file__).parents[1] / "data"


class DraftingToy(RepeatingRuntime):
    """A toy with a drafter: it must be given every row once it is known, with the state and the token that belong to
    it. Its guess is right where the text goes on in its cycle.
    """

    has_drafter = True

    def __init__(self, *, strict=True, **options):
        super().__init__(**options)
        self.strict = strict  # False: pages are shared, so the last row of one may have had another continuation
        self.tokens = np.full((self.n_pages, PAGE_TOKENS), -1, np.int64)
        self.drafted = np.full((self.n_pages, PAGE_TOKENS), -1, np.int64)
        self.hidden, self.n_drafts, self.n_asked = [], 0, 0

    def step(self, batch):
        result = super().step(batch)
        self.hidden = []
        for table, row in self._places(batch):
            page, slot = table[batch.positions[row] // PAGE_TOKENS], batch.positions[row] % PAGE_TOKENS
            self.tokens[page, slot] = batch.tokens[row]
            self.hidden.append(int(self.slots[page, slot]))
        return result

    def draft(self, batch):
        assert len(batch.sources) == len(batch.tokens)
        self.n_drafts, self.n_asked = self.n_drafts + 1, self.n_asked + len(batch.outputs)
        for table, row in self._places(batch):
            position, state = int(batch.positions[row]), self.hidden[batch.sources[row]]
            page, slot = table[position // PAGE_TOKENS], position % PAGE_TOKENS
            if state > 0:  # of the model, not of the drafter itself
                assert state == self.slots[page, slot], "the state of another token"
                self._check_kept(table, position)
            self.drafted[page, slot] = digest([abs(state)], int(batch.tokens[row]), position)
        tokens = [int(batch.tokens[row]) for row in batch.outputs]
        self.hidden = [-1 - row for row in batch.outputs.tolist()] or self.hidden
        guesses = np.array([100 + (token - 99) % PERIOD for token in tokens], np.int32)
        return StepResult(guesses, np.full(len(guesses), -0.1, np.float32), [], [])

    def _places(self, batch):
        for j, table in enumerate(batch.pages):
            for row in range(batch.row_starts[j], batch.row_starts[j + 1]):
                yield table, row

    def _check_kept(self, table, end):
        """Every row before this one was handed over, with the token that the sequence really goes on with."""
        for p in range(end - 1):
            (page, slot), (following, next_slot) = (divmod(q, PAGE_TOKENS) for q in (p, p + 1))
            if self.strict or slot < PAGE_TOKENS - 1:
                state, token = int(self.slots[table[page], slot]), int(self.tokens[table[following], next_slot])
                assert self.drafted[table[page], slot] == digest([state], token, p), f"no row for position {p} of {end}"


class AlwaysAsks:
    """Speculation that asks the drafter ``ahead`` times in every step that it can."""

    def __init__(self, ahead=1, every=1):
        self.ahead, self.every, self.n = ahead, every, 0

    def propose(self, chunks, room, drafter=None):
        self.n += 1
        if any(chunk.n_rows != 1 or not chunk.reaches_end for chunk in chunks) or self.n % self.every:
            return {}
        drafts = {}
        for _ in range(self.ahead):
            left = [c.sequence for c in chunks if drafter.can_guess(c.sequence)
                    and c.sequence.max_tokens - c.sequence.n_generated - 1 > len(drafts.get(c.sequence, ()))]
            room -= len(left)
            if not left or room < 0:
                break
            for sequence, guess in drafter.guess(left)[0].items():
                drafts[sequence] = (*drafts.get(sequence, ()), guess.id)
        return drafts

    def measured(self, chunks, seconds):
        pass

    def learn(self, chunk, n_accepted, n_sequences):
        pass


# ---- rows


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("n_prompt", [1, 31, 32, 33, 90])
def test_every_row_is_handed_over_and_no_guess_changes_the_text(start_engine, n_prompt, ahead, every):
    runtime = DraftingToy(max_rows=40)
    engine = start_engine(runtime, speculation=AlwaysAsks(ahead, every), prefix_reuse=False)
    prompt = prompt_of(n_prompt)
    request, heard = ask(engine, prompt, 150)
    assert heard.wait().tokens == repeating(prompt, 150)
    assert request.speculated.n_accepted > 20
    assert runtime.n_drafts >= request.speculated.n_steps - 1


def test_several_sequences_and_prompts_between_leave_no_gap(start_engine):
    runtime = DraftingToy(n_pages=40, max_rows=33)
    engine = start_engine(runtime, speculation=AlwaysAsks(2, every=2), prefix_reuse=False, max_sequences=4)
    runtime.gate.clear()
    heard = [ask(engine, prompt_of(20 + 17 * i, seed=i), 60)[1] for i in range(6)]
    runtime.gate.set()
    for i, one in enumerate(heard):
        assert one.wait().tokens == repeating(prompt_of(20 + 17 * i, seed=i), 60)
    assert engine.stats.n_accepted > 50


def test_logits_that_are_asked_for_between_two_steps_leave_no_gap(start_engine):
    engine = start_engine(DraftingToy(), speculation=AlwaysAsks(), prefix_reuse=False)
    _, heard = ask(engine, prompt_of(20), 200)
    for _ in range(5):
        engine.logits(prompt_of(9))
    assert heard.wait().tokens == repeating(prompt_of(20), 200)


def test_random_traffic_with_shared_pages_and_restarts_gets_the_right_text(start_engine):
    runtime = DraftingToy(n_pages=10, max_rows=33, strict=False)
    engine = start_engine(runtime, speculation=AlwaysAsks(2), max_sequences=4)
    runtime._check_kept = lambda table, end: None  # a page that was given up and taken anew has rows of another
    random_traffic(engine, 60, repeating)
    assert engine.stats.n_accepted > 0


def test_only_rows_of_the_step_are_handed_over_of_who_began_anew_further_on():
    class Runtime:
        max_outputs, context_tokens = 8, 512

        def draft(self, batch):
            self.batch = batch
            return StepResult.nothing()

    runtime, sequence = Runtime(), Sequence(Request(prompt_of(200), Recorder()), 0, 512)
    drafter = Drafter(runtime)
    sequence.n_computed = 64
    drafter.note([Chunk(sequence, 10)])
    sequence.n_computed, sequence.pages = 128, list(range(7))  # set back; another one had computed the same beginning
    drafter.hand_over()
    assert runtime.batch.positions.tolist() == list(range(64, 74))
    assert runtime.batch.sources.tolist() == list(range(10))


def test_who_does_not_want_guesses_costs_no_draft(start_engine):
    runtime = DraftingToy()
    engine = start_engine(runtime, speculation=AlwaysAsks())
    request, heard = ask(engine, prompt_of(20), 30, speculate=False)
    assert heard.wait().tokens == repeating(prompt_of(20), 30)
    assert runtime.n_drafts == request.speculated.n_drafted == 0


def test_the_policy_itself_asks_and_changes_nothing(start_engine):
    runtime = DraftingToy()
    engine = start_engine(runtime, prefix_reuse=False)
    for i in range(5):
        _, heard = ask(engine, prompt_of(40, seed=i), 150)
        assert heard.wait().tokens == repeating(prompt_of(40, seed=i), 150)
    assert runtime.n_asked > 0


# ---- the policy, with a clock of its own


class MadeUp:
    """A drafter that is right as often as it is told to be, and says how sure it is."""

    def __init__(self, tokens, right, cost, rng, sure=lambda is_right: 0.9):
        self.tokens, self.right, self.cost, self.rng, self.sure = tokens, right, cost, rng, sure
        self.ahead, self.n_asked, self.seconds = 0, 0, 0.0

    def can_guess(self, sequence):
        return sequence.n_tokens + self.ahead < len(self.tokens)

    def guess(self, sequences):
        (sequence,) = sequences
        is_right = self.rng.random() < self.right
        id = self.tokens[sequence.n_tokens + self.ahead] if is_right else 10**6
        self.ahead, self.n_asked, self.seconds = self.ahead + 1, self.n_asked + 1, self.seconds + self.cost
        return {sequence: Guess(id, self.sure(is_right))}, self.cost


def run(right, cost, times, n=600, alphabet=10**5, seed=0, **how):
    """(seconds, plain seconds, counts) of generating text that does not repeat itself, steps of so many rows taking
    ``times``."""
    rng = random.Random(seed)
    tokens = rng.choices(range(alphabet), k=n)
    speculation, drafter = Speculation(), MadeUp(tokens, right, cost, rng, **how)
    sequence = Sequence(Request(tokens[:10], Recorder()), 1, 1 << 20)
    sequence.max_tokens = n - 10
    sequence.append([tokens[10]])
    counts, seconds = Counter(), 0.0
    while sequence.n_tokens < n:
        sequence.n_computed, drafter.ahead = sequence.n_tokens - 1, 0
        draft = speculation.propose([Chunk(sequence, 1)], 24, drafter).get(sequence, ())
        chunk = Chunk(sequence, 1, draft)
        speculation.measured([chunk], times[len(draft)])
        seconds += times[len(draft)]
        following = tokens[sequence.n_tokens :]
        accepted = next((i for i, guess in enumerate(draft) if guess != following[i]), len(draft))
        counts.update(steps=1, drafted=len(draft), accepted=accepted)
        sequence.append(following[: accepted + 1])
        speculation.learn(chunk, accepted, 1)
    return seconds + drafter.seconds, float(n - 11), counts


CHEAP = [1, 1.15, 1.2, 1.25, 1.5, 1.55, 1.6, 1.7]
DEAR = [1 + 0.6 * n for n in range(8)]


def test_a_good_drafter_saves_nearly_half_of_the_time():
    seconds, plain, counts = run(0.85, 0.1, CHEAP)
    assert seconds < plain / 1.8  # 2.05 would be the best
    assert counts["accepted"] > 0.6 * counts["drafted"]


@pytest.mark.parametrize("times", [CHEAP, DEAR, [1 + n for n in range(8)]])
@pytest.mark.parametrize(("right", "cost"), [(0.1, 0.1), (0.3, 0.5), (0.6, 1.0), (0.0, 0.02), (0.9, 3.0)])
def test_a_drafter_that_does_not_pay_costs_at_most_2_percent(right, cost, times):
    seconds, plain, _ = run(right, cost, times, n=1200)
    assert seconds < 1.02 * plain + cost  # one call before its cost is known


def test_where_rows_are_dear_only_sure_guesses_are_computed():
    def sure(is_right):
        return 0.95 if is_right else 0.2

    seconds, plain, counts = run(0.6, 0.05, DEAR, n=1200, sure=sure)
    assert counts["accepted"] > 0.9 * counts["drafted"] > 50
    assert seconds < plain


def test_a_likelier_guess_of_the_text_itself_is_taken_for_nothing():
    rng = random.Random(3)
    text = rng.choices(range(5000), k=200)
    speculation, drafter = Speculation(), MadeUp([*text, *text, 0], 1.0, 0.1, rng)
    sequence = Sequence(Request([*text, *text[:50]], Recorder()), 1, 1 << 20)
    sequence.max_tokens, sequence.n_computed = 500, 249
    for _ in range(3):
        speculation.measured([Chunk(sequence, 1)], 1.0)
    assert speculation.propose([Chunk(sequence, 1)], 24, drafter)[sequence] == tuple(text[50:53])
    assert drafter.n_asked == 0


def test_times_of_asking_are_medians():
    times = StepTimes()
    assert times.median(1) == 0
    for seconds in (0.1, 5.0, 0.2):
        times.add(1, seconds)
    assert times.median(1) == 0.2


# ---- real models


def answers(start_engine, file, prompts, speculation=None, n=60, **choice):
    """What a model says: (token, log-probability) of each, and the requests."""
    runtime = open_runtime(read_header(file), EngineConfig(context_tokens=256)).runtime
    assert runtime.has_drafter
    engine, said, requests = start_engine(runtime, speculation=speculation or None), [], []
    for prompt in prompts:
        heard = []
        request, recorder = ask(engine, prompt, n, lambda token, heard=heard: heard.append(token) or GO_ON,
                                speculate=speculation is not False, choice=TokenChoice(**choice))  # fmt: skip
        recorder.wait()
        said.append([(token.id, token.logprob) for token in heard])
        requests.append(request)
    return said, requests


@pytest.mark.parametrize("case", ["glm4moe", "deepseek3_quantised", "qwen35", "qwen3next"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_drafter_changes_no_token_and_no_log_probability(start_engine, case, temperature):
    prompts = [np.random.default_rng(i).integers(0, 96, 40 + 20 * i).tolist() for i in range(3)]
    file, how = DATA / f"golden_{case}.gguf", {"temperature": temperature, "seed": 5}
    plain, _ = answers(start_engine, file, prompts, False, **how)
    asked, requests = answers(start_engine, file, prompts, AlwaysAsks(3), **how)
    assert asked == plain
    assert all(request.speculated.n_drafted > 30 for request in requests)


def perfect_copy(path):
    """glm4moe's golden with layers that add nothing, and a drafter that says what the model will: a walk through all
    tokens, that never repeats itself."""
    header = read_header(DATA / "golden_glm4moe.gguf")
    tensors = {name: read_tensor(info) for name, info in header.tensors.items()}
    n, dim = tensors["token_embd.weight"].shape
    rng = np.random.default_rng(0)
    table = rng.standard_normal((n, dim)).astype(np.float32)
    order = rng.permutation(n)
    after = np.empty(n, int)
    after[order] = np.roll(order, -1)  # the token after each
    output = np.empty_like(table)
    output[after] = table
    ends = {"token_embd.weight": table, "output.weight": output, "output_norm.weight": np.ones(dim, np.float32)}
    own = {"embed_tokens.weight": table, "shared_head_head.weight": output, "shared_head_norm.weight": np.ones(dim),
           "enorm.weight": np.ones(dim), "hnorm.weight": np.ones(dim), "eh_proj.weight": np.eye(dim, 2 * dim)}
    ends |= {f"blk.2.nextn.{name}": values for name, values in own.items()}
    writer = gguf.GGUFWriter(path, "glm4moe")
    reader = gguf.GGUFReader(DATA / "golden_glm4moe.gguf")
    for key, field in reader.fields.items():
        if key.startswith("glm4moe."):
            writer.add_key_value(key, field.contents(), *field.types[:2])
    for name, values in tensors.items():
        adds = name.endswith(("attn_output.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight"))
        new = np.zeros_like(values) if adds else ends.get(name, values)
        writer.add_tensor(name, np.ascontiguousarray(new, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return order.tolist()


@pytest.fixture
def perfect(tmp_path):
    return tmp_path / "perfect.gguf", perfect_copy(tmp_path / "perfect.gguf")


def test_a_drafter_that_is_always_right_saves_most_steps(start_engine, perfect):
    file, order = perfect
    (said,), (request,) = answers(start_engine, file, [order[:4]], AlwaysAsks(3), n=80)
    assert [id for id, _ in said] == order[4:84]
    counts = request.speculated
    assert counts.n_drafted == counts.n_accepted > 55
    assert counts.n_steps + counts.n_accepted == 80


def test_the_policy_with_a_real_drafter_changes_nothing(start_engine, perfect):
    file, order = perfect
    (said,), _ = answers(start_engine, file, [order[:4]], n=80)
    assert [id for id, _ in said] == order[4:84]


def test_the_toy_drafter_is_right_in_its_cycle_only():
    assert toy.guess(Sequence(Request([1], Recorder()), 1, 100), 2) == [100, 101]
