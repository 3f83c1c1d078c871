"""Records which experts a text uses, as if it were generated: every token goes through all layers.

    python -m tenth.bench.trace_text MODEL.gguf TEXT OUT.npz [--tokens 4000] [--context 1000]

The text is cut into sequences of ``--context`` tokens, computed one after the other.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import tenth
from tenth.tracing import VARIABLE


def main() -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(prog="python -m tenth.bench.trace_text")
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--context", type=int, default=1000)
    options = parser.parse_args()
    os.environ[VARIABLE] = os.fspath(options.out)
    with tenth.load(options.model, context=options.context) as model:
        ids = model.tokenize(options.text.read_text(encoding="utf-8")[: 16 * options.tokens])[: options.tokens]
        for start in range(0, len(ids), options.context):
            model.logits(ids[start : start + options.context])
    print(f"{options.out}: {len(ids)} tokens, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
