"""Random mixed requests with random disconnects against a server with little memory, for as long as asked.

    python scripts/soak_server.py --seconds 1800 --model smollm2:135m

Every request that was accepted has to be answered or to fail cleanly, at the end nothing may be at work and no page of
the KV cache in use, and memory has to be flat: the median of its last quarter against that of its second. The server
runs in a process of its own whose data segment has a limit (RLIMIT_DATA, --memory-mb). tests/server/test_soak.py runs a
short part on a tiny model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress

import httpx2
import psutil

ACCEPTED = {200, 201}
CLEAN = ACCEPTED | {400, 404, 429, 503}
PATIENCE_S = 900  # of a client: whatever else the machine has to do meanwhile, no answer is lost
GROWTH_SHARE, GROWTH_BYTES = 0.05, 8 << 20  # of resident memory, that a run may show
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ENDS = {"/v1/chat/completions": "data: [DONE]", "/v1/completions": "data: [DONE]", "/v1/messages": "message_stop",
        "/v1/responses": '"type":"response.', "/api/chat": '"done":true', "/api/generate": '"done":true'}
WORDS = ("stone", "river", "lantern", "copper", "winter", "orchard", "signal", "harbour", "ember", "thread")


def text(chance, most=40):
    """Some words, which often begin as others do."""
    start = "You will be told of a river. " if chance.random() < 0.5 else ""
    return start + " ".join(chance.choices(WORDS, k=chance.randrange(1, most)))


def request(chance, model):
    """(path, body) of some request."""
    messages = [{"role": "user", "content": text(chance)}]
    n = chance.randrange(1, 60)
    sampling = {"temperature": chance.choice([0, 0.7, 1.5]), "seed": chance.randrange(1000)}
    kind = chance.randrange(12)
    stream = chance.random() < 0.6
    chat = {"model": model, "messages": messages, "max_tokens": n, "stream": stream, **sampling}
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    return [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"n": chance.randrange(1, 4)}),
        ("/v1/chat/completions", chat | {"response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "schema": SCHEMA}}}),
        ("/v1/chat/completions", chat | {"tools": [tool], "tool_choice": chance.choice(["auto", "required"])}),
        ("/v1/chat/completions", chat | {chance.choice(["n", "top_p", "messages", "nonsense"]): -1}),
        ("/v1/chat/completions", chat | {"logprobs": True, "top_logprobs": 3, "stop": ["river"]}),
        ("/v1/completions", {"model": model, "prompt": text(chance), "max_tokens": n, "stream": stream, **sampling}),
        ("/v1/responses", {"model": model, "input": text(chance), "max_output_tokens": n, "stream": stream}),
        ("/v1/responses", {"model": model, "input": text(chance), "max_output_tokens": n, "background": True}),
        ("/v1/messages", {"model": model, "messages": messages, "max_tokens": n, "stream": stream}),
        ("/api/chat", {"model": model, "messages": messages, "stream": stream, "options": {"num_predict": n}}),
        ("/tokenize", {"model": model, "content": text(chance)}),
    ][kind]


async def one(http, chance, model, seen, wrong):
    """One request, read to its end or left somewhere."""
    path, body = request(chance, model)
    headers = {"x-tenth-resumable": "1"} if body.get("stream") and path.startswith("/v1/chat") and (
        chance.random() < 0.2) else {}
    leaves_after = chance.uniform(0, 0.5) if chance.random() < 0.3 else None
    try:
        async with asyncio.timeout(leaves_after), http.stream("POST", path, json=body, headers=headers) as answer:
            seen[answer.status_code] += 1
            if answer.status_code not in CLEAN:
                wrong.append(f"{path}: {answer.status_code} {(await answer.aread())[:300]!r}")
                return
            told = (await answer.aread()).decode()
        if answer.status_code in ACCEPTED and body.get("stream") and ENDS[path] not in told.rstrip()[-4000:] and (
                '"error"' not in told):
            wrong.append(f"{path}: the stream has no end: {told[-300:]!r}")
        if chance.random() < 0.5 and path == "/v1/responses" and '"id":"resp_' in told:
            id = re.search(r'"id":"(resp_[0-9a-f]+)"', told)[1]
            again = await http.request(chance.choice(["GET", "DELETE"]), f"/v1/responses/{id}")
            seen[again.status_code] += 1
    except TimeoutError:
        seen["left"] += 1
    except httpx2.HTTPError as error:
        wrong.append(f"{path}: {type(error).__name__}: {error}")


async def ask_for(url, model, seconds, n_clients, seed):
    """(what was answered how often, what was wrong) after so many seconds of so many clients."""
    seen, wrong = Counter(), []
    end = time.monotonic() + seconds

    async def client(number):
        chance = random.Random(seed * 1000 + number)
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
            while time.monotonic() < end and len(wrong) < 20:
                await one(http, chance, model, seen, wrong)

    await asyncio.gather(*map(client, range(n_clients)))
    return seen, wrong


@contextmanager
def serving(model, memory_bytes, name="soak"):
    """(address, process) of a server whose data may not become larger than that."""
    with tempfile.TemporaryDirectory() as home:
        library = os.environ.get("TENTH_HOME")
        command = [sys.executable, "-m", "tenth", "serve", f"{name}={model}", "--port", "0", "--log-level", "error",
                   "--kv-tokens", "8192", "--waiting", "8"]
        env = os.environ | ({"TENTH_HOME": home} if os.path.exists(model) or not library else {})
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: (
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))))
        try:
            found = None
            for line in process.stderr:
                if found := re.search(r"at (http://127\.0\.0\.1:\d+)", line):
                    break
            assert found, "the server did not start"
            yield found[1], psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()
            process.communicate()


def gauges(url):
    """The numbers of /metrics that are without further labels than the model's."""
    lines = httpx2.get(f"{url}/metrics", timeout=PATIENCE_S, trust_env=False).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def at_rest(url, within_s=PATIENCE_S):
    """The gauges once nothing is at work."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        now = gauges(url)
        busy = [key for key, value in now.items() if value and key.startswith(
            ("tenth_queue_waiting", "tenth_requests_at_work", 'tenth_kv_pages{model="soak",state="used"'))]
        if not busy:
            return now, []
        time.sleep(0.1)
    return now, busy


def soak(model, seconds, *, n_clients=8, seed=1, memory_bytes=1 << 30):
    """A report, whose ``wrong`` is empty when all is well."""
    resident = []

    async def watched(url, process):
        async def watch():
            while True:
                resident.append(process.memory_info().rss)
                await asyncio.sleep(max(0.2, seconds / 500))

        watcher = asyncio.create_task(watch())
        found = await ask_for(url, model="soak", seconds=seconds, n_clients=n_clients, seed=seed)
        watcher.cancel()
        return found

    with serving(model, memory_bytes) as (url, process):
        seen, wrong = asyncio.run(watched(url, process))
        now, busy = at_rest(url)
        pages = {key: value for key, value in now.items() if key.startswith("tenth_kv_pages")}
    wrong += [f"still at work at the end: {key}" for key in busy]
    quarter = max(1, len(resident) // 4)
    tenth = max(1, len(resident) // 10)
    early, late = statistics.median(resident[quarter : 2 * quarter]), statistics.median(resident[-quarter:])
    if late > early * (1 + GROWTH_SHARE) + GROWTH_BYTES:
        wrong.append(f"memory grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
    return {"seconds": seconds, "requests": sum(seen.values()), "answers": {str(k): v for k, v in seen.items()},
            "resident_mb": {"second quarter": early / 1e6, "last quarter": late / 1e6, "most": max(resident) / 1e6},
            "resident_curve_mb": [round(statistics.median(resident[at : at + tenth]) / 1e6)
                                  for at in range(0, len(resident), tenth)],
            "pages": pages, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory-mb", type=int, default=1024)
    arguments = parser.parse_args()
    report = soak(arguments.model, arguments.seconds, n_clients=arguments.clients, seed=arguments.seed,
                  memory_bytes=arguments.memory_mb << 20)
    print(json.dumps(report, indent=1))
    return bool(report["wrong"])


if __name__ == "__main__":
    raise SystemExit(main())
