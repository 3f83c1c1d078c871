"""Passes that let one instruction do what several did: workers meet behind each. See passes.py."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from tenth.program.ops import OPS
from tenth.program.values import ROUNDINGS, Attr, Instruction, Program, Reads, Value


def readers(program: Program) -> dict[Value, list[Instruction]]:
    """The instructions that read each value, views counted as what they view; one that reads it twice stands twice."""
    found: dict[Value, list[Instruction]] = defaultdict(list)
    for instruction in program.instructions:
        for value in instruction.inputs:
            found[value.storage].append(instruction)
    return found


def fuse_rounding(program: Program, reads: Reads) -> Program:
    """Let rms_norm, swiglu and their like round themselves where that is all that anybody reads of them."""
    read_by = readers(program)
    fused: dict[Instruction, Instruction] = {}  # the rounding -> its producer
    for instruction in program.instructions:
        users = [user for value in instruction.outputs for user in read_by[value]]
        only_rounded = len(users) == 1 and users[0].op in ROUNDINGS.values() and users[0].inputs[0].base is None
        may_round = any(f"{instruction.op}_{dtype}" in OPS for dtype in ROUNDINGS) and not instruction.inputs[2:]
        if may_round and only_rounded and program.output.storage not in instruction.outputs:
            fused[users[0]] = instruction
    gone = set(fused.values())
    instructions = [
        replace(fused[i], op=f"{fused[i].op}_{i.outputs[0].dtype}", outputs=i.outputs) if i in fused else i
        for i in program.instructions
        if i not in gone
    ]
    return replace(program, instructions=instructions)


def fold_residual(program: Program, reads: Reads) -> Program:
    """Let a linear, an expert_sum or a norm add the residual itself when its result goes nowhere but into that add."""
    read_by = readers(program)
    made_by = {value: i for i in program.instructions for value in i.outputs}
    folded: dict[Instruction, Instruction] = {}  # the add -> the linear that takes its place
    for add in program.instructions:
        if add.op != "add":
            continue
        for mine, other in (add.inputs, add.inputs[::-1]):
            maker = made_by.get(mine)
            only_here = len(read_by[mine]) == 1 and program.output.storage is not mine and add not in folded
            if maker and only_here and _can_add(maker):
                attrs: dict[str, Attr] = {**maker.attrs, "residual": 1} if maker.op == "linear" else maker.attrs
                folded[add] = Instruction(maker.op, (*maker.inputs, other), add.outputs, attrs)
    gone = {made_by[value] for add, new in folded.items() for value in add.inputs if value is not new.inputs[-1]}
    # It stands where the add stood, where the residual is ready for certain.
    instructions = [folded.get(i, i) for i in program.instructions if i not in gone]
    return replace(program, instructions=instructions)


def _can_add(maker: Instruction) -> bool:
    """Whether this instruction has room for a residual."""
    if maker.op in ("expert_sum", "rms_norm"):
        return len(maker.inputs) == 2
    return maker.op == "linear" and maker.attrs["n_weights"] == 1 and not maker.attrs["residual"]


def rope_and_store(program: Program, reads: Reads) -> Program:
    """Let one instruction turn q and k and store k and v; the norms of their heads too, where q and k have one each."""
    made = _Made(program)
    attentions = {i.attrs["layer"]: i for i in program.instructions if i.op == "attention"}
    joined: dict[Instruction, Instruction] = {}  # the kv_store -> what takes its place
    gone: set[Instruction] = set()
    for store in program.instructions:
        if store.op != "kv_store":
            continue
        turn_k = made.alone(store.inputs[0], "rope")
        turn_q = made.alone(attentions[store.attrs["layer"]].inputs[0], "rope")
        if turn_k and turn_q and turn_k.inputs[1] is turn_q.inputs[1] and turn_k.attrs == turn_q.attrs:
            found = (made.alone(turn.inputs[0], "rms_norm") for turn in (turn_k, turn_q))
            norms = [norm for norm in found if norm]
            if len(norms) != 2 or norms[0].attrs != norms[1].attrs or len(norms[0].inputs) + len(norms[1].inputs) != 4:
                norms = []
            joined[store] = _joined(store, turn_k, turn_q, norms)
            gone |= {turn_k, turn_q, *norms}
    return replace(program, instructions=[joined.get(i, i) for i in program.instructions if i not in gone])


def _joined(store: Instruction, turn_k: Instruction, turn_q: Instruction, norms: list[Instruction]) -> Instruction:
    k, q = (i.inputs[0] for i in norms or (turn_k, turn_q))
    attrs: dict[str, Attr] = {"eps": 0.0, **store.attrs, **turn_k.attrs, **(norms[0].attrs if norms else {})}
    weights = [norm.inputs[1] for norm in norms]
    return Instruction("rope_store", (k, store.inputs[1], q, turn_k.inputs[1], *weights), turn_q.outputs, attrs)


class _Made:
    """Who made the values of a program."""

    def __init__(self, program: Program):
        self._maker = {value: i for i in program.instructions for value in i.outputs}
        self._read_by = readers(program)

    def alone(self, value: Value, op: str) -> Instruction | None:
        """The instruction of this op that made the value, if nothing else reads it and it is no view."""
        maker = self._maker.get(value)
        return maker if maker and maker.op == op and len(self._read_by[value]) == 1 else None
