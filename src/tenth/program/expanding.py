"""A pass for models with latent attention: rows of prompts meet keys and values that are made of the latents again.

A program absorbs: each head's matrix of keys is moved over to its query and that of values to the result, so that rows
meet the latents themselves. For many rows it is fewer multiply-adds to expand the latents into keys and values of each
head and take ordinary attention. Those are other sums, so which of the two a row gets must not depend on chunks, batch
mates or reused prefixes: rows of a request's prompt are expanded, those behind it absorbed ("generated").
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType

from tenth.program.check import check
from tenth.program.fusing import readers
from tenth.program.ops import OPS
from tenth.program.values import Q8_BLOCK, Attr, Instruction, Program, Reads, Transposed, Value


def expand_prompts(program: Program, reads: Reads = MappingProxyType({})) -> Program:
    """The program with rows of prompts expanded; as it is when it has no latent attention. A drafter goes on absorbing.

    Before the other passes. Keys of files that keep their matrix turned need a copy of it; where it is
    block-quantised, so that its products read q8, the copy is rounded to int8.
    """
    weights, derived = dict(program.weights), dict(program.derived)
    made_by = {value: i for i in program.instructions for value in i.outputs}
    read_by = readers(program)
    replaced: dict[Instruction, list[Instruction]] = {}
    for attention in program.instructions:
        if attention.op != "latent_attention":
            continue
        queries, (values,) = made_by[attention.inputs[0].storage], read_by[attention.outputs[0]]
        assert queries.op == values.op == "head_linear", "latent attention stands between two head_linears"
        weight = queries.inputs[1]
        how = derived.get(weight.name)
        if isinstance(how, Transposed):  # absorbing needs the turned one: the file's own expands
            keys = weights[how.source]
        else:
            n_heads, n_rows = queries.attrs["n_heads"], queries.attrs["n_rows"]
            assert isinstance(n_heads, int), "head_linear: n_heads"
            assert isinstance(n_rows, int), "head_linear: n_rows"
            # Blocks of the file lie across what is summed now: in float32 that would take most of the expanding.
            rounds = reads.get(weight.name) == "q8" and n_rows % Q8_BLOCK == 0
            turned = Transposed(weight.name, n_heads, 0, n_rows, rounds)
            keys = Value(turned.name, "weight", (n_heads * weight.shape[1], n_rows))
            weights[turned.name], derived[turned.name] = keys, turned
        replaced |= _apart(queries, attention, values, keys)
    if not replaced:
        return program
    instructions = [new for old in program.instructions for new in replaced.get(old, [old])]
    return check(replace(program, instructions=instructions, weights=weights, derived=derived))


def _apart(
    queries: Instruction, attention: Instruction, values: Instruction, keys: Value
) -> dict[Instruction, list[Instruction]]:
    """What takes the place of the three: they themselves on generated rows, and behind them the prompts' attention."""
    whole, rotated = queries.inputs[0].storage, attention.inputs[1]  # [heads, numbers] a row, both
    few, few_rotated = _emit("select_generated", whole), _emit("select_generated", rotated)
    met = _emit("head_linear", _flat(few.outputs[0]), queries.inputs[1], attrs=queries.attrs)
    seen = _emit("latent_attention", met.outputs[0], few_rotated.outputs[0], attrs=attention.attrs)
    absorbed = _emit("head_linear", _flat(seen.outputs[0]), values.inputs[1], attrs=values.attrs)
    attrs: dict[str, Attr] = {"n_heads": queries.attrs["n_heads"], "first": values.attrs["first"]}
    attrs |= {"keys_dtype": "f32", "values_dtype": "f32"}  # passes.round_once knows better
    inputs = (whole, rotated, absorbed.outputs[0], keys, values.inputs[1])
    expanded = Instruction("expanded_attention", inputs, values.outputs, attention.attrs | attrs)
    return {queries: [], attention: [few, few_rotated, met, seen, absorbed], values: [expanded]}


def _emit(op: str, *inputs: Value, attrs: dict[str, Attr] | None = None) -> Instruction:
    (result,) = OPS[op].rule(inputs, attrs or {})
    name = f"{inputs[0].storage.name}.{'generated' if op == 'select_generated' else 'met'}"
    return Instruction(op, inputs, (Value(name, "temp", result.shape, result.rows),), dict(attrs or {}))


def _flat(x: Value) -> Value:
    return Value(x.name, "temp", (math.prod(x.shape),), x.rows, base=x)
