"""A pass for diagnosis: the program notes which experts every token uses. Numbers stay what they were."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from tenth.program.check import check
from tenth.program.streaming import routers
from tenth.program.values import Instruction, Program


def trace_experts(program: Program, experts: AbstractSet[str]) -> Program:
    """Insert expert_trace behind each router of the weights named in ``experts``, layers counted from 0."""
    noted = {
        router.route: Instruction("expert_trace", (router.route.outputs[0],), (), {"router": number})
        for number, router in enumerate(routers(program, experts))
    }
    instructions = [new for old in program.instructions for new in (old, noted.get(old)) if new]
    return check(replace(program, instructions=instructions))
