"""The native plan trusts nobody: no arguments can make a step leave its buffers (run these with sanitizers, see
CONTRIBUTING.md). The calls that build a real model's plan are replayed with one argument changed."""

import copy
import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from tenth import _core
from tenth.config import EngineConfig
from tenth.loader import open_runtime
from tenth.weights.gguf import read_header
from tenth.weights.placement import place
from tests.moe_file import write_moe

from .native import DATA, i32

REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError, OverflowError)
NUMBERS = (-(2**63), -(2**31), -64, -1, 0, 1, 2, 3, 5, 15, 16, 32, 63, 64, 65, 96, 128, 1 << 10, 1 << 20, 1 << 28,
           2**31 - 1, 2**31, 2**46, 2**62, 2**63 - 1)  # fmt: skip


class Recorder:
    """Stands where _core.Plan stands, and notes every call that builds a plan."""

    def __init__(self, plan, *args):
        self.plan, self.calls = plan(*args), [("Plan", list(args))]

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, list(args)))
            return getattr(self.plan, name)(*args)

        return call if name in BUILDING else getattr(self.plan, name)


BUILDING = (
    "add_file", "add_matrix", "add_experts", "add_streamed", "finish_store", "add_vector", "add_layer",
    "add_recurrence", "set_hidden", "add_instruction", "finish",
)  # fmt: skip


PLANS = ["quantised", "bfloat16", "kquants", "llama_bias", "gemma3_scaled", "moe_quantised", "deepseek3_quantised",
         "qwen35", "streamed qwen3moe", "expanded deepseek3"]  # fmt: skip


@pytest.fixture(scope="module", params=PLANS)
def recorded(request, tmp_path_factory):
    """The calls that build a golden model's plan; matrices that were made are read from its first one: any will do."""
    path, plan = DATA / f"golden_{request.param.split()[-1]}.gguf", _core.Plan
    if request.param == "bfloat16":
        path = write_moe(tmp_path_factory.mktemp("moe") / "moe.gguf", matrices_in=GGMLQuantizationType.BF16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "Plan", lambda *args: Recorder(plan, *args))
        if "streamed" in request.param:
            patch.setattr("tenth.loader.place", place_half)
        config = EngineConfig(threads=2, context_tokens=64, chunk_tokens=32)
        config = replace(config, prefill="expanded") if "expanded" in request.param else config
        runtime = open_runtime(read_header(path), config).runtime
        calls = runtime._plan.calls
    calls = [(name, [str(path), args[1]] if name == "add_file" else args) for name, args in calls]
    first = min(args[2] for name, args in calls if name == "add_matrix" and args[2])
    made = [(name, args) for name, args in calls if name == "add_matrix" and not args[2]]
    return [(name, [*args[:2], first, *args[3:]]) if (name, args) in made else (name, args) for name, args in calls]


def place_half(needs, *_):
    needs = replace(needs, stream_workspace=0)
    return place(needs, needs.fixed + needs.experts // 2)


def build(calls):
    plan = None
    for name, args in calls:
        if name == "Plan":
            plan = _core.Plan(*args)
            continue
        getattr(plan, name)(*args)
    return plan


def step(plan, tokens=(1, 2, 3, 4, 5), positions=(0, 1, 2, 0, 1), starts=(0, 3, 5), pages=((0,), (1,)), outputs=(2, 4),
         slots=(3, 1), drafts=True, copies=()):
    if failure := plan.read_weights():  # of the matrices that have not been read
        raise RuntimeError(failure[1])
    pages = [i32(table) for table in pages]
    plan.step(i32(tokens), i32(positions), i32(starts), pages, i32(outputs), i32(slots), i32(copies), 1)
    logits = plan.logits()
    try:
        if drafts:
            draft(plan)
    except ValueError as error:
        if "no drafter" not in str(error):
            raise
    return logits


def draft(plan, tokens=(2, 3, 5), positions=(0, 1, 0), starts=(0, 2, 3), outputs=(1, 2), sources=(0, 1, 3)):
    """The drafter behind a ``step``."""
    plan.draft(i32(tokens), i32(positions), i32(starts), [i32([0]), i32([1])], i32(outputs), i32(sources))
    return plan.logits()


def changed(args, rng):
    """The arguments with one number somewhere in them changed, or one operand taken from or added to a list."""
    args = copy.deepcopy(args)
    at = rng.randrange(len(args))
    value = args[at]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        args[at] = not value if isinstance(value, bool) else "rms_norm"
    elif isinstance(value, int):
        args[at] = rng.choice(NUMBERS) if rng.random() < 0.7 else value + rng.choice((-64, -16, -1, 1, 16, 64))
    elif isinstance(value, float):
        args[at] = rng.choice((0.0, -1.0, 1e30, float("nan")))
    elif isinstance(value, np.ndarray):
        args[at] = value[: rng.randrange(len(value))]
    elif isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        args[at] = value | {key: changed([value[key]], rng)[0]}
    elif isinstance(value, (list, tuple)) and value:
        kind = rng.randrange(8)
        inner = list(value)
        if kind == 0:
            inner.pop(rng.randrange(len(inner)))
        elif kind == 1:
            inner.append(inner[0])
        else:
            inner = changed(inner, rng)
        args[at] = type(value)(inner)
    return args


def test_no_changed_argument_lets_a_step_leave_its_buffers(recorded):
    calls = recorded
    assert np.isfinite(step(build(calls))).all()
    rng, refused, ran = random.Random(5), 0, 0
    for _ in range(400):
        number = rng.choice([0, len(calls) - 1, *range(len(calls))])
        name, args = calls[number]
        try:
            step(build([*calls[:number], (name, changed(args, rng)), *calls[number + 1 :]]))
            ran += 1
        except REFUSALS:
            refused += 1
    assert refused > 100
    assert ran > 20


def test_the_order_of_building_is_kept(recorded):
    calls = recorded
    with pytest.raises(ValueError, match="not finished"):
        step(build(calls[:-1]))
    plan = build(calls)
    with pytest.raises(ValueError, match="weights have not been read"):
        plan.step(i32([1]), i32([0]), i32([0, 1]), [i32([0])], i32([0]), i32([0]), i32([]))
    for name, args in calls[1:]:
        with pytest.raises(ValueError, match="it is finished"):
            getattr(plan, name)(*args)
    assert plan.logits().shape[0] == 0
    step(plan)


WRONG_BATCHES = {
    "a token outside": {"tokens": (1, 2, 3, 4, 1 << 20)},
    "a negative token": {"tokens": (1, 2, -3, 4, 5)},
    "a position outside": {"positions": (0, 1, 2, 64, 65)},
    "a negative position": {"positions": (-1, 0, 1, 0, 1)},
    "positions with a gap": {"positions": (0, 1, 3, 0, 1)},
    "too few positions": {"positions": (0, 1, 2)},
    "no rows": {"tokens": (), "positions": (), "starts": (0,), "pages": (), "outputs": ()},
    "starts past the end": {"starts": (0, 3, 6)},
    "starts that fall": {"starts": (0, 9, 5)},
    "starts after 0": {"starts": (1, 3, 5)},
    "an empty sequence": {"starts": (0, 0, 5)},
    "too few tables": {"pages": ((0,),)},
    "too few pages": {"pages": ((0,), ())},
    "a page outside": {"pages": ((0,), (1 << 20,))},
    "a negative page": {"pages": ((-1,), (1,))},
    "an output outside": {"outputs": (2, 5)},
    "a negative output": {"outputs": (-1, 2)},
    "outputs that fall": {"outputs": (4, 2)},
    "too many rows": {"tokens": (1,) * 40, "positions": range(40), "starts": (0, 40), "pages": ((0, 1),)},
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_a_batch_that_does_not_fit_is_refused_and_the_plan_goes_on(recorded, case):
    plan = build(recorded)
    before = step(plan)
    with pytest.raises(ValueError, match="step: "):
        step(plan, **WRONG_BATCHES[case])
    assert step(plan).tobytes() == before.tobytes()


WRONG_DRAFTS = {
    "a source outside": {"sources": (0, 1, 5)},
    "a negative source": {"sources": (0, -1, 3)},
    "too few sources": {"sources": (0, 1)},
    "a token outside": {"tokens": (2, 3, 1 << 20)},
    "a position outside": {"positions": (63, 64, 0)},
}


@pytest.mark.parametrize("case", WRONG_DRAFTS)
def test_a_draft_that_does_not_fit_is_refused_and_the_plan_goes_on(case):
    header = read_header(DATA / "golden_glm4moe.gguf")
    plan = open_runtime(header, EngineConfig(threads=2, context_tokens=64, chunk_tokens=32)).runtime._plan
    with pytest.raises(ValueError, match="was not kept"):
        draft(plan)
    before = step(plan, drafts=False)
    with pytest.raises(ValueError, match=r"(step|draft): "):
        draft(plan, **WRONG_DRAFTS[case])
    assert step(plan, drafts=False).tobytes() == before.tobytes()
    assert draft(plan).shape == before.shape
    with pytest.raises(ValueError, match="row 3 was not kept"):  # but the two output rows
        draft(plan)


WRONG_SLOTS = {
    "too few slots": {"slots": (3,)},
    "a slot outside": {"slots": (3, 1 << 20)},
    "a negative slot": {"slots": (-1, 1)},
    "two sequences in one slot": {"slots": (3, 3)},
    "a slot that has seen nothing": {"positions": (0, 1, 2, 4, 5), "slots": (3, 5)},
    "a slot that has seen too little": {"positions": (4, 5, 6, 2, 3)},
    "a slot that has seen too much": {"positions": (2, 3, 4, 2, 3)},
    "too few copies": {"copies": (4, -1, -1)},
    "a copy to no slot": {"copies": (4, -2, -1, -1, -1)},
    "a copy to a slot outside": {"copies": (-1, -1, -1, 1 << 20, -1)},
    "a copy to a slot in use": {"copies": (1, -1, -1, -1, -1)},
    "two copies to one slot": {"copies": (4, 5, -1, 4, -1)},
}


@pytest.fixture(scope="module")
def hybrid():
    """The plan of a model that keeps a state of each sequence."""
    header = read_header(DATA / "golden_qwen35_quantised.gguf")
    return open_runtime(header, EngineConfig(threads=2, context_tokens=64, chunk_tokens=32)).runtime._plan


@pytest.mark.parametrize("case", WRONG_SLOTS)
def test_slots_that_do_not_fit_are_refused_and_the_plan_goes_on(hybrid, case):
    before = step(hybrid)
    with pytest.raises(ValueError, match="step: "):
        step(hybrid, **WRONG_SLOTS[case])
    assert step(hybrid).tobytes() == before.tobytes()
    step(hybrid, positions=(3, 4, 5, 2, 3))


def test_a_copied_slot_goes_on_as_the_first_would(hybrid):
    step(hybrid)
    hybrid.copy_slot(3, 7)
    hybrid.copy_slot(7, 7)
    first = step(hybrid, positions=(3, 4, 5, 0, 1)).tobytes()
    assert step(hybrid, positions=(3, 4, 5, 0, 1), slots=(7, 1)).tobytes() == first
    for source, target in ((-1, 0), (0, 1 << 20)):
        with pytest.raises(ValueError, match="copy_slot: no slot"):
            hybrid.copy_slot(source, target)


def test_a_copy_made_on_the_way_goes_on_as_the_state_would(hybrid):
    whole = step(hybrid, outputs=(0, 1, 2, 4))
    plain = step(hybrid, positions=(3, 4, 5, 0, 1)).tobytes()
    assert step(hybrid, outputs=(0, 1, 2, 4), copies=(6, 7, 4, 5, -1)).tobytes() == whole.tobytes()
    for n_seen, slot in ((1, 6), (2, 7), (3, 4)):  # the rest of the first three tokens, then as before
        if n_seen < 3:
            rest = [1, 2, 3][n_seen:]
            hybrid.step(i32(rest), i32(range(n_seen, 3)), i32([0, len(rest)]), [i32([0])], i32(range(len(rest))),
                        i32([slot]), i32([]))
            assert hybrid.logits().tobytes() == whole[n_seen:3].tobytes()
        assert step(hybrid, positions=(3, 4, 5, 0, 1), slots=(slot, 1)).tobytes() == plain


def test_a_second_thread_is_told_and_the_plan_goes_on(hybrid):
    alone, batch, told = step(hybrid).tobytes(), [i32([1, 2, 3]), i32([0, 1, 2]), i32([0, 3])], []

    def work():
        end = time.monotonic() + 20
        while not told and time.monotonic() < end:
            try:
                hybrid.step(*batch, [i32([0])], i32([2]), i32([3]), i32([]))
            except RuntimeError as error:
                told.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told
    assert all("another thread is computing" in words for words in told)
    assert step(hybrid).tobytes() == alone


def test_page_bytes_refuses_shapes_that_no_layer_has():
    wrong = [([(0, 1, 0)], 0), ([(1, -1, 0)], 0), ([(1 << 30, 1 << 30, 0)], 0), ([(1, 32, 0)], 4), ([(1, 32, 0)], -1)]
    wrong += [([(1, 32, 32)], 0), ([(1, 32, -1)], 0)]
    for layers, kv_format in wrong:
        with pytest.raises(ValueError, match="page_bytes"):
            _core.page_bytes(layers, kv_format)
