"""Verifies a program. One that fails here is our own bug, so every failure is an AssertionError with a message."""

from __future__ import annotations

from dataclasses import replace

from tenth.program.ops import OPS, Op, expect, recurrence_shape
from tenth.program.values import Instruction, KvLayer, Program, Value


def check(program: Program) -> Program:
    """Give back the program if it is sound.

    Sound: known ops, complete attrs, shapes by rule, each value written once and before any read, weights and inputs of
    this program only, one KV declaration per layer with which every use agrees, one instruction for each recurrence.
    Its drafter, if there is one, is checked with it.
    """
    _check_list(program)
    if program.drafter:
        _check_list(program.drafter)
    _check_state(program)
    _check_recurrences(program)
    _check_hidden(program)
    return program


def _check_list(program: Program) -> None:
    """What is said of one list of instructions by itself."""
    written: set[Value] = set()
    for i, instruction in enumerate(program.instructions):
        where = f"instruction {i} ({instruction.op})"
        expect(instruction.op in OPS, f"{where}: no such op")
        _check_form(instruction, OPS[instruction.op], where)
        for value in instruction.inputs:
            _check_readable(program, value, written, where)
        _check_outputs(instruction, written, where)
        written.update(instruction.outputs)
    names = [value.name for value in written]
    expect(len(set(names)) == len(names), "two temporaries share a name")
    output = program.output
    expect(output.storage in written, "the program's output is never written")
    kind = (output.rows, len(output.shape), output.dtype)
    expect(kind == ("outputs", 1, "f32"), f"the program's output is {kind}, not f32 logits per output row")


def _check_hidden(program: Program) -> None:
    """Rows are kept for a drafter, all of one length; and only a drafter reads them."""
    stores = [i for i in program.every_instruction if i.op == "hidden_store"]
    loads = [i for i in program.every_instruction if i.op == "hidden_load"]
    expect({i.inputs[0].shape for i in stores} | {(i.attrs["width"],) for i in loads} <= {(program.hidden,)},
           f"hidden rows are not {program.hidden} long")  # fmt: skip
    sources = program.inputs.get("sources")
    expect(not any(sources in i.inputs for i in program.instructions if sources), "only a drafter reads sources")
    if program.drafter:
        own = [i for i in program.instructions if i.op == "hidden_store"]
        expect(len(own) == 1 and own[0].inputs[0].rows == "tokens", "a drafter needs the hidden state of every token")


def _check_form(instruction: Instruction, op: Op, where: str) -> None:
    found = {name: type(value) for name, value in instruction.attrs.items()}
    expect(found == op.attrs, f"{where}: attrs are {found}, the table says {op.attrs}")
    least = sum(not name.endswith(("*", "?")) for name in op.inputs)
    most = float("inf") if any(name.endswith("*") for name in op.inputs) else len(op.inputs)
    expect(least <= len(instruction.inputs) <= most, f"{where}: {len(instruction.inputs)} inputs, expected {op.inputs}")


def _check_readable(program: Program, value: Value, written: set[Value], where: str) -> None:
    if value.kind == "temp":
        expect(value.storage in written, f"{where}: reads {value.name} before it is written")
        expect(value.storage.rows == value.rows, f"{where}: {value.name} is a view with other rows")
        expect(value.row_bytes == value.storage.row_bytes, f"{where}: {value.name} is a view of another size")
    else:
        owner = program.weights if value.kind == "weight" else program.inputs
        expect(owner.get(value.name) is value, f"{where}: {value.kind} {value.name} is not of this program")


def _check_outputs(instruction: Instruction, written: set[Value], where: str) -> None:
    dtypes = OPS[instruction.op].dtypes
    for j, value in enumerate(instruction.inputs):
        takes = dtypes[j] if j < len(dtypes) else ("f32",)
        expect(value.dtype in takes, f"{where}: reads {value.dtype} ({value.name}), takes {takes}")
    found = tuple((v.rows, v.shape, v.dtype) for v in instruction.outputs)
    expected = OPS[instruction.op].rule(instruction.inputs, instruction.attrs)
    expect(found == expected, f"{where}: gives {found}, the rule says {expected}")
    for value in instruction.outputs:
        expect(value.kind == "temp" and value.base is None, f"{where}: {value.name} is no buffer of its own")
        expect(value not in written, f"{where}: writes {value.name} a second time")


def _check_state(program: Program) -> None:
    layers = {state.layer: state for state in program.state}
    expect(len(layers) == len(program.state), "two KV declarations for one layer")
    stored: set[int] = set()
    read: set[int] = set()
    for instruction in program.every_instruction:
        layer = instruction.attrs.get("layer")
        if layer is None:
            continue
        assert isinstance(layer, int), "layer is a number"
        expect(layer in layers, f"layer {layer} has no KV declaration")
        state = layers[layer]
        used = _kv_of(instruction)
        if instruction.op.endswith("_store"):
            expect(layer not in stored, f"layer {layer} stores twice")
            expect(used == replace(state, window=0), f"layer {layer}: stores {used}")
            stored.add(layer)
        else:
            expect(used == state, f"layer {layer}: attention reads {used}")
            expect(layer in stored, f"layer {layer}: attention before kv_store")
            read.add(layer)
    expect(set(layers) == stored == read, "a declared KV layer is not stored or not read")


def _check_recurrences(program: Program) -> None:
    declared = [(recurrence.number, recurrence.shape) for recurrence in program.recurrences]
    expect([number for number, _ in declared] == list(range(len(declared))), "recurrences are not numbered in order")
    shapes = [(i.attrs["state"], recurrence_shape(i)) for i in program.instructions if "state" in i.attrs]
    expect(sorted(shapes, key=str) == sorted(declared, key=str), f"ops keep {shapes}, the program declares {declared}")


def _kv_of(instruction: Instruction) -> KvLayer:
    """What the instruction takes its layer's cache to be; a store knows of no window."""
    layer, first = instruction.attrs["layer"], instruction.inputs[0].shape
    if instruction.op == "expanded_attention":
        latent, rope = instruction.inputs[3].shape[-1], instruction.inputs[1].shape[-1]
        return KvLayer(layer, 1, latent + rope, latent=latent)  # type: ignore[arg-type]
    if instruction.op.startswith("latent"):
        latent, rope = first[-1], instruction.inputs[1].shape[-1]
        return KvLayer(layer, 1, latent + rope, latent=latent)  # type: ignore[arg-type]
    attrs = instruction.attrs
    heads, dim = attrs.get("n_kv_heads", first[0]), attrs.get("head_dim", first[1])
    return KvLayer(layer, heads, dim, attrs.get("window", 0))  # type: ignore[arg-type]
