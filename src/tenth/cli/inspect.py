"""``tenth inspect``: how a model is computed. Its flat program, the kernels, time and bytes per instruction."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenth.cli.flags import flag, known_models
from tenth.cli.opening import open_model, showing_progress
from tenth.cli.terminal import in_units, table, write_json, write_line
from tenth.config import CHUNK_TOKENS, EngineConfig
from tenth.errors import RequestError, ResourceError

if TYPE_CHECKING:
    from tenth.bench.profile import PhaseProfile


@dataclass(frozen=True)
class InspectFlags:
    """What is shown."""

    program: bool = flag(False, "Print the flat program.", names=("--program",))
    kernels: bool = flag(False, "Print which weight formats have kernels for which instruction sets, and what this "
                         "CPU picks.", names=("--kernels",))
    profile: bool = flag(False, "Run the model and print time, bytes and multiply-adds of its instructions, and their "
                         "share of this machine's measured limits.", names=("--profile",))
    phase: str = flag("both", "What --profile measures: generation (one row a step), prompt (--chunk-tokens rows a "
                      "step) or both.", metavar="PHASE")
    profile_tokens: int = flag(32, "Tokens to generate for --profile.", min=2, metavar="N")
    profile_context: int | None = flag(None, "Tokens in the context before what --profile measures; default: 256, or "
                                       "what fits.", min=0, metavar="N")
    all: bool = flag(False, "List every instruction with --profile, in the order of the program.", names=("--all",))
    svg: Path | None = flag(None, "Also write --profile as a roofline picture.", metavar="FILE")  # noqa: RUF009
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
    if not flags.profile and (flags.all or flags.svg or flags.phase != "both"):
        raise RequestError("--phase, --all and --svg need --profile")
    if flags.phase not in ("generation", "prompt", "both"):
        raise RequestError(f"--phase is {flags.phase!r}, expected generation, prompt or both")
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
    from tenth.loader import lay_out, lay_out_within, running_program
    from tenth.program.listing import listing
    from tenth.runtime import slot_bytes
    from tenth.weights.budget import memory_budget
    from tenth.weights.gguf import read_header

    with showing_progress() as progress:
        path = resolve(model, progress=progress)
    header = read_header(path)
    try:
        layout, placement = lay_out_within(header, engine, memory_budget(engine.memory_bytes))
        program = running_program(layout.program, placement, engine)
        placed = placement.as_data() | {"slots": dict(placement.n_slots), "warning": placement.warning}
    except ResourceError as error:  # a program can be read where it does not fit
        layout = lay_out(header, engine)
        program, placed = layout.program, {"does_not_fit": error.message, "hint": error.hint}
    if flags.program and not flags.json:
        write_line(listing(program))
        return
    overview = summary(header, program) | {"arena_bytes": layout.limits.arena_bytes}
    if program.recurrences:
        overview["sequence_state_bytes"] = slot_bytes(program)
    overview["placement"] = placed
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
        "vocabulary": program.vocab_size, "layers": len(_layers(program)), "instructions": len(program.instructions),
        "operations": dict(Counter(instruction.op for instruction in program.instructions).most_common()),
    }


def _layers(program: Any) -> set[str]:
    """The numbers of the layers that have weights."""
    return {name.split(".")[1] for name in program.weights if name.startswith("blk.")}


def _shown(key: str, value: Any) -> str:
    if key == "placement":
        parts = [(name.removesuffix("_bytes").replace("_", " "), in_units(n) if name.endswith("_bytes") else n)
                 for name, n in value.items() if n or name == "streams"]
        return ", ".join("experts streamed" if amount is True else "all in memory" if amount is False
                         else f"{name} {amount}" for name, amount in parts)
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
    """Runs steps of both phases and prints what each kind of instruction took."""
    from tenth.bench import profile_report as report
    from tenth.bench.roofline import svg

    if flags.svg is not None and not flags.svg.parent.is_dir():
        raise RequestError(f"--svg {flags.svg}: there is no such folder")
    engine = dataclasses.replace(with_context(engine, flags), speculate=False)  # a step is a token
    with open_model(model, engine) as opened:
        profiles = run_profile(opened, flags)
        name, isa = str(getattr(opened, "name", model)), opened.loaded.runtime.isa
        threads, loading = opened.loaded.runtime.n_threads, opened.load_costs()
    title = f"{name}, {threads} threads, {isa}"
    if flags.svg is not None:
        try:
            flags.svg.write_text(svg(title, profiles))
        except OSError as error:
            raise ResourceError(f"cannot write {flags.svg}: {error.strerror}") from error
    if flags.json:
        write_json({"model": name, "threads": threads, "isa": isa, "loading": loading,
                    "phases": [report.as_data(profile) for profile in profiles]})
        return
    write_line(title)
    write_line(report.loading_line(loading))
    for profile in profiles:
        write_line(f"\n{report.heading(profile)}\n")
        write_line(table(report.group_table(profile), report.RIGHT))
        write_line("\nevery instruction" if flags.all else f"\nthe {report.N_TOP} that take most time")
        write_line(table(report.instruction_table(profile, flags.all), report.RIGHT))
        write_line()
        for line in report.rest_lines(profile):
            write_line(line)
    write_line(f"\n{report.FOOTNOTE}")


def with_context(engine: EngineConfig, flags: InspectFlags) -> EngineConfig:
    """The settings with room for the context that was asked for."""
    needed = (flags.profile_context or 0) + max(flags.profile_tokens, engine.chunk_tokens or CHUNK_TOKENS)
    if flags.profile_context is None or engine.context_tokens >= needed:
        return engine
    return dataclasses.replace(engine, context_tokens=needed)


def run_profile(opened: Any, flags: InspectFlags) -> list[PhaseProfile]:
    """The phases asked for, with the limits measured beside each."""
    from tenth.bench import limits, profile
    from tenth.bench.machine import read_machine

    loaded, runtime, machine = opened.loaded, opened.loaded.runtime, read_machine()
    n_bytes = limits.buffer_beside_models(machine.l3_bytes, machine.available_bytes)
    first, n_tokens, n_rows = profile.fitted(runtime.context_tokens, flags.profile_context, flags.profile_tokens,
                                             loaded.config.chunk_tokens)

    def rates() -> profile.LimitRates:
        return profile.LimitRates(limits.read_bandwidth(runtime.n_threads, 0.5, n_bytes).best,
                                  limits.int8_rate(runtime.n_threads, 0.2).best)

    def run(phase: str) -> PhaseProfile:
        if phase == "prompt":
            return profile.profile_prompt(runtime, loaded, first, n_rows)
        engine_s = profile.engine_seconds(opened, runtime, n_tokens - 1)  # before anything overwrites its pages
        measured = profile.profile_generation(runtime, loaded, first, n_tokens)
        measured.rest = dataclasses.replace(measured.rest, engine=engine_s)
        return measured

    phases = profile.PHASES if flags.phase == "both" else (flags.phase,)
    return profile.measure_phases(phases, run, rates)


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
                      {"q8": "int8", "bf16": "bfloat16", "f32": "float32"}[row["input"]], *marks))
    write_line(table(cells, right=frozenset({1, 2})))
    write_line()
    write_line(f"a block of so many weights takes so many bytes; this CPU uses {isa} (TENTH_ISA=NAME tries another)")
