"""How fast this machine's kernels are, by weight format and rows: a program made for it, run and timed.

One matrix of every format, attention, what stands between them and a vocabulary to sample from, with constant bytes for
weights: the time of a product does not depend on them. Times are those of ``bench.profile``.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenth.bench import profile
from tenth.bench.costs import Cost, StepShape, costs
from tenth.config import EngineConfig
from tenth.loader import plan_limits, read_by_products
from tenth.program.builder import (
    Builder,
    Weights,
    attention,
    embed,
    heads,
    linear,
    rms_norm,
    select_outputs,
    swiglu,
)
from tenth.program.passes import kept_as_floats, optimise
from tenth.program.values import Program
from tenth.runtime import MatrixSource, Runtime
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import TensorInfo

DIM, N_HEADS, N_KV_HEADS, HEAD_DIM = 2048, 16, 4, 128
N_ATTENTIONS = 3
VOCABULARY, NARROW = 1 << 15, 64  # many logits of few columns: sampling matters, their product does not
ROWS = (1, 16, 256)
FILL = b"\x3c"  # a normal number in every float format, and scales near 1: sums stay finite
CONTEXT, STEPS = 256, 9
PASSING = ("rms_norm_q8", "swiglu_q8", "add")  # ops that only pass over activations


@dataclass(frozen=True)
class KernelRates:
    """Multiply-adds per second of products, ``products[format]``, and of attention, one for each count of ``ROWS``.

    ``instruction_s``: what any instruction takes at least, with one row. ``activation_bytes_per_s``: of instructions
    that only pass over activations. ``sample_s``: of choosing a token, per token of the vocabulary. ``step_s``: of a
    step apart from its instructions and sampling.
    """

    products: dict[str, tuple[float, ...]]
    attention: tuple[float, ...]
    instruction_s: float
    activation_bytes_per_s: float
    sample_s: float
    step_s: float


def measure_kernels(threads: int, formats: Iterable[str] = tuple(FORMATS)) -> KernelRates:
    """Runs the program with every count of rows (about a second). Raises ResourceError when memory does not suffice."""
    config = EngineConfig(threads=threads, context_tokens=1024, chunk_tokens=max(ROWS), max_sequences=1)
    with tempfile.NamedTemporaryFile(prefix="tenth-") as file:
        path = Path(file.name)
        program, stored = product_program(list(formats), path)
        file.write(FILL * max(info.n_bytes for info in stored.values()))
        file.flush()
        floats = kept_as_floats(program)
        matrices = {name: MatrixSource(path, 0, info.n_bytes, FORMATS[info.format].gguf_id)
                    for name, info in stored.items() if name not in floats}
        vectors = {name: np.ones(stored[name].shape, np.float32) for name in floats}
        runtime = Runtime(program, matrices, vectors, plan_limits(program, config))
    measured = [time_steps(runtime, rows) for rows in ROWS]
    each = [costs(program, stored, config.kv_format, StepShape(rows, CONTEXT)) for rows in ROWS]
    runtime.close()
    return rates_of(each, measured)


@dataclass(frozen=True)
class Times:
    """Seconds of each instruction, of choosing a token and of the rest of a step."""

    instructions_s: Sequence[float]
    sample_s: float
    rest_s: float


def time_steps(runtime: Runtime, rows: int) -> Times:
    """Runs steps of so many rows behind CONTEXT tokens.

    The lower quartile counts: most of what is slower was disturbed, and what is faster followed upon an instruction
    for which a worker came late.
    """
    profile.fill(runtime, CONTEXT)
    batch, steps = profile.batch_of(StepShape(rows, CONTEXT)), []
    for _ in range(STEPS):
        runtime.reset_profile()
        started = time.perf_counter()
        runtime.step(batch)
        wall_s, counters = time.perf_counter() - started, runtime.step_counters()
        steps.append([row.seconds for row in runtime.profile()]
                     + [counters.sample_seconds, wall_s - counters.step_seconds - counters.sample_seconds])
    *instructions_s, sample_s, rest_s = np.percentile(steps, 25, axis=0).tolist()
    return Times(instructions_s, sample_s, rest_s)


def product_program(formats: Sequence[str], path: Path) -> tuple[Program, dict[str, TensorInfo]]:
    """(The program, its weights as if all lay in one file)."""
    kinds = {"token_embd": ("Q8_0", (VOCABULARY, NARROW)), "wide": ("Q8_0", (DIM, NARROW)),
             "narrow": ("Q8_0", (NARROW, DIM)), "output_norm": ("F32", (NARROW,)),
             "square": ("Q8_0", (DIM, DIM)), "key": ("Q8_0", (N_KV_HEADS * HEAD_DIM, DIM))}
    for name in formats:
        kinds |= {f"{name}.norm": ("F32", (DIM,)), f"{name}.matrix": (name, (DIM, DIM))}
    stored = {}
    for key, (name, shape) in kinds.items():
        kind, n_weights = FORMATS[name], int(np.prod(shape))
        full = f"{key}.weight"
        stored[full] = TensorInfo(full, shape, name, path, 0, n_weights // kind.block_weights * kind.block_bytes)
    builder = Builder({name: info.shape for name, info in stored.items()})
    w = Weights(builder)
    x = linear(embed(builder.inputs["tokens"], w.token_embd), w.wide)
    for name in formats:
        of_format = getattr(w, name)
        x = x + linear(rms_norm(x, of_format.norm, 1e-5), of_format.matrix)
    k = heads(linear(x, w.key), N_KV_HEADS)
    for layer in range(N_ATTENTIONS):
        y = attention(heads(x, N_HEADS), k, k, layer=layer, scale=HEAD_DIM**-0.5)
        x = x + linear(swiglu(y, x), w.square)
    few = linear(select_outputs(x), w.narrow)
    program = builder.finish(linear(rms_norm(few, w.output_norm, 1e-5), w.token_embd))
    return optimise(program, read_by_products(stored)), stored


@functools.cache
def program_bytes() -> int:
    """Bytes of all weights of the program."""
    return sum(info.n_bytes for info in product_program(list(FORMATS), Path())[1].values())


def rates_of(each: Sequence[Sequence[Cost]], measured: Sequence[Times]) -> KernelRates:
    """The rates, from the costs and the times of a step with each count of ROWS."""
    instruction_s = statistics.median(
        seconds for cost, seconds in zip(each[0], measured[0].instructions_s, strict=True) if not cost.memory_bytes)
    products: dict[str, tuple[float, ...]] = {}
    attention_rates = []
    for step, times in zip(each, measured, strict=True):
        found: dict[str, list[float]] = {}
        for cost, seconds in zip(step, times.instructions_s, strict=True):
            # Without what any instruction takes, but at least half of the time counts.
            rate = cost.multiply_adds / max(seconds - instruction_s, seconds / 2, 1e-9)
            if cost.op == "attention":
                found.setdefault("attention", []).append(rate)
            elif cost.label.endswith("matrix"):
                found.setdefault(cost.formats, []).append(rate)
        attention_rates.append(max(found.pop("attention")))
        products = {name: (*products.get(name, ()), max(rates)) for name, rates in found.items()}
    last = zip(each[-1], measured[-1].instructions_s, strict=True)
    passing = [(cost.activation_bytes, seconds) for cost, seconds in last if cost.op in PASSING]
    n_bytes, seconds = map(sum, zip(*passing, strict=True))
    return KernelRates(products, tuple(attention_rates), instruction_s, n_bytes / max(seconds, 1e-9),
                       measured[0].sample_s / VOCABULARY, measured[0].rest_s)
