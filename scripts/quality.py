"""How far an engine's next-token distributions are from exact arithmetic on the same model file.

    python scripts/quality.py MODEL.gguf                        what is measured already; measures what is missing
    python scripts/quality.py MODEL.gguf --engine tenth --json

The reference is scripts/exact.py: the file's own weights, decoded, and float64 from there on. So the figures say what
an engine's arithmetic costs, not what quantising the model cost. Text: the first 501 tokens of
tests/data/ordinary_text.txt, that is 500 predictions, computed as one sequence in one call.

What the figures are stands in src/tenth/bench/divergence.py.

Engines: exact; int8, f16kv, int8+f16kv (exact with one or both of the roundings that engines use;
beside BF16 weights int8 is bfloat16); llama.cpp (its
defaults: float16 KV), llama.cpp-f32kv; tenth (its defaults: float16 KV), tenth-bf16kv, tenth-q8kv. Each engine's
package is imported only when it has to be measured, so engines can be measured from different environments: logits (but
never tenth's) are kept in --cache. exact needs gguf and torch, llama.cpp needs llama-cpp-python, tenth needs tenth;
where no engine is named, those that are neither kept nor installed are left out, and a line says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "src"))  # where tenth is not installed: this needs numpy alone
from tenth.bench.divergence import compare

TEXT = Path(__file__).parent.parent / "tests" / "data" / "ordinary_text.txt"
N_PREDICTIONS = 500


def exact(activations: str = "exact", kv: str = "exact") -> Callable[[Path, list[int]], np.ndarray]:
    """An engine function for exact.py with the given roundings."""

    def logits(path: Path, tokens: list[int]) -> np.ndarray:
        from exact import ExactModel

        return ExactModel(path, activations=activations, kv=kv).logits(np.array(tokens)).astype(np.float32)

    return logits


def llama_cpp(kv: str) -> Callable[[Path, list[int]], np.ndarray]:
    """An engine function for llama.cpp: kv "f16" is its default with flash attention on auto, "f32" has it off."""

    def logits(path: Path, tokens: list[int]) -> np.ndarray:
        import llama_peer

        return llama_peer.logits(path, tokens, kv)

    return logits


def tenth(kv: str) -> Callable[[Path, list[int]], np.ndarray]:
    """An engine function for tenth at its default settings, but for the format of keys and values."""

    def logits(path: Path, tokens: list[int]) -> np.ndarray:
        import tenth as engine

        with engine.load(str(path), kv=kv) as model:
            return np.asarray(model.logits(tokens), dtype=np.float32)

    return logits


ENGINES: dict[str, Callable[[Path, list[int]], np.ndarray]] = {
    "exact": exact(),
    "int8": exact(activations="q8"),
    "f16kv": exact(kv="f16"),
    "int8+f16kv": exact(activations="q8", kv="f16"),
    "llama.cpp": llama_cpp("f16"),
    "llama.cpp-f32kv": llama_cpp("f32"),
    "tenth": tenth("f16"),
    "tenth-bf16kv": tenth("bf16"),
    "tenth-q8kv": tenth("q8_0"),
}


def encode(path: Path, text: str) -> list[int]:
    """By llama.cpp, or by tenth where that is not installed: the same tokens."""
    try:
        import llama_peer
    except ImportError:
        import tenth as engine

        with engine.load(str(path)) as model:
            return list(model.tokenize(text))
    return llama_peer.tokenize(path, text)


def read_tokens(path: Path, cache: Path) -> list[int]:
    """The first 501 tokens of the text, begin token included where the file asks for one."""
    kept = cache / "tokens.json"
    if not kept.exists():
        tokens = encode(path, TEXT.read_text(encoding="utf-8"))
        if len(tokens) <= N_PREDICTIONS:
            raise SystemExit(f"the text has {len(tokens)} tokens for this model; {N_PREDICTIONS + 1} are needed")
        kept.write_text(json.dumps(tokens[: N_PREDICTIONS + 1]), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def read_logits(engine: str, path: Path, cache: Path) -> np.ndarray:
    """Float32 [500, vocab], from the cache or measured now."""
    kept = cache / f"{engine}.npy"
    if kept.exists():
        return np.load(kept, mmap_mode="r")
    start = time.monotonic()
    logits = ENGINES[engine](path, read_tokens(path, cache)[:-1])
    print(f"{engine}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    if not engine.startswith("tenth"):  # tenth changes from run to run: always measured anew
        np.save(kept, logits)
    return logits


def main() -> int:
    """Measure and print a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="repeatable; all when none is named")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "quality")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"no file {options.model}")
    key = hashlib.sha256(TEXT.read_bytes() + options.model.stat().st_size.to_bytes(8, "little")).hexdigest()[:8]
    cache = options.cache / f"{options.model.stem}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    tokens, expected = read_tokens(options.model, cache), read_logits("exact", options.model, cache)
    rows, missing = [], []
    for engine in options.engine or ENGINES:
        try:
            rows.append(compare(engine, read_logits(engine, options.model, cache), expected, tokens))
        except ImportError as error:
            if options.engine:
                parser.error(f"{engine} is not in {options.cache} and cannot be measured here: {error}")
            missing.append(engine)
    if missing:
        print(f"left out, neither kept nor installed here: {', '.join(missing)}", file=sys.stderr)
    if options.json:
        print(json.dumps({"model": options.model.name, "engines": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(f"{options.model.name}: {rows[0].n_predictions} predictions, against float64 on the same file")
    print(f"{'engine':16} {'mean KL':>18} {'median':>9} {'max KL':>9} {'perplexity':>10} {'ratio':>16} {'top-1':>7}")
    for r in rows:
        divergence = f"{r.mean_kl:9.2e} ± {r.mean_kl_error:6.0e} {r.median_kl:9.2e} {r.max_kl:9.2e}"
        perplexity = f"{r.perplexity:10.4f} {r.perplexity_ratio:7.4f} ± {r.perplexity_ratio_error:6.4f}"
        print(f"{r.name:16} {divergence} {perplexity} {100 * r.top1_agreement:6.1f}%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
