"""Makes one case: draws its weights, runs transformers, writes the file and the recorded logits."""

from __future__ import annotations

import zlib
from pathlib import Path

import gguf
import numpy as np
import torch
from exact import ExactModel
from torch.overrides import TorchFunctionMode

from goldens.case import Case
from goldens.checking import nmse
from goldens.formats import decode_as, encode
from goldens.nextn import Drafter
from goldens.tokenizer import example_tokens

N_TOKENS = 40
AGREEMENT = 1e-20  # NMSE between transformers and exact.py, both float64: measured 2e-23; one float32 step gives 1e-15
Stored = dict[str, tuple[gguf.GGMLQuantizationType, np.ndarray]]  # by name in the file: format, array as it is held


class AllFloat64(TorchFunctionMode):
    """While active, whatever asks torch for float32 gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """One torch call with float32 replaced in its arguments."""

        def widen(value: object) -> object:
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(widen, args), **{key: widen(value) for key, value in (kwargs or {}).items()})


def make(name: str, case: Case, folder: Path) -> str:
    """Write one case to the folder; one line that says how well transformers and exact.py agree."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    with AllFloat64():
        torch.set_default_dtype(torch.float64)
        model = case.model._from_config(
            case.config, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        drafter = Drafter(model, case.config, case.drafter == "copies").eval() if case.drafter else None
        stored = draw_weights(model, drafter, case, rng)
        text, tokens = example_tokens() if case.chat else ("", rng.integers(0, case.config.vocab_size, N_TOKENS))
        with torch.no_grad():
            ids = torch.from_numpy(tokens.astype(np.int64))[None]
            logits = model(ids).logits[0].numpy()
            drafted = drafter.logits(model, ids).numpy() if drafter else None
    assert logits.dtype == np.float64, "some step of transformers escaped AllFloat64"
    path = folder / f"golden_{name}.gguf"
    write_file(path, name, case, stored)
    arrays = {"tokens": tokens.astype(np.int32), "logits": logits.astype(np.float32)}
    if case.chat:
        arrays["text"] = np.array(text)
    if case.formats:
        arrays["logits_q8"] = ExactModel(path, activations="q8").logits(tokens).astype(np.float32)
    error = nmse(ExactModel(path).logits(tokens), logits)
    assert error < AGREEMENT, f"{name}: transformers and exact.py differ, NMSE {error:.1e}"
    if drafted is not None:
        arrays["drafted"] = drafted.astype(np.float32)
        other = nmse(ExactModel(path).drafted(tokens), drafted)
        assert other < AGREEMENT, f"{name}: torch and exact.py differ in what is drafted, NMSE {other:.1e}"
        if case.formats:
            arrays["drafted_q8"] = ExactModel(path, activations="q8").drafted(tokens).astype(np.float32)
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    q8 = f", int8 inputs cost {nmse(arrays['logits_q8'], logits):.1e}" if case.formats else ""
    return f"{name}: {path.stat().st_size} bytes, logits std {logits.std():.2f}, NMSE to exact.py {error:.1e}{q8}"


def named_weights(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters, and the biases of routers."""
    return [*module.named_parameters(), *((n, b) for n, b in module.named_buffers() if n.endswith("_bias"))]


def draw_weights(
    model: torch.nn.Module, drafter: Drafter | None, case: Case, rng: np.random.Generator
) -> Stored:
    """Random weights as the file holds them; the models get what they decode to."""
    stored: Stored = {}
    of_drafter = [(drafter.hf_name(name), weight) for name, weight in named_weights(drafter)] if drafter else []
    for hf_name, parameter in named_weights(model) + of_drafter:
        name = case.architecture.name_in_file(hf_name)
        parts = case.architecture.parts(name, tuple(parameter.shape), case.config)
        for part, shape in parts.items():
            drawn = draw(part, shape, rng) * (case.expert_gain if part.endswith("_exps.weight") else 1)
            stored[part] = encode(drawn, case.formats.get(part, "F32"), rng)
        decoded = {part: decode_as(*stored[part], shape).astype(np.float64) for part, shape in parts.items()}
        parameter.data = torch.from_numpy(case.architecture.joined(decoded, case.config))
    for name, values in case.architecture.further_tensors(model, case.config).items():
        stored[name] = gguf.GGMLQuantizationType.F32, values
    return stored


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random float32 weights: logits get a standard deviation near 2, norms and biases differ from 1 and 0."""
    if name.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("ssm_a"):  # with ssm_dt: what is kept per token lies between 0.02 and 0.99
        return (-rng.uniform(0.1, 2.0, shape)).astype(np.float32)
    if name.endswith(".bias"):
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)
    outer = ("token_embd.weight", "output.weight", "embed_tokens.weight", "shared_head_head.weight")
    inner = "attn_output" in name or name.startswith("cls.")  # a reranker's head has no vocabulary
    gain = 2.0 if name.endswith(outer) and not inner else 1.6 if ".attn_" in name else 1.0
    return (gain / shape[-1] ** 0.5 * rng.standard_normal(shape)).astype(np.float32)


def write_file(path: Path, name: str, case: Case, stored: Stored) -> None:
    """The GGUF file, with the metadata llama.cpp's converter writes for the architecture."""
    writer = gguf.GGUFWriter(path, case.architecture.name)
    writer.add_name(f"tenth golden {name}")
    case.add_metadata(writer)
    for tensor, (kind, raw) in stored.items():
        writer.add_tensor(tensor, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
