"""Logits and token ids from llama.cpp, through its C API as the package llama-cpp-python gives it.

Weights stay in the file's layout (`use_extra_bufts` off): the AMX layout of llama.cpp 0.3.36's copy crashes where these
figures were taken. Layout is speed; the arithmetic, int8 inputs with one scale per block, is the same.
"""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np

N_THREADS = 2
# Without a callback llama.cpp prints a line per tensor; it must outlive every call.
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, None)


def tokenize(path: Path, text: str) -> list[int]:
    """Token ids of the text, with the begin token where the file asks for one."""
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return model.tokenize(text.encode(), add_bos=model._model.add_bos_token(), special=False)


def logits(path: Path, tokens: list[int], kv: str) -> np.ndarray:
    """Float32 [n, vocab] of one batch. kv: "f16" (llama.cpp's default, flash attention auto) or "f32" (flash off)."""
    n = len(tokens)
    model_params = llama_cpp.llama_model_default_params()
    model_params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = n + 32, n, min(n, 512)
    params.n_threads = params.n_threads_batch = N_THREADS
    if kv == "f32":
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(n, 0, 1)
    batch.n_tokens = n
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, i
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.logits[i] = 1
    if code := llama_cpp.llama_decode(context, batch):
        raise RuntimeError(f"llama_decode returned {code}")
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    values = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), shape=(n, vocab)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return values
