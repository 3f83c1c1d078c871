"""Runs llama.cpp through llama-cpp-python's C binding. Started as a script by that package's own interpreter.

Never imported by tenth. It reads one JSON object a line from standard input and answers each with one line:
    {"prompt": [ids], "n_generate": N}  ->  {"prompt_s": seconds, "generate_s": seconds}
The first line it writes says that the model is loaded. Timed as llama.cpp's own llama-bench does it: the prompt in one
call, then N calls of one token with an empty context, no sampling.
"""

import ctypes
import json
import sys
import time
from typing import Any

import llama_cpp as L  # type: ignore[import-not-found]  # the interpreter that runs this has it, not ours


def load(path: str, threads: int, n_context: int) -> Any:
    """A context of llama.cpp's defaults, on the CPU alone."""
    L.llama_backend_init()
    settings = L.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), settings)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    wanted = L.llama_context_default_params()
    wanted.n_ctx, wanted.n_threads, wanted.n_threads_batch = n_context, threads, threads
    context = L.llama_init_from_model(model, wanted)
    if not context:
        raise SystemExit(f"llama.cpp cannot make a context of {n_context} tokens")
    return context


def decode(context: Any, ids: list[int]) -> None:
    """Computes the tokens ``ids`` as one batch, and waits for it."""
    tokens = (L.llama_token * len(ids))(*ids)
    if L.llama_decode(context, L.llama_batch_get_one(tokens, len(ids))) != 0:
        raise SystemExit("llama_decode failed")
    L.llama_synchronize(context)


def timed(context: Any, batches: list[list[int]]) -> float:
    """Seconds to compute the batches from an empty context."""
    L.llama_memory_clear(L.llama_get_memory(context), True)
    start = time.perf_counter()
    for ids in batches:
        decode(context, ids)
    return time.perf_counter() - start


def reply(value: dict[str, Any]) -> None:
    """One line to whoever asked."""
    print(json.dumps(value), flush=True)


def main() -> None:
    """Arguments: model file, threads, tokens of context."""
    quiet = L.llama_log_callback(lambda *_: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    context = load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    reply({"ready": True, "version": "llama-cpp-python " + L.__version__,
           "system": L.llama_print_system_info().decode(errors="replace")})
    for line in sys.stdin:
        asked = json.loads(line)
        ids = asked["prompt"]
        prompt_s = timed(context, [ids])
        generate_s = timed(context, [[ids[i % len(ids)]] for i in range(asked["n_generate"])])
        reply({"prompt_s": prompt_s, "generate_s": generate_s})


if __name__ == "__main__":
    main()
