"""Passes: pure functions from program to program that make it cheaper without changing what it means.

Each takes (program, what products with its weights read) and gives a new program; each can be left out, and the
reference interpreter gives the same logits with or without (``round_once`` adds rounding, on purpose). New
programs share values with the old one; ``optimise`` works on a copy, so its input stays untouched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from tenth.program.check import check
from tenth.program.fusing import fold_residual, fuse_rounding, readers, rope_and_store
from tenth.program.ops import expect
from tenth.program.values import ROUNDINGS, Attr, Dtype, Instruction, Program, Reads, Rows, Value

Pass = Callable[[Program, Reads], Program]


def optimise(program: Program, reads: Reads, passes: tuple[Pass, ...] | None = None) -> Program:
    """Run all passes, or the given ones, on a copy and check the result."""
    program = copy(program)
    for step in PASSES if passes is None else passes:
        drafter = step(program.drafter, reads) if program.drafter else None
        program = replace(step(program, reads), drafter=drafter)
    return check(program)


def copy(program: Program) -> Program:
    """The same program with values and instructions of its own (and its own offsets)."""
    new: dict[Value, Value] = {}

    def value_of(value: Value) -> Value:
        if value not in new:
            base = value_of(value.base) if value.base else None
            new[value] = replace(value, base=base, builder=None)
        return new[value]

    def copied(program: Program) -> Program:
        return replace(
            program,
            weights={name: value_of(value) for name, value in program.weights.items()},
            inputs={name: value_of(value) for name, value in program.inputs.items()},
            instructions=[
                Instruction(i.op, tuple(map(value_of, i.inputs)), tuple(map(value_of, i.outputs)), dict(i.attrs))
                for i in program.instructions
            ],
            output=value_of(program.output),
            state=list(program.state),
            recurrences=list(program.recurrences),
            drafter=copied(program.drafter) if program.drafter else None,
        )

    return copied(program)


def kept_as_floats(program: Program) -> list[str]:
    """The weights that are no matrices: 1-D ones, convolutions, and the biases [E, out] of experts."""
    convolutions = {i.inputs[1].name for i in program.instructions if i.op == "short_conv"}
    biases = {
        value.name
        for i in program.every_instruction
        if i.op == "expert_linear"
        for value in i.inputs[_FIRST_WEIGHT[i.op] + len(_weights(i)) :]
    }
    return [name for name, value in program.weights.items() if len(value.shape) == 1 or name in biases | convolutions]


# ---------------------------------------------------------------- fewer rows

_ROW_WISE = frozenset({
    "linear", "rms_norm", "layer_norm", "add", "scale", "softcap", "swiglu", "geglu", "gelu", "clamped_swiglu", "split",
    "l2_norm", "sigmoid", "sigmoid_gate", "decay", "join", "route", "expert_linear", "expert_sum", "head_linear",
})  # fmt: skip


def select_early(program: Program, reads: Reads) -> Program:
    """Drop the rows that need no logits as early as possible: all that follows the last attention runs on few rows.

    An instruction that works row by row moves to the output rows when everybody who reads it wants only those. Saves
    most of the last layer while a prompt is read. Runs before the passes that introduce other row-wise ops.
    """
    read_by = readers(program)
    moved: set[Instruction] = set()
    for instruction in reversed(program.instructions):
        users = [user for value in instruction.outputs for user in read_by[value]]
        few = all(user in moved or user.op == "select_outputs" for user in users)
        if instruction.op in _ROW_WISE and users and few and instruction.outputs[0].rows == "tokens":
            moved.add(instruction)
    return _move_to_output_rows(program, moved)


def _move_to_output_rows(program: Program, moved: set[Instruction]) -> Program:
    selected: dict[Value, Value] = {}  # owner of bytes on token rows -> the same on output rows
    instructions: list[Instruction] = []

    def select(value: Value) -> Value:
        """The value on output rows, through a select_outputs of its owner where nothing has made it yet."""
        if value.kind == "weight":
            return value
        owner = value.storage
        if owner not in selected:
            selected[owner] = _on_outputs(owner)
            instructions.append(Instruction("select_outputs", (owner,), (selected[owner],)))
        return _seen_as(selected[owner], value)

    replaced: dict[Value, Value] = {}  # outputs of former select_outputs -> what stands for them now
    for instruction in program.instructions:
        if instruction in moved:
            inputs = tuple(map(select, instruction.inputs))
            selected |= {value: _on_outputs(value) for value in instruction.outputs}
            outputs = tuple(selected[value] for value in instruction.outputs)
            instructions.append(replace(instruction, inputs=inputs, outputs=outputs))
        elif instruction.op == "select_outputs":
            replaced[instruction.outputs[0]] = select(instruction.inputs[0])
        else:
            inputs = tuple(_substitute(value, replaced) for value in instruction.inputs)
            instructions.append(replace(instruction, inputs=inputs))
    return replace(program, instructions=instructions, output=_substitute(program.output, replaced))


def _on_outputs(value: Value) -> Value:
    rows: Rows = "outputs"
    return Value(f"{value.name}.few", "temp", value.shape, rows, value.dtype)


def _seen_as(owner: Value, like: Value) -> Value:
    """The owner, or a view of it where ``like`` is a view."""
    return owner if like.base is None else Value(like.name, "temp", like.shape, owner.rows, owner.dtype, base=owner)


def _substitute(value: Value, replaced: dict[Value, Value]) -> Value:
    if value.storage not in replaced:
        return value
    new = replaced[value.storage]
    return new if value.base is None else _seen_as(new.storage, value)


# ---------------------------------------------------------------- rounded inputs


def round_once(program: Program, reads: Reads) -> Program:
    """Round the input of every linear to what its weights read, once per value for all that read it so."""
    rounded: dict[tuple[Value, int, Dtype], Value] = {}  # owner of the f32 bytes, length of a row -> rounded
    instructions: list[Instruction] = []
    for instruction in program.instructions:
        if instruction.op in _FIRST_WEIGHT and instruction.inputs[0].dtype == "f32":
            dtypes = {reads.get(weight.name, "f32") for weight in _weights(instruction)}
            expect(len(dtypes) == 1, f"weights that read {dtypes} merged before round_once")
            dtype = dtypes.pop()
            if dtype in ROUNDINGS:
                x = instruction.inputs[0]
                key = (x.storage, x.shape[-1], dtype)
                if key not in rounded:
                    length = "" if x.shape[-1] == x.storage.shape[-1] else str(x.shape[-1])
                    rounded[key] = Value(f"{x.storage.name}.{dtype}{length}", "temp", x.shape, x.rows, dtype)
                    instructions.append(Instruction(ROUNDINGS[dtype], (x,), (rounded[key],)))
                instruction = replace(instruction, inputs=(rounded[key], *instruction.inputs[1:]))
        elif instruction.op == "expanded_attention":  # rounds what it reads of the cache itself
            keys, values = (reads.get(weight.name, "f32") for weight in instruction.inputs[3:])
            instruction = replace(
                instruction, attrs={**instruction.attrs, "keys_dtype": keys, "values_dtype": values}
            )
        instructions.append(instruction)
    return replace(program, instructions=instructions)


# ---------------------------------------------------------------- bigger linears


def merge_linears(program: Program, reads: Reads) -> Program:
    """Turn linears that read the same input into one instruction with several weights (q, k, v; gate, up).

    Those of experts too, where they take the same experts.
    """
    groups: dict[tuple[object, ...], list[Instruction]] = defaultdict(list)
    for instruction in program.instructions:
        if "n_weights" in instruction.attrs and not instruction.attrs.get("residual"):
            read = instruction.inputs[: _FIRST_WEIGHT[instruction.op]]
            groups[instruction.op, *((x.storage, x.shape, x.rows) for x in read)].append(instruction)
    # x is ready before the first of a group, and weights always are: the merged one stands where the first stood.
    merged = {group[0]: _merge(group) for group in groups.values()}
    followers = {instruction for group in groups.values() for instruction in group[1:]}
    instructions = [merged.get(i, i) for i in program.instructions if i not in followers]
    return replace(program, instructions=instructions)


def _merge(group: list[Instruction]) -> Instruction:
    first = _FIRST_WEIGHT[group[0].op]
    weights = tuple(weight for i in group for weight in _weights(i))
    biases = tuple(bias for i in group for bias in i.inputs[first + len(_weights(i)) :])
    present = tuple(has for i in group for has in _present(i))
    outputs = tuple(value for i in group for value in i.outputs)
    attrs: dict[str, Attr] = {**group[0].attrs, "n_weights": len(weights), "biases": present}
    return replace(group[0], inputs=(*group[0].inputs[:first], *weights, *biases), outputs=outputs, attrs=attrs)


_FIRST_WEIGHT = {"linear": 1, "head_linear": 1, "expert_linear": 2}  # where a product's weights stand among its inputs


def _weights(linear: Instruction) -> tuple[Value, ...]:
    n, first = linear.attrs.get("n_weights", 1), _FIRST_WEIGHT[linear.op]
    assert isinstance(n, int), "linear: n_weights is a number"
    return linear.inputs[first : first + n]


def _present(linear: Instruction) -> tuple[int, ...]:
    biases = linear.attrs["biases"]
    assert isinstance(biases, tuple), "linear: biases is a tuple"
    return tuple(int(has) for has in biases)


PASSES: tuple[Pass, ...] = (select_early, round_once, merge_linears, fold_residual, fuse_rounding, rope_and_store)
