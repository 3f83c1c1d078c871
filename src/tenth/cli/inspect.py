"""``tenth inspect``: how a model is computed. Its flat program, the kernels, time and bytes per instruction."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tenth.cli.flags import flag, known_models
from tenth.cli.opening import open_model, showing_progress
from tenth.cli.terminal import in_units, table, write_json, write_line
from tenth.config import EngineConfig
from tenth.errors import RequestError


@dataclass(frozen=True)
class InspectFlags:
    """What is shown."""

    program: bool = flag(False, "Print the flat program.", names=("--program",))
    kernels: bool = flag(False, "Print which weight formats have kernels for which instruction sets, and what this "
                         "CPU picks.", names=("--kernels",))
    profile: bool = flag(False, "Run the model and print time and bytes of each instruction.", names=("--profile",))
    profile_tokens: int = flag(32, "Tokens to generate for --profile.", min=2, metavar="N")
    json: bool = flag(False, "Print one JSON object.", names=("--json",))


def command(
    flags: InspectFlags,
    engine: EngineConfig,
    model: Annotated[str | None, typer.Argument(help="Name, file, URL or hf:ORG/REPO:QUANT; not needed for "
                                                     "--kernels.", show_default=False, metavar="MODEL",
                                                autocompletion=known_models)] = None,
) -> None:
    """Show how a model is computed: its program, its kernels, its profile.

    Without a flag: what its tensors are and how many instructions of each kind its program has.
    """
    if sum((flags.program, flags.kernels, flags.profile)) > 1:
        raise RequestError("--program, --kernels and --profile exclude each other")
    if flags.kernels:
        show_kernels(flags.json)
        return
    if model is None:
        raise RequestError("inspect needs a model", "for example: tenth inspect smollm2:135m --program")
    if flags.profile:
        show_profile(model, engine, flags)
    else:
        show_program(model, engine, flags)


def show_program(model: str, engine: EngineConfig, flags: InspectFlags) -> None:
    """The program of a model's file, planned but without reading its weights."""
    from tenth.library import resolve
    from tenth.loader import optimised_program, plan_limits
    from tenth.program.listing import listing
    from tenth.weights.gguf import read_header

    with showing_progress() as progress:
        path = resolve(model, progress=progress)
    header = read_header(path)
    program = optimised_program(header)
    limits = plan_limits(program, engine)
    if flags.program and not flags.json:
        write_line(listing(program))
        return
    overview = summary(header, program) | {"arena_bytes": limits.arena_bytes}
    if flags.json:
        if flags.program:
            overview["program"] = [as_data(instruction) for instruction in program.instructions]
        write_json(overview)
        return
    rows = [(key.replace("_", " ").removesuffix(" bytes"), _shown(key, value)) for key, value in overview.items()]
    write_line(table(rows))


def summary(header: Any, program: Any) -> dict[str, Any]:
    """Counts of what a file and its program hold."""
    formats: Counter[str] = Counter()
    for info in header.tensors.values():
        formats[info.format] += info.n_bytes
    return {
        "file": str(header.paths[0]), "architecture": program.architecture,
        "tensors": len(header.tensors), "weights_bytes": sum(formats.values()),
        "formats": dict(formats.most_common()), "context_tokens": program.context_tokens,
        "vocabulary": program.vocab_size, "layers": len(program.state), "instructions": len(program.instructions),
        "operations": dict(Counter(instruction.op for instruction in program.instructions).most_common()),
    }


def _shown(key: str, value: Any) -> str:
    if key == "formats":
        return ", ".join(f"{name} {in_units(n)}" for name, n in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {n}" for name, n in value.items())
    return in_units(value) if key.endswith("_bytes") else str(value)


def as_data(instruction: Any) -> dict[str, Any]:
    """One instruction for JSON."""
    def values(items: Any) -> list[dict[str, Any]]:
        return [{"name": v.name, "kind": v.kind, "rows": v.rows, "shape": list(v.shape), "dtype": v.dtype,
                 "offset": v.storage.offset} for v in items]

    return {"op": instruction.op, "inputs": values(instruction.inputs), "outputs": values(instruction.outputs),
            "attrs": instruction.attrs}


def show_profile(model: str, engine: EngineConfig, flags: InspectFlags) -> None:
    """Generates some tokens and prints what each instruction took per token."""
    from tenth.program.listing import Cost, listing

    engine = dataclasses.replace(engine, speculate=False)  # a step is a token
    with open_model(model, engine) as opened:
        loaded = opened.loaded
        for n_tokens in (2, flags.profile_tokens):  # a first run touches all memory, then the counters start
            loaded.runtime.reset_profile()
            for _ in opened.generate([1], max_tokens=n_tokens, ignore_eos=True, temperature=0.0):
                pass
        rows = loaded.runtime.profile()
    if flags.json:
        write_json({"model": str(getattr(opened, "name", model)), "instructions": [
            {"op": row.op, "calls": row.calls, "seconds": row.seconds, "weight_bytes": row.weight_bytes}
            for row in rows]})
        return
    costs = [Cost(row.calls, round(row.seconds * 1e9), row.weight_bytes * row.calls) for row in rows]
    write_line(listing(loaded.program, costs))


def show_kernels(as_json: bool) -> None:
    """Weight formats by the instruction sets this CPU can run. Needs no model."""
    from tenth import runtime

    isas, isa, formats = runtime.kernel_isas(), runtime.kernel_isa(), runtime.kernel_formats()
    if as_json:
        write_json({"isa": isa, "isas": isas, "formats": formats})
        return
    cells: list[tuple[str, ...]] = [("format", "weights", "bytes", "input", *isas)]
    for row in formats:
        marks = ("used" if name == isa else "yes" for name in isas)
        cells.append((row["format"], str(row["block_weights"]), str(row["block_bytes"]),
                      "int8" if row["q8_input"] else "float32", *marks))
    write_line(table(cells, right=frozenset({1, 2})))
    write_line()
    write_line(f"a block of so many weights takes so many bytes; this CPU uses {isa} (TENTH_ISA=NAME tries another)")
