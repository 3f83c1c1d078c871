"""What guessing at tokens gains: four fixed texts, each answered plainly and with guesses in turn, in one process.

``tenth bench MODEL --speculation`` shows it. What guessing costs where there is nothing to gain is smaller than the
noise of one text: ``python -m tenth.bench.speculation MODEL...`` takes the last one with many seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tenth
from tenth.bench.report import summary
from tenth.errors import ResourceError

CODE = '''Rename the function `load_table` to `read_table` and the variable `rows` to `records` everywhere. Print the \
whole file again and change nothing else.

```python
import csv
from pathlib import Path


def load_table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV file with a header line into a list of dictionaries."""
    if not path.exists():
        raise FileNotFoundError(f"no such table: {path}")
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, None)
        if header is None:
            return []
        for number, line in enumerate(reader, start=2):
            if len(line) != len(header):
                raise ValueError(f"line {number} has {len(line)} fields, expected {len(header)}")
            rows.append(dict(zip(header, line)))
    return rows


def total(path: Path, column: str) -> float:
    """Add up one column of a table."""
    rows = load_table(path)
    return sum(float(row[column]) for row in rows if row[column])
```
'''
QUOTES = """Here is a passage.

The lighthouse at Skerry Point was built in 1874, after three ships had been lost on the reef in a single \
winter. Its tower of grey granite stands thirty-one metres above the rocks and can be seen from eighteen miles \
away on a clear night. Until 1986 it was tended by three keepers, who were relieved every four weeks when the \
weather allowed a boat to land. In January 1953 a storm kept the relief boat away for twenty-three days, and the \
keepers lived on ship's biscuit and rainwater. The lamp burned paraffin until 1929, when it was changed to \
electricity from a generator in the old coal store. Since 1986 the light has been automatic, and the cottages of \
the keepers are let to visitors in the summer months.

Summarise the passage in five points. Under each point, quote the sentence of the passage that supports it, word for \
word.
"""
JSON = """Turn this table into a JSON array with one object for each row. The keys are "name", "country", \
"population_millions" and "is_capital". Give the JSON only.

| name | country | population (millions) | capital |
|---|---|---|---|
| Tokyo | Japan | 37.4 | yes |
| Delhi | India | 31.2 | no |
| Shanghai | China | 27.8 | no |
| Sao Paulo | Brazil | 22.4 | no |
| Mexico City | Mexico | 21.9 | yes |
| Cairo | Egypt | 21.3 | yes |
| Mumbai | India | 20.7 | no |
| Beijing | China | 20.9 | yes |
| Dhaka | Bangladesh | 22.0 | yes |
| Osaka | Japan | 19.1 | no |
"""
STORY = "Tell a short story about a clockmaker who finds a letter in an old clock. Never use the same phrase twice."


@dataclass(frozen=True)
class Text:
    """Something to ask. The control is sampled: the likeliest tokens of a small model soon go round in circles."""

    name: str
    prompt: str
    temperature: float = 0.0


TEXTS = (Text("editing code", CODE), Text("quoting a passage", QUOTES), Text("table to JSON", JSON),
         Text("control: a story, sampled", STORY, temperature=1.0))
SEED = 1


@dataclass(frozen=True)
class Answer:
    """What one turn gave. ``drafted`` and ``accepted``: guesses computed, and those that were right."""

    tokens: tuple[int, ...]
    n_prompt: int
    tokens_per_second: float
    drafted: int
    accepted: int
    steps: int


def measure(
    model: Any, n_generate: int, repetitions: int, progress: Callable[[str, int, int], None] = lambda *_: None
) -> list[dict[str, Any]]:
    """The figures of every text. Raises ResourceError when guessing changed an answer."""
    results, done = [], 0
    n_turns = len(TEXTS) * 2 * (repetitions + 1)
    for text in TEXTS:
        plain, guessed = [], []
        for repetition in range(-1, repetitions):  # -1: the warm-up, whose figures are dropped
            pair: dict[bool, Answer] = {}
            for speculate in (False, True) if repetition % 2 else (True, False):  # so that neither is always first
                progress(f"bench: {text.name}", done, n_turns)
                done += 1
                pair[speculate] = ask(model, text, n_generate, speculate)
            if pair[True].tokens != pair[False].tokens:
                raise ResourceError(f"{text.name}: the answer with guesses differs from the plain one",
                                    "this is an error of tenth's: please report it")
            if repetition >= 0:
                plain.append(pair[False])
                guessed.append(pair[True])
        results.append(figures(text.name, plain, guessed))
    return results


def ask(model: Any, text: Text, n_generate: int, speculate: bool, seed: int = SEED) -> Answer:
    """One turn."""
    before, model.speculate = model.speculate, speculate
    try:
        stream = model.chat([{"role": "user", "content": text.prompt}], temperature=text.temperature, top_p=1.0,
                            top_k=0, seed=max(seed, 0), max_tokens=n_generate)
    finally:
        model.speculate = before
    for _ in stream:
        pass
    said = stream.speculation
    tokens = tuple(entry.token for entry in stream.logprobs)
    return Answer(tokens, stream.usage.prompt_tokens, stream.timings.generated_tokens_per_second or 0.0,
                  said.drafted, said.accepted, said.steps)


def figures(name: str, plain: list[Answer], guessed: list[Answer]) -> dict[str, Any]:
    """One text: speeds, acceptance, gain. The gain is the median of the ratios of neighbouring turns, less one."""
    drafted, accepted = sum(a.drafted for a in guessed), sum(a.accepted for a in guessed)
    ratios = [b.tokens_per_second / a.tokens_per_second for a, b in zip(plain, guessed, strict=True)
              if a.tokens_per_second]
    return {
        "name": name, "n_prompt": plain[0].n_prompt, "n_generated": len(plain[0].tokens),
        "plain": summary([a.tokens_per_second for a in plain]),
        "speculating": summary([a.tokens_per_second for a in guessed]),
        "drafted": drafted, "accepted": accepted, "acceptance": accepted / drafted if drafted else None,
        "tokens_per_step": sum(a.steps + a.accepted for a in guessed) / sum(a.steps for a in guessed),
        "gain": statistics.median(ratios) - 1 if ratios else 0.0,
    }


def lines(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The figures as rows of a table."""
    rows: list[tuple[str, ...]] = [("", "tokens", "plain/s", "guessing/s", "tokens/step", "accepted", "gain")]
    for r in results:
        acceptance = "-" if r["acceptance"] is None else f"{100 * r['acceptance']:.0f} % of {r['drafted']}"
        rows.append((r["name"], str(r["n_generated"]), f"{r['plain']['median']:.1f}",
                     f"{r['speculating']['median']:.1f}", f"{r['tokens_per_step']:.2f}", acceptance,
                     f"{100 * r['gain']:+.0f} %"))
    return rows


def many_seeds(model: Any, n_seeds: int, n_generate: int) -> dict[str, Any]:
    """What guessing costs on text that does not repeat itself: the sampled story with many seeds, plain and guessing.

    Each pair of turns runs in the other order than the one before. ``slower``: by the sums of all seconds, less one.
    """
    pairs: list[tuple[Answer, Answer]] = []
    for seed in range(-1, n_seeds):  # the first one warms up
        order = (False, True) if seed % 2 else (True, False)
        turn = {speculate: ask(model, TEXTS[-1], n_generate, speculate, seed) for speculate in order}
        if turn[True].tokens != turn[False].tokens:
            raise ResourceError(f"seed {seed}: the answer with guesses differs from the plain one")
        if seed >= 0:
            pairs.append((turn[False], turn[True]))
    plain_s, guessing_s = (sum(len(pair[i].tokens) / pair[i].tokens_per_second for pair in pairs) for i in (0, 1))
    ratios = sorted(plain.tokens_per_second / guessed.tokens_per_second for plain, guessed in pairs)
    return {
        "n_seeds": n_seeds, "n_tokens": sum(len(plain.tokens) for plain, _ in pairs),
        "drafted": sum(guessed.drafted for _, guessed in pairs), "accepted": sum(g.accepted for _, g in pairs),
        "plain_seconds": plain_s, "guessing_seconds": guessing_s, "slower": guessing_s / plain_s - 1,
        "slower_median": statistics.median(ratios) - 1, "slower_quartiles": [
            ratios[len(ratios) // 4] - 1, ratios[3 * len(ratios) // 4] - 1],
    }


def main() -> None:
    """``python -m tenth.bench.speculation MODEL...``: prints one JSON object for each model."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.speculation", description=many_seeds.__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--tokens", type=int, default=128, metavar="N")
    settings = parser.parse_args()
    for name in settings.models:
        with tenth.load(name, context_tokens=1024) as model:
            print(json.dumps({"model": model.name, **many_seeds(model, settings.seeds, settings.tokens)}), flush=True)


if __name__ == "__main__":
    main()
