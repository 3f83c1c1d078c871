"""Makes tests/data/golden_<case>.gguf and .npz: tiny random models and the logits that transformers computes for them.

    python scripts/make_goldens.py            write all cases
    python scripts/make_goldens.py --check    make them again in a temporary folder and compare with tests/data

Needs the `reference` extra (torch, transformers, gguf). Weights are drawn with NumPy as the file holds them (float32,
or quantised and decoded again) and handed to a transformers model, undoing what llama.cpp's convert_hf_to_gguf.py does
(goldens/architecture.py and what overrides it). The model runs in float64 throughout: `AllFloat64` turns transformers'
own float32 steps (norms, softmax, angles) into float64. The result is checked against scripts/exact.py, which knows the
models from the file alone, and stored as float32.

Each .npz holds `tokens` int32 [n] and `logits` float32 [n, vocab]. Cases with quantised weights add `logits_q8`: the
same weights, but the input of every linear with a quantised weight rounded to int8 per 32 values (exact.round_to_int8).
Cases with a drafter add `drafted` [n - 1, vocab] (and `drafted_q8`): what it takes each token but the first two to be.
Models that write no text have `vectors` in place of logits (goldens/encoders.py).
golden_chat carries a small byte-level tokenizer; its .npz adds `text`, of which `tokens` is the encoding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from goldens import CASES, make
from goldens.checking import differences

DATA = Path(__file__).parent.parent / "tests" / "data"


def main() -> int:
    """Write or check the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="*", help=f"of: {', '.join(CASES)}; all when none is named")
    parser.add_argument("--check", action="store_true", help="compare with tests/data and change nothing")
    options = parser.parse_args()
    if unknown := set(options.case) - CASES.keys():
        parser.error(f"no case named {', '.join(sorted(unknown))}")
    chosen = options.case or list(CASES)
    if not options.check:
        DATA.mkdir(exist_ok=True)
        for name in chosen:
            print(make(name, DATA))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name in chosen:
            make(name, Path(folder))
            found += differences(name, Path(folder), DATA)
    print("\n".join(found) or f"{len(chosen)} cases are as committed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
