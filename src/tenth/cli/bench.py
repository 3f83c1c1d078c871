"""``tenth bench MODEL``: how fast, what share of this machine's measured limits, and against llama.cpp."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenth.bench import limits, speculation
from tenth.bench.machine import QUIET_SHARE, Machine, busy_share, read_machine
from tenth.bench.measure import Shape, Tenth, prompt_ids, take_turns
from tenth.bench.report import figures, lines, summary
from tenth.bench.work import count
from tenth.cli.flags import ModelArgument, flag
from tenth.cli.opening import StatusLine, open_model, showing_progress
from tenth.cli.terminal import expert_line, figure, in_units, message, table, write_json, write_line
from tenth.config import EngineConfig
from tenth.errors import RequestError

if TYPE_CHECKING:
    from tenth.forecast.probe import Probe

DISK_SECONDS = 2.0


@dataclass(frozen=True)
class BenchFlags:
    """What is measured."""

    prompt_tokens: int = flag(512, "Tokens of the prompt.", min=2, metavar="N")
    generate_tokens: int = flag(128, "Tokens to generate.", min=2, metavar="N")
    repetitions: int = flag(5, "Turns measured, after one to warm up.", min=1, metavar="N")
    speculation: bool = flag(False, "Measure instead what guessing at tokens gains, on texts that repeat their prompt.",
                             names=("--speculation",))
    quality: Path | None = flag(None, "Measure instead what settings that change the text cost in quality: this text "  # noqa: RUF009
                                "goes through the model token by token, exactly and with them.", metavar="FILE")
    quality_tokens: int = flag(500, "Tokens of that text to predict.", min=2, metavar="N")
    json: bool = flag(False, "Print one JSON object.", names=("--json",))


@dataclass(frozen=True)
class PeerFlags:
    """Whom tenth is measured against."""

    against: str | None = flag(None, "Measure a peer in turn, on the same file, threads and prompt: llama.cpp.",
                               metavar="PEER")
    install_peer: bool = flag(False, "Install the peer's PyPI package in the data folder first.",
                              names=("--install-peer",))
    against_bin: Path | None = flag(None, "Measure this llama-bench in turn.", metavar="PATH")  # noqa: RUF009
    against_args: str = flag("", "Further arguments for --against-bin, in one string.", metavar="ARGS")


def command(model: ModelArgument, flags: BenchFlags, peers: PeerFlags, engine: EngineConfig) -> None:
    """Measure how fast a model runs, and its share of what this machine could do.

    Prompt processing is set against the measured rate of byte multiply-adds, generation against the measured read
    bandwidth; both limits are measured again beside every turn.
    """
    check(peers)
    machine = read_machine()
    if flags.speculation:
        show_speculation(model, flags, engine, machine)
        return
    if flags.quality:
        show_quality(model, flags.quality, flags, engine)
        return
    shape = Shape(flags.prompt_tokens, flags.generate_tokens, flags.repetitions)
    engine = settled(engine, shape, machine)
    probe = probe_before(model, engine.threads)
    with open_model(model, engine) as opened:
        result = run(opened, shape, engine, peers, machine, probe)
    if flags.json:
        write_json(result)
    else:
        show(result)


def show_speculation(model: str, flags: BenchFlags, engine: EngineConfig, machine: Machine) -> None:
    """Measures and prints what guessing gains."""
    engine = dataclasses.replace(engine, threads=engine.threads or machine.cores)
    busy, status = warn_if_busy(), StatusLine()
    with open_model(model, engine) as opened:
        try:
            texts = speculation.measure(opened, flags.generate_tokens, flags.repetitions,
                                        lambda what, done, total: status(f"{what}, {done} of {total} turns", 0, 0))
        finally:
            status.clear()
        name = str(opened.name)
    if flags.json:
        write_json({"model": name, "threads": engine.threads, "repetitions": flags.repetitions,
                    "settings": dataclasses.asdict(engine), "busy_share": busy,
                    "machine": dataclasses.asdict(machine), "texts": texts})
        return
    write_line(f"{name}, {engine.threads} threads, median of {flags.repetitions} turns")
    write_line(f"{machine.cpu}")
    write_line()
    write_line(table(speculation.lines(texts), right=frozenset(range(1, 7))))


def show_quality(model: str, text: Path, flags: BenchFlags, engine: EngineConfig) -> None:
    """Measures and prints what settings that change the text cost."""
    import tenth
    from tenth.bench import quality
    from tenth.library import resolve

    engine = dataclasses.replace(engine, context_tokens=engine.context_tokens or flags.quality_tokens + 1)
    exact, file = quality.exact_settings(engine), resolve(model)
    ids = quality.text_tokens(tenth.open_tokenizer(file).encode, text, flags.quality_tokens)
    message(f"note: {flags.quality_tokens} tokens one by one, twice")
    first, second = (quality.pass_in_a_process(file, settings, ids[:-1]) for settings in (exact, engine))
    result = quality.figures(model, first, second, ids)
    if flags.json:
        write_json({"model": model, "text": str(text)} | result)
        return
    changed = ", ".join(f"{setting} {value}" for setting, value in result["changed"]["settings"].items()
                        if value != result["exact"]["settings"][setting])
    write_line(f"{model}, {changed}")
    for line in quality.lines(result):
        write_line(line)


def warn_if_busy() -> float:
    """The share of the CPUs that others use, said when figures will suffer from it."""
    busy = busy_share()
    if busy > QUIET_SHARE:
        message(f"note: other programs use {100 * busy:.0f} % of the CPUs; figures will be low, and a ratio to a peer "
                "says little: threads that wait for each other suffer unevenly")
    return busy


def check(peers: PeerFlags) -> None:
    """Raises RequestError for peer flags that cannot be used."""
    if peers.against not in (None, "llama.cpp"):
        raise RequestError(f"--against knows no peer {peers.against!r}", "there is: llama.cpp")
    if peers.against and peers.against_bin:
        raise RequestError("--against and --against-bin exclude each other")
    if peers.install_peer and not peers.against:
        raise RequestError("--install-peer needs --against llama.cpp")
    if peers.against_args and not peers.against_bin:
        raise RequestError("--against-args needs --against-bin")


def settled(engine: EngineConfig, shape: Shape, machine: Machine) -> EngineConfig:
    """The settings with everything decided that both sides must share; no reuse, no guesses."""
    return dataclasses.replace(
        engine, threads=engine.threads or machine.cores, prefix_reuse=False, speculate=False,
        context_tokens=engine.context_tokens or max(shape.n_prompt, shape.n_generate) + 64)


def probe_before(model: str, threads: int) -> Probe:
    """The probe of this machine, measured now if need be: once it is open, a model within a budget leaves no room."""
    from tenth.forecast.probe import get_probe
    from tenth.library import resolve

    with showing_progress() as progress:
        path = resolve(model, progress=progress)
    return get_probe(path, threads)


def run(model: Any, shape: Shape, engine: EngineConfig, peers: PeerFlags, machine: Machine, probe: Probe
        ) -> dict[str, Any]:
    """Measures and gives everything as one object."""
    loaded = model.loaded
    work = count(loaded.program, loaded.stored, engine.kv_format)
    file = Path(loaded.header.paths[0])
    ids = prompt_ids(model, shape.n_prompt)
    n_bytes = limits.buffer_beside_models(machine.l3_bytes, machine.available_bytes)

    def machine_limits() -> tuple[limits.Rate, limits.Rate]:
        return (limits.read_bandwidth(engine.threads, 0.5, n_bytes), limits.int8_rate(engine.threads, 0.2))

    busy, status, own = warn_if_busy(), StatusLine(), Tenth(model, ids, shape)
    disk = disk_rates(loaded)
    with peer_for(peers, file, engine.threads, ids, shape) as peer:
        try:
            turns = take_turns(own, peer, machine_limits, shape.repetitions,
                               lambda what, done, total: status(f"{what}, {done} of {total} steps", 0, 0))
        finally:
            status.clear()
        result: dict[str, Any] = {"model": str(model.name), "file": str(file), "threads": engine.threads,
                  "repetitions": shape.repetitions, "settings": dataclasses.asdict(engine),
                  "busy_share": busy, "machine": dataclasses.asdict(machine)} | figures(turns, work, shape)
        if disk := disk + disk_rates(loaded):
            result["limits"]["disk_bytes_per_second"] = summary(disk)
        if experts := model.expert_statistics():
            result["experts"] = experts
        result["predicted"] = predicted(loaded, engine, shape, result["limits"], own.read_bytes_per_token, probe)
        if peer is not None:
            result["peer"] = {"name": peer.name, "version": peer.version, "command": peer.command} | result["peer"]
    return result


def disk_rates(loaded: Any) -> list[float]:
    """How fast slices of experts are read past the page cache now, bytes per second; empty when all are in memory."""
    from tenth.forecast.speed import slice_bytes

    if not loaded.placement.streams:
        return []
    n_bytes = int(slice_bytes(loaded.program, loaded.stored))
    return [limits.random_read_rate(Path(loaded.header.paths[0]), n_bytes, DISK_SECONDS).median]


def predicted(loaded: Any, engine: EngineConfig, shape: Shape, beside: dict[str, Any],
              read_bytes: float | None, probe: Probe) -> dict[str, Any]:
    """What ``tenth plan`` expects of the same work, at the limits measured beside it; ``planned_``: at the probe's.

    ``read_bytes``: of experts, by a token. The share that it did not read is the hit rate, noted for the next plan.
    """
    from tenth.forecast.outlook import Outlook
    from tenth.forecast.speed import expert_bytes, slice_bytes
    from tenth.observed import note, observed

    placement = loaded.placement
    now = probe.scaled(*(beside[name]["median"] for name in ("read_bytes_per_second", "int8_multiply_adds_per_second")))
    if disk := beside.get("disk_bytes_per_second"):
        now = now.on_disk(disk["median"], slice_bytes(loaded.program, loaded.stored))
    result: dict[str, Any] = {}
    for start, rates in (("planned_", probe), ("", now)):
        outlook = Outlook.of(loaded.header, engine, rates, observed(loaded.header))
        generation = outlook.generation(placement, outlook.step_behind(shape.n_generate // 2))
        prompt = outlook.first_token(placement, shape.n_prompt, is_warm=True)
        result |= {f"{start}prompt": prompt.likely, f"{start}generation": generation.likely,
                   f"{start}prompt_bound": prompt.bound, f"{start}generation_bound": generation.bound}
    hit_rate = None
    if read_bytes is not None:
        needed = expert_bytes(outlook.layout.program, outlook.layout.stored, 1)
        hit_rate = max(1 - read_bytes / needed, 0.0)
        note(loaded.header, outlook.cached_fraction(placement), hit_rate)
    return result | {"hit_rate": outlook.hits(placement), "measured_hit_rate": hit_rate}


def peer_for(peers: PeerFlags, file: Path, threads: int, ids: list[int], shape: Shape) -> AbstractContextManager[Any]:
    """The peer asked for, ready to be entered; entering gives None when none is."""
    from tenth.bench import peer

    if peers.against_bin is not None:
        try:
            extra = shlex.split(peers.against_args)
        except ValueError as error:
            raise RequestError(f"--against-args cannot be split: {error}") from None
        return peer.BinaryPeer(peers.against_bin, file, threads, shape, extra)
    if peers.against is None:
        return contextlib.nullcontext(None)
    if peers.install_peer:
        message(f"installing {peer.PACKAGE} in {peer.private_folder()}")
        return peer.PackagePeer(file, threads, ids, shape, peer.install())
    return peer.PackagePeer(file, threads, ids, shape, peer.find_interpreter())


def prediction_line(result: dict[str, Any]) -> str:
    """What was predicted, beside what was measured."""
    predicted, parts = result["predicted"], []
    for part in ("prompt", "generation"):
        ratio = predicted[part] / max(result[part]["tokens_per_second"]["median"], 1e-9)
        parts.append(f"{part} {figure(predicted[part])} tokens/s ({100 * (ratio - 1):+.0f} %, bound by "
                     f"{predicted[part + '_bound']})")
    if predicted["measured_hit_rate"] is not None:
        seen = predicted["measured_hit_rate"]
        parts.append(f"hit rate {100 * predicted['hit_rate']:.0f} % ({100 * seen:.0f} % seen)")
    return f"predicted as tenth plan does, at these limits: {', '.join(parts)}"


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    read = result["limits"]["read_bytes_per_second"]
    int8 = result["limits"]["int8_multiply_adds_per_second"]
    generation = result["generation"]
    write_line(f"{result['model']}, {result['threads']} threads, median of {result['repetitions']} turns")
    write_line(f"{result['machine']['cpu']}")
    write_line()
    write_line(table(lines(result), right=frozenset({1, 2, 3, 4, 5})))
    write_line()
    state = generation["state_bytes_per_token"]
    write_line(f"a generated token touches {in_units(generation['bytes_per_token'])}: "
               f"{in_units(generation['weight_bytes_per_token'])} of weights, "
               f"{in_units(generation['kv_bytes_per_token'])} of keys and values"
               + (f", {in_units(state)} of recurrent state" if state else ""))
    write_line(f"limits measured beside each turn: read {in_units(read['median'])}/s "
               f"(spread {100 * read['spread']:.0f} %), "
               f"int8 {int8['median'] / 1e9:.0f} G multiply-adds/s (spread {100 * int8['spread']:.0f} %)")
    if disk := result["limits"].get("disk_bytes_per_second"):
        write_line(f"before and after: disk {in_units(disk['median'])}/s (spread {100 * disk['spread']:.0f} %)")
    if experts := result.get("experts"):
        write_line(expert_line(experts))
    write_line(prediction_line(result))
    if "peer" in result:
        write_line(f"peer: {result['peer']['version'] or result['peer']['name']}")
    sys.stdout.flush()
