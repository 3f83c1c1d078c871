"""Sends a server what its own OpenAPI document and OpenAI's allow, and what they do not: no answer may be a 5xx.

    python scripts/fuzz_server.py --examples 300

The server is a tiny model's, in this process. tests/server/test_schemathesis.py runs a few of the same requests each
time; here they are different ones in every run. ``--url`` takes a server that runs already, which has to serve a model
called "tiny" and need no key.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.server import fuzzing
from tests.server.running import TINY, Running


def check(url: str, n: int) -> list[str]:
    """What failed."""
    names = {"model": ["tiny"]}
    own = httpx2.get(f"{url}/openapi.json").json()
    ours = fuzzing.with_names(own, names)
    theirs = fuzzing.with_names(fuzzing.official(), names)
    failures = []
    for what, document, base, checks, mode in (
            ("what our own document allows", ours, url, fuzzing.OUR_CHECKS, fuzzing.ALLOWED),
            ("what it does not allow", own, url, fuzzing.OUR_CHECKS, fuzzing.WRONG),
            ("what OpenAI's document allows", theirs, f"{url}/v1", fuzzing.OFFICIAL_CHECKS, fuzzing.ALLOWED)):
        counts, wrong = fuzzing.fuzz(document, base, checks, n, mode=mode, derandomize=False)
        statuses: Counter[int] = Counter()
        for (_, status), count in counts.items():
            statuses[status] += count
        print(f"{what}: {len({label for label, _ in counts})} operations, {sum(statuses.values())} requests, "
              + ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
        failures += wrong
    return failures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100, help="requests of each operation and kind")
    parser.add_argument("--url")
    arguments = parser.parse_args()
    if arguments.url:
        failures = check(arguments.url, arguments.examples)
    else:
        with tempfile.TemporaryDirectory() as folder, Running({"tiny": TINY}, folder) as server:
            failures = check(server.url, arguments.examples)
    for failure in failures:
        print("WRONG", failure)
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
