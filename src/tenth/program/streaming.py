"""A pass for experts that stay in the file until they are needed: says in the program when they are asked for.

``expert_read`` follows the router. ``expert_predict`` guesses the next layer's experts by running its router on the
state of this layer, which changes little from layer to layer (right for 72 to 89 % of the experts of several published
models): the disk is busy while attention is computed, and what will be needed is not evicted. Leaving the guesses out
changes nothing but the time.

Only where that was asked for, ``route_lossy`` takes the place of routers: it looks at what is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import pairwise

from tenth.program.check import check
from tenth.program.fusing import readers
from tenth.program.values import Attr, Instruction, Program, Value


@dataclass(frozen=True)
class Router:
    """A route, the product that gives its logits, and the streamed weights of its experts, in order of use."""

    route: Instruction
    product: Instruction | None
    weights: tuple[Value, ...]


@dataclass(frozen=True)
class Lossy:
    """What may change the text to read less: see route_lossy in ops/of_passes.py. All 0: nothing may."""

    drop: float = 0.0
    prefer: float = 0.0


def stream_experts(
    program: Program, streamed: AbstractSet[str], predict: bool = True, lossy: Lossy | None = None
) -> Program:
    """Insert expert_read and expert_predict for the weights named in ``streamed``. Runs after all other passes."""
    if lossy and lossy != Lossy():
        program = _with_lossy_routers(program, streamed, lossy)
    found = list(routers(program, streamed))
    inserted = {
        router.route: [Instruction("expert_read", (router.route.outputs[0], *router.weights), ())] for router in found
    }
    for router, following in pairwise(found):
        if predict:
            inserted[router.route] += _prediction(router, following)
    instructions = [new for old in program.instructions for new in (old, *inserted.get(old, ()))]
    return check(replace(program, instructions=instructions))


def expert_layers(program: Program) -> list[list[list[str]]]:
    """Names of streamed weights by layer of experts, in the program's order; in each by the product that reads them."""
    read_by = readers(program)
    layers = []
    for read in program.instructions:
        if read.op == "expert_read":
            products = [i for i in read_by[read.inputs[0].storage] if i.op == "expert_linear"]
            streamed = {value.name for value in read.inputs[1:]}
            layers.append([[v.name for v in i.inputs if v.name in streamed] for i in products])
    return layers


def guessing(program: Program) -> set[Instruction]:
    """The expert_predicts, and what only they need."""
    read_by, found = readers(program), set[Instruction]()
    for i in reversed(program.instructions):
        needed = {reader for value in i.outputs for reader in read_by[value]}
        if i.op == "expert_predict" or (i.outputs and needed and needed <= found):
            found.add(i)
    return found


def routers(program: Program, streamed: AbstractSet[str]) -> Iterator[Router]:
    """The routers of the experts whose weights are named, in the program's order."""
    read_by = readers(program)
    made_by = {value: i for i in program.instructions for value in i.outputs}
    for route in program.instructions:
        if route.op not in ("route", "route_lossy"):
            continue
        products = [i for i in read_by[route.outputs[0]] if i.op == "expert_linear"]
        weights = tuple(v for i in products for v in i.inputs if v.kind == "weight" and v.name in streamed)
        if weights:
            maker = made_by[route.inputs[0].storage]
            yield Router(route, maker if maker.op == "linear" and not maker.attrs["residual"] else None, weights)


def _with_lossy_routers(program: Program, streamed: AbstractSet[str], lossy: Lossy) -> Program:
    attrs: dict[str, Attr] = {"drop": float(lossy.drop), "prefer": float(lossy.prefer)}
    changed = {}
    for router in routers(program, streamed):
        logits, *bias = router.route.inputs
        inputs = (logits, router.weights[0], *bias)
        how = {**router.route.attrs, **attrs}
        changed[router.route] = Instruction("route_lossy", inputs, router.route.outputs, how)
    return replace(program, instructions=[changed.get(i, i) for i in program.instructions])


def _prediction(router: Router, following: Router) -> list[Instruction]:
    """The next layer's router on the state that this layer's router reads; empty where their states are not alike."""
    here, there = router.product, following.product
    if here is None or there is None:
        return []
    x, name = here.inputs[0], following.route.outputs[0].name
    if x.dtype != there.inputs[0].dtype or x.shape != there.inputs[0].shape:
        return []
    instructions = []
    rows = following.route.outputs[0].rows
    if rows != x.rows:  # the last layer computes only rows that need logits
        if x.dtype != "f32":
            return []
        few = Value(f"{name}.guess.x", "temp", x.shape, rows)
        instructions.append(Instruction("select_outputs", (x,), (few,)))
        x = few
    logits = Value(f"{name}.guess.logits", "temp", following.route.inputs[0].shape, rows)
    chosen = [Value(f"{name}.guess.{v.name}", "temp", v.shape, rows, v.dtype) for v in following.route.outputs]
    weight, biases = _weight_of(there, following.route.inputs[0].storage)
    attrs: dict[str, Attr] = {"n_weights": 1, "biases": (len(biases),), "residual": 0}
    return [
        *instructions,
        Instruction("linear", (x, weight, *biases), (logits,), attrs),
        replace(following.route, inputs=(logits, *following.route.inputs[1:]), outputs=tuple(chosen)),
        Instruction("expert_predict", (chosen[0], *following.weights), ()),
    ]


def _weight_of(product: Instruction, output: Value) -> tuple[Value, tuple[Value, ...]]:
    """The weight, and the bias if there is one, that give one output of a linear."""
    present = product.attrs["biases"]
    assert isinstance(present, tuple), "linear: biases is a tuple"
    at = product.outputs.index(output)
    biases = product.inputs[1 + len(present) :]
    has_bias = bool(present[at])
    before = int(sum(present[:at]))
    return product.inputs[1 + at], biases[before : before + 1] if has_bias else ()
