"""``tenth plan MODEL``: will it run here, and how fast. From a file, or from the header of one that is elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenth.bench.machine import QUIET_SHARE
from tenth.cli.flags import ModelArgument, flag
from tenth.cli.opening import StatusLine
from tenth.cli.terminal import figure, in_units, message, table, write_json, write_line
from tenth.config import EngineConfig
from tenth.errors import RequestError, ResourceError

if TYPE_CHECKING:
    from tenth.forecast.mixes import Choice
    from tenth.forecast.outlook import Outlook
    from tenth.weights.budget import Budget
    from tenth.weights.gguf import ModelFile


@dataclass(frozen=True)
class PlanFlags:
    """What is asked."""

    prompt_tokens: int = flag(128, "Tokens of the prompt whose first answer is timed.", min=1, max=1 << 20, metavar="N")
    plot: Path | None = flag(None, "Draw speed against memory budget: a name ending in .svg or .png.",  # noqa: RUF009
                             metavar="FILE")
    probe: bool = flag(False, "Measure this machine again, though it was measured before.", names=("--probe",))
    json: bool = flag(False, "Print one JSON object.", names=("--json",))


@dataclass(frozen=True)
class Subject:
    """The model in question. ``files``: what else its repository holds, name -> bytes."""

    name: str
    header: ModelFile
    path: Path | None  # where it lies, if it does here
    files: dict[str, int]


def command(model: ModelArgument, flags: PlanFlags, engine: EngineConfig) -> None:
    """Say whether a model would run here, and how fast, without loading it.

    Of a model that is not here only the header is fetched. This machine is measured the first time (some seconds).
    Exit code 4 when the model does not fit into its memory.
    """
    from tenth.forecast.outlook import Outlook
    from tenth.observed import observed
    from tenth.weights.budget import memory_budget

    check(flags)
    with subject_of(model) as subject:
        status = StatusLine()
        try:
            outlook = Outlook.of(subject.header, engine, probed(subject.path, engine, flags.probe, status),
                                 observed(subject.header))
        finally:
            status.clear()
        budget = memory_budget(engine.memory_bytes)
        result, refusal = gathered(subject, outlook, budget, flags)
    if flags.plot and result["curve"]:
        from tenth.forecast.chart import write

        write(flags.plot, f"{result['model']}: generation on this machine", result["curve"], budget.n_bytes)
    if flags.json:
        write_json(result)
    else:
        show(result)
    if refusal:
        raise refusal


def check(flags: PlanFlags) -> None:
    """Raises RequestError for what cannot be drawn, before anything slow."""
    if flags.plot and flags.plot.suffix.lower() not in (".svg", ".png"):
        raise RequestError(f"--plot {flags.plot}: the name must end in .svg or .png")
    if flags.plot and not flags.plot.parent.is_dir():
        raise RequestError(f"--plot {flags.plot}: there is no such folder")


@contextmanager
def subject_of(name: str) -> Iterator[Subject]:
    """The model: from its file when it is here, else its header from where it is.

    Raises RequestError for a catalogue model that is not here: its packages have no header to read.
    """
    from tenth.library.remote import remote_header
    from tenth.library.resolving import here, interpret
    from tenth.library.sources import Remote
    from tenth.library.sources.hub import HubModel
    from tenth.weights.gguf import read_header

    path, source = here(name), interpret(name)
    if path is not None:
        header = read_header(path)
        yield Subject(_title(header, path.stem), header, path, {})
        return
    if not isinstance(source, Remote):
        size = in_units(getattr(source, "size_bytes", 0))
        raise RequestError(f"{name} is not here, and only its whole file can be had",
                           f"`tenth pull {name}` downloads it ({size})")
    files: dict[str, int] = {}
    if isinstance(source, HubModel):
        files = source.quants()
        if len(files) > 1 and not source.quant:  # any file tells the shapes: the smallest
            source = source.choosing(min(files, key=lambda name: files[name]).rpartition("/")[2])
    with remote_header(source) as header:
        yield Subject(_title(header, name), header, None, files)


def _title(header: ModelFile, otherwise: str) -> str:
    return header.metadata.get_str("general.name", default="") or otherwise


def probed(path: Path | None, engine: EngineConfig, again: bool, status: StatusLine) -> Any:
    """The probe of this machine. Tests put one of their own here."""
    from tenth.forecast.probe import get_probe

    probe = get_probe(path, engine.threads, again, lambda what: status(f"measuring {what}", 0, 0))
    if probe.busy > QUIET_SHARE:
        message(f"note: other programs used {100 * probe.busy:.0f} % of the CPUs when this machine was measured, so "
                "everything is predicted too slow; --probe measures again")
    return probe


def gathered(subject: Subject, outlook: Outlook, budget: Budget,
             flags: PlanFlags) -> tuple[dict[str, Any], ResourceError | None]:
    """(Everything that is said, the error when the model does not fit)."""
    from tenth.forecast import mixes
    from tenth.forecast.outlook import as_data, budgets, curve

    header, probe = subject.header, outlook.probe
    result: dict[str, Any] = {
        "model": subject.name, "architecture": header.metadata.architecture, "file_bytes": header.size_bytes,
        "budget_bytes": budget.n_bytes, "budget_source": budget.source, "fits": True,
        "machine": {"cpu": probe.cpu, "isa": probe.isa, "threads": probe.threads, "read_bytes_per_second": probe.read,
                    "int8_multiply_adds_per_second": probe.int8, "disk_bytes_per_second": probe.disk}}
    refusal = None
    try:
        placement = outlook.placed(budget.n_bytes, budget.source)
        result |= as_data(outlook, placement, flags.prompt_tokens) | {"warning": placement.warning}
    except ResourceError as error:
        refusal = error
        result |= {"fits": False, "error": error.message, "hint": error.hint}
    places = budgets(outlook, budget.n_bytes)
    result["curve"] = curve(outlook, places)
    choices = ([*mixes.listed(header, outlook, budget.n_bytes, subject.files)] if subject.files else
               [mixes.this_file(header, outlook, budget.n_bytes), *mixes.estimates(header, outlook, budget.n_bytes)])
    best = mixes.best(choices)
    result["quantisations"] = [_as_data(choice, choice is best) for choice in choices]
    return result, refusal


def _as_data(choice: Choice, is_best: bool) -> dict[str, Any]:
    return {"name": choice.name, "file_bytes": choice.file_bytes, "bits_per_weight": round(choice.bits_per_weight, 2),
            "estimate": choice.is_estimate, "fits": choice.rate is not None,
            "streams": bool(choice.placement and choice.placement.streams),
            "tokens_per_second": choice.rate.likely if choice.rate else None, "best": is_best}


def show(result: dict[str, Any]) -> None:
    """The plan for people."""
    machine = result["machine"]
    disk = ", ".join(f"{in_units(rate)}/s in {size >> 10} KiB"
                     for size, rate in machine["disk_bytes_per_second"].items())
    write_line(f"{result['model']}, {in_units(result['file_bytes'])}, budget {in_units(result['budget_bytes'])} "
               f"({result['budget_source']})")
    write_line(f"{machine['cpu']}, {machine['threads']} threads, {machine['isa']}: memory "
               f"{in_units(machine['read_bytes_per_second'])}/s, "
               f"{machine['int8_multiply_adds_per_second'] / 1e9:.0f} G int8 multiply-adds/s, disk {disk}")
    write_line()
    if result["fits"]:
        write_line(table(rows(result)))
    else:
        write_line("does not fit")
    if result.get("task", "generate") != "generate":
        return  # what follows is about generating
    if len(result["curve"]) > 1:
        from tenth.forecast.chart import bars

        encoding = (getattr(sys.stdout, "encoding", "") or "").lower()
        write_line("\ngeneration, by memory budget")
        for line in bars(result["curve"], "█" if encoding.startswith("utf") else "#"):
            write_line(line)
    show_quantisations(result["quantisations"])


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """What is said of a model that fits."""
    from tenth.forecast.outlook import REASONS

    placement, streams, generation, prompt = (result[k] for k in ("placement", "streams", "generation", "prompt"))
    kinds = ", ".join(f"{kind} {in_units(n)}" for kind, n in result["resident_bytes"].items())
    found: list[tuple[str, ...]] = [
        ("weights always in memory", f"{in_units(placement['trunk_bytes'])} ({kinds})"),
        ("keys and values", f"{in_units(placement['kv_bytes'])} for {placement['context_tokens']} tokens"),
        ("workspace and Python", f"{in_units(placement['workspace_bytes'])}, {in_units(placement['python_bytes'])}"),
    ]
    if streams:
        found += [
            ("experts", f"{in_units(placement['expert_slot_bytes'])} of {in_units(placement['experts_bytes'])} in "
             f"memory: {streams['slots']} slots for {streams['slices']} slices "
             f"({100 * streams['cached_share']:.0f} %), "
             f"the experts of {streams['tokens_held']} tokens"),
            ("expected hit rate", f"{100 * streams['hit_rate']:.0f} % ({streams['hit_rate_source']}"
             + (f"; if all experts are used alike, {100 * streams['hit_rate_least']:.0f} %: running it here will tell)"
                if streams["hit_rate_least"] < streams["hit_rate"] else ")")),
        ]
    elif placement["experts_bytes"]:
        found.append(("experts", f"{in_units(placement['experts_bytes'])}, all in memory"))
    per_token = result["per_token"]
    found += [
        ("a token reads", f"{in_units(per_token['memory_bytes'])} of memory, "
         f"{in_units(per_token['disk_bytes'])} of disk"),
        ("loading", f"{result['load_s']:.1f} s from the disk"),
    ]
    if result["task"] == "generate":
        found += speeds(generation, prompt)
    else:
        found.append(("reading", f"{figure(prompt['tokens_per_second'])} tokens/s in texts of {prompt['n_tokens']} "
                      f"tokens, bound by {REASONS[prompt['bound']]}"))
    if result["warning"]:
        found.append(("note", result["warning"]))
    return found


def speeds(generation: dict[str, Any], prompt: dict[str, Any]) -> list[tuple[str, ...]]:
    """How fast a model that writes text answers."""
    from tenth.forecast.outlook import REASONS

    return [
        ("first token", f"{figure(prompt['first_token_s'])} s after a prompt of {prompt['n_tokens']} tokens "
         f"({figure(prompt['first_token_least_s'])} to {figure(prompt['first_token_most_s'])}), bound by "
         f"{REASONS[prompt['bound']]}"),
        ("generation", f"{figure(generation['tokens_per_second'])} tokens/s ({figure(generation['low'])} to "
         f"{figure(generation['high'])}), bound by {REASONS[generation['bound']]}"),
    ]


def show_quantisations(choices: list[dict[str, Any]]) -> None:
    """The table of other quantisations."""
    write_line("\nquantisations (* estimated from the shapes)")
    cells: list[tuple[str, ...]] = [("", "file", "bits a weight", "tokens/s", "")]
    for choice in choices:
        speed = figure(choice["tokens_per_second"]) if choice["fits"] else "does not fit"
        notes = [words for words, holds in (("reads experts from disk", choice["streams"]),
                                            ("best here", choice["best"])) if holds]
        cells.append((choice["name"] + (" *" if choice["estimate"] else ""), in_units(choice["file_bytes"]),
                      f"{choice['bits_per_weight']:.2f}", speed, ", ".join(notes)))
    write_line(table(cells, right=frozenset({1, 2, 3})))
