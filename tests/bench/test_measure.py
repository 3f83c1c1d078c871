"""Turns, work counted from a program, and the figures made of both."""

from dataclasses import dataclass, replace

import pytest

from tenth.bench.limits import Rate
from tenth.bench.measure import Shape, Speed, Tenth, Turns, prompt_ids, take_turns
from tenth.bench.report import figures, lines, summary
from tenth.bench.work import Work, count
from tenth.errors import RequestError, ResourceError
from tenth.program.values import Instruction, KvLayer, Program, Recurrence, Value


@dataclass
class Tensor:
    n_bytes: int


def tiny_program():
    """embed [10, 4] -> linear [6, 4] on every token -> linear [10, 4] on outputs."""
    table, inner, head = (Value(n, "weight", s) for n, s in (("embd", (10, 4)), ("w", (6, 4)), ("head", (10, 4))))
    norm = Value("norm", "weight", (4,))
    tokens = Value("tokens", "input", (), "tokens", "i32")
    x, y, last, logits = (Value("x", "temp", (4,), "tokens"), Value("y", "temp", (6,), "tokens"),
                          Value("last", "temp", (4,), "outputs"), Value("logits", "temp", (10,), "outputs"))
    steps = [Instruction("embed", (tokens, table), (x,)), Instruction("rms_norm", (x, norm), (x,)),
             Instruction("linear", (x, inner), (y,)), Instruction("select_outputs", (x,), (last,)),
             Instruction("linear", (last, head), (logits,))]
    weights = {v.name: v for v in (table, inner, head, norm)}
    return Program(steps, weights, {"tokens": tokens}, logits, [KvLayer(0, 2, 32), KvLayer(1, 2, 32)])


TENSORS = {"embd": Tensor(160), "w": Tensor(96), "head": Tensor(160), "norm": Tensor(16)}


def test_work_counts_one_row_of_the_table_and_all_of_the_others():
    work = count(tiny_program(), TENSORS, "f16")
    assert work == Work(weight_bytes=16 + 96 + 160 + 16, kv_bytes_per_context_token=2 * 2 * 2 * 32 * 2, every=24,
                        output=40)
    assert work.generated_bytes(10) == 288 + 10 * 512
    assert work.prompt_multiply_adds(4) == 24 + 10
    recurrent = replace(tiny_program(), recurrences=[Recurrence(0, (3, 40)), Recurrence(1, (4, 8, 16))])
    assert count(recurrent, TENSORS, "f16").generated_bytes(10) == 288 + 10 * 512 + 8 * (120 + 512)
    assert count(tiny_program(), TENSORS, "q8_0").kv_bytes_per_context_token == 512 * 34 / 64


class Runner:
    name, version = "runner", ""

    def __init__(self, log, label, speeds):
        self.log, self.label, self.speeds = log, label, list(speeds)

    def measure(self):
        self.log.append(self.label)
        return Speed(*self.speeds.pop(0))


def test_everyone_takes_turns_and_the_first_does_not_count():
    log = []
    mine = Runner(log, "tenth", [(1, 1), (100, 10), (120, 12)])
    peer = Runner(log, "peer", [(1, 1), (50, 10), (60, 12)])
    limits = lambda: log.append("limits") or (Rate(1e4, 1e4, 3), Rate(1e4, 1e4, 3))  # noqa: E731
    turns = take_turns(mine, peer, limits, 2)
    assert log == ["limits", "tenth", "peer"] * 3
    assert turns.tenth == [Speed(100, 10), Speed(120, 12)]
    assert turns.peer == [Speed(50, 10), Speed(60, 12)]
    assert len(turns.read) == len(turns.int8) == 2


def test_shares_are_taken_against_the_limit_measured_beside_them():
    rate = lambda best: Rate(best, best, 3)  # noqa: E731
    turns = Turns([Speed(10, 10), Speed(20, 20)], [Speed(10, 5), Speed(10, 10)], [rate(1e4), rate(2e4)],
                  [rate(1e3), rate(2e3)])
    work = Work(weight_bytes=500, kv_bytes_per_context_token=0, every=50, output=0)
    result = figures(turns, work, Shape(512, 128, 2))
    assert result["generation"]["share_of_read"] == pytest.approx(0.5)
    assert result["prompt"]["share_of_int8"] == pytest.approx(0.5)
    assert result["generation"]["bytes_per_token"] == 500
    assert result["peer"]["generation"]["ratio"] == 2.0
    assert result["peer"]["prompt"]["ratio"] == 1.5
    rows = lines(result)
    assert [len(row) for row in rows] == [6, 6, 6]
    assert rows[2][1:] == ("15.0", "67 %", "50 % read", "7.5", "2.00")
    del result["peer"]
    assert [len(row) for row in lines(result)] == [4, 4, 4]


def test_a_summary_gives_median_extremes_and_spread():
    assert summary([10.0, 12.0, 11.0]) == {"median": 11.0, "low": 10.0, "high": 12.0, "spread": 2 / 11,
                                           "runs": [10.0, 12.0, 11.0]}


class Model:
    """Generates nothing, but reports figures."""

    def __init__(self, usage=None):
        self.usage, self.asked = usage, []

    def generate(self, ids, **settings):
        self.asked.append((ids, settings))
        n = settings["max_tokens"]

        class Stream(list):
            usage = self.usage or {"prompt_tokens": len(ids), "completion_tokens": n, "cached_tokens": 0}
            timings = {"prompt_tokens_per_second": 100.0 * len(ids), "generated_tokens_per_second": 1.0 * n}  # noqa: RUF012

        return Stream()

    def tokenize(self, text, special=True):
        return [5, 6, 7]

    def expert_read_bytes(self):
        return 800 * len(self.asked)


def test_only_what_generating_reads_counts_for_a_token():
    measured = Tenth(Model(), [5, 6, 7], Shape(3, 8, 1))
    assert measured.read_bytes_per_token is None
    measured.measure()
    measured.measure()
    assert measured.read_bytes == [800, 800]
    assert measured.read_bytes_per_token == 100.0


def test_a_turn_of_tenth_is_a_prompt_and_a_generation_from_one_token():
    model = Model()
    assert Tenth(model, [5, 6, 7], Shape(3, 8, 1)).measure() == Speed(300.0, 8.0)
    settings = {"ignore_eos": True, "temperature": 0.0}
    assert model.asked == [([5, 6, 7], {"max_tokens": 1} | settings), ([5], {"max_tokens": 8} | settings)]


@pytest.mark.parametrize("usage", [(3, 1, 2), (2, 1, 0), (3, 0, 0)])
def test_a_turn_that_did_something_else_is_no_measurement(usage):
    names = ("prompt_tokens", "completion_tokens", "cached_tokens")
    with pytest.raises(ResourceError, match=r"reused\) = "):
        Tenth(Model(dict(zip(names, usage, strict=True))), [5, 6, 7], Shape(3, 8, 1)).measure()


def test_prompts_have_the_length_asked_for_with_or_without_a_vocabulary():
    assert prompt_ids(Model(), 7) == [5, 6, 7, 5, 6, 7, 5]
    bare = Model()
    bare.tokenize = lambda *_, **__: (_ for _ in ()).throw(RequestError("no vocabulary"))
    assert len(prompt_ids(bare, 40)) == 40


def test_every_kv_format_of_the_runtime_has_its_bytes():
    from tenth.bench.work import KV_BYTES
    from tenth.runtime import KV_FORMATS

    assert set(KV_BYTES) == set(KV_FORMATS)
