"""What settings that change the text cost in quality: ``tenth bench --quality``. The figures are divergence.py's."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tenth.batch import F32
from tenth.bench.divergence import compare
from tenth.config import EngineConfig
from tenth.errors import RequestError, ResourceError
from tenth.model import Model

EXACT: dict[str, Any] = {"lossy_drop": 0.0, "lossy_prefer": 0.0, "kv_format": "f16", "prefill": "absorbed"}


@dataclass(frozen=True)
class Pass:
    """A text computed one token at a time, as if it were generated."""

    logits: F32
    seconds: float
    settings: dict[str, Any]  # those that may change the text
    experts: dict[str, Any]  # Model.expert_statistics

    @property
    def cost(self) -> dict[str, Any]:
        """What it took, for printing."""
        speed = len(self.logits) / self.seconds
        return {"settings": self.settings, "tokens_per_second": speed, "experts": self.experts}


def exact_settings(engine: EngineConfig) -> EngineConfig:
    """The same settings, but for those that change the text. Raises RequestError when there are none of these."""
    exact = replace(engine, **EXACT)
    if exact == engine:
        raise RequestError("these settings change nothing in what a model answers, so they cost no quality",
                           "add what is to be measured: --lossy-drop, --lossy-prefer, --kv or --prefill")
    return exact


def text_tokens(tokenize: Callable[[str], list[int]], file: Path, n: int) -> list[int]:
    """The first n + 1 tokens of a file. Raises RequestError when it has fewer, or cannot be read."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")[: 40 * (n + 1)]
    except OSError as error:
        raise RequestError(f"--quality {file}: {error.strerror}") from error
    ids = tokenize(text)[: n + 1]
    if len(ids) <= n:
        raise RequestError(f"--quality {file}: {len(ids)} tokens, expected more than {n}",
                           "give a longer text, or fewer --quality-tokens")
    return ids


def run_pass(model: Model, ids: Sequence[int]) -> Pass:
    """Logits after each of the ids, computed one by one."""
    model.loaded.runtime.reset_profile()
    started = time.perf_counter()
    logits = model.logits(list(ids), at_once=1)
    seconds = time.perf_counter() - started
    experts = model.expert_statistics()
    if experts:
        experts["read_bytes_per_token"] = int(experts["read_bytes"]) // len(ids)
    settings = {name: getattr(model.config, name) for name in EXACT}
    return Pass(logits, seconds, settings, experts)


def pass_in_a_process(file: Path, engine: EngineConfig, ids: Sequence[int]) -> Pass:
    """run_pass on a model opened by quality_driver. Raises ResourceError saying why there is no result."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "logits.npy"
        asked = {"model": str(file), "settings": asdict(engine), "ids": list(ids), "logits": str(kept)}
        command = [sys.executable, "-m", "tenth.bench.quality_driver"]
        done = subprocess.run(command, input=json.dumps(asked) + "\n", capture_output=True, text=True, check=False)
        if done.returncode:
            what, _, hint = (done.stderr.strip() or "it was ended").rpartition("\nhint: ")
            raise ResourceError(what or hint, hint if what else None)
        return Pass(logits=np.load(kept), **json.loads(done.stdout))


def figures(name: str, exact: Pass, changed: Pass, ids: Sequence[int]) -> dict[str, Any]:
    """Both passes as data."""
    quality = compare(name, changed.logits, exact.logits, ids)
    return {"quality": asdict(quality), "exact": exact.cost, "changed": changed.cost}


def lines(result: dict[str, Any]) -> list[str]:
    """The result in words."""
    q = result["quality"]
    parts = [
        f"{q['n_predictions']} predictions: KL divergence from exact {q['mean_kl']:.2e} ± {q['mean_kl_error']:.0e} "
        f"nats per token (median {q['median_kl']:.2e}, most {q['max_kl']:.2e})",
        f"perplexity {q['perplexity']:.4g}, {q['perplexity_ratio']:.4f} ± {q['perplexity_ratio_error']:.4f} times "
        f"exact's; same likeliest token {100 * q['top1_agreement']:.1f} %",
    ]
    for name in ("exact", "changed"):
        cost, experts = result[name], result[name]["experts"]
        line = f"{name}: {cost['tokens_per_second']:.3g} tokens/s"
        if experts:
            line += (f", {experts['read_bytes_per_token'] / 1e6:.0f} MB of experts read per token, "
                     f"{100 * experts['hit_rate']:.0f} % in memory when needed")
        if "dropped" in experts:
            line += f", {experts['dropped'] / q['n_predictions']:.1f} experts left out per token"
        parts.append(line)
    return parts
