from dataclasses import replace

import pytest

from tenth.program.check import check
from tenth.program.passes import copy
from tenth.program.values import Instruction, KvLayer, Recurrence, Value


def of(program, op):
    return next(i for i in program.instructions if i.op == op)


def swap(program):
    program.instructions[1], program.instructions[2] = program.instructions[2], program.instructions[1]


def write_twice(program):
    program.instructions.append(program.instructions[-1])


def store_after_attention(program):
    store = of(program, "kv_store")
    program.instructions.remove(store)
    program.instructions.append(store)


def of_another_program(program):
    embed = of(program, "embed")
    embed.inputs = (embed.inputs[0], Value("token_embd.weight", "weight", (11, 32)))


def wrong_rows(program):
    of(program, "select_outputs").outputs[0].rows = "tokens"


def q8_into_add(program):
    add = of(program, "add")
    rounded = Value("rounded", "temp", (32,), "tokens", "q8")
    program.instructions.insert(program.instructions.index(add), Instruction("quantize", add.inputs[:1], (rounded,)))
    add.inputs = (rounded, add.inputs[1])


BREAKAGES = {
    "no such op": lambda p: setattr(p.instructions[0], "op", "magic"),
    "attrs": lambda p: of(p, "rms_norm").attrs.pop("eps"),
    "attrs are": lambda p: of(p, "rms_norm").attrs.update(eps=1),
    "inputs, expected": lambda p: setattr(of(p, "add"), "inputs", of(p, "add").inputs[:1]),
    "before it is written": swap,
    "a second time": write_twice,
    "attention before kv_store": store_after_attention,
    "is not of this program": of_another_program,
    "the rule says": wrong_rows,
    "reads q8": q8_into_add,
    "share a name": lambda p: setattr(p.instructions[3].outputs[0], "name", "t0"),
    "two KV declarations": lambda p: p.state.append(p.state[0]),
    "attention reads": lambda p: p.state.__setitem__(0, replace(p.state[0], window=3)),
    "not stored or not read": lambda p: p.state.append(KvLayer(1, 2, 8)),
    "not numbered in order": lambda p: p.recurrences.append(Recurrence(1, (2, 8))),
    "the program declares": lambda p: p.recurrences.append(Recurrence(0, (2, 8))),
    "never written": lambda p: setattr(p, "output", Value("other", "temp", (11,), "outputs")),
    "f32 logits": lambda p: setattr(p, "output", p.instructions[2].outputs[0]),
}


def test_a_built_program_is_sound(program):
    assert check(program) is program


@pytest.mark.parametrize("message", BREAKAGES)
def test_a_broken_program_is_found(program, message):
    broken = copy(program)
    BREAKAGES[message](broken)
    with pytest.raises(AssertionError, match=message):
        check(broken)
