"""Files that keep gates and ups of experts in one tensor, as converters may: the bits of files that keep two."""

from dataclasses import replace
from unittest import mock

import gguf
import numpy as np
import pytest

from tenth.config import EngineConfig
from tenth.errors import ModelFileError
from tenth.loader import open_runtime
from tenth.model import Model
from tenth.models import build
from tenth.weights.gguf import read_header
from tenth.weights.placement import place
from tests.runtime.native import DATA, all_logits, golden, open_golden

CASES = ["qwen35moe", "qwen3next", "deepseek3_quantised"]  # in the last, blocks of four bits
GATE, UP, FUSED = "ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps"


def fused_copy(case, folder):
    """The golden file with each layer's gates and ups in one tensor: of every expert first its gate."""
    reader, path = gguf.GGUFReader(DATA / f"golden_{case}.gguf"), folder / f"{case}.gguf"
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, value in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = value.types[0]
            writer.add_key_value(key, value.contents(), kind, value.types[1] if len(value.types) > 1 else None)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in tensors.items():
        if UP in name:
            continue
        data = tensor.data
        if GATE in name:
            data = np.concatenate([data, tensors[name.replace(GATE, UP)].data], axis=1)
        writer.add_tensor(name.replace(GATE, FUSED), data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case", CASES)
def test_fused_gates_and_ups_give_the_logits_of_separate_ones(case, tmp_path):
    tokens, separate = golden(case)["tokens"], open_golden(case)
    fused = open_runtime(read_header(fused_copy(case, tmp_path)), EngineConfig())
    assert np.array_equal(all_logits(fused.runtime, tokens), all_logits(separate, tokens))
    assert fused.runtime.memory() == separate.memory()
    assert {how.source.split(".")[2] for how in fused.program.derived.values()} == {FUSED}


@pytest.mark.parametrize("budget", ["least", "half"])
@pytest.mark.parametrize("case", CASES)
def test_fused_gates_and_ups_are_streamed_by_halves(case, budget, tmp_path):
    def place_within(needs, *_):
        needs = replace(needs, stream_workspace=0)
        return place(needs, {"least": needs.least, "half": needs.fixed + needs.experts // 2}[budget])

    tokens, path = golden(case)["tokens"], fused_copy(case, tmp_path)
    with mock.patch("tenth.loader.place", place_within):
        runtime = open_runtime(read_header(path), EngineConfig(threads=2)).runtime
    expected = all_logits(open_golden(case), tokens)
    for chunk in (1, 16):
        assert np.array_equal(all_logits(runtime, tokens, chunk), expected), chunk
    assert runtime.expert_counters().read_bytes > 0


def test_a_fused_file_tells_its_formats_and_costs(tmp_path):
    loaded = open_runtime(read_header(fused_copy("deepseek3_quantised", tmp_path)), EngineConfig())
    with Model(loaded, EngineConfig()) as model, Model(
        open_runtime(read_header(DATA / "golden_deepseek3_quantised.gguf"), EngineConfig()), EngineConfig()
    ) as separate:
        assert model.description == separate.description
        parts = {name: info for name, info in loaded.stored.items() if "_exps" in name}
        assert {name: (i.shape, i.format, i.n_bytes) for name, i in parts.items()} == {
            name: (i.shape, i.format, i.n_bytes) for name, i in separate.loaded.stored.items() if "_exps" in name
        }


def shapes_of(path):
    header = read_header(path)
    return header.metadata, {name: info.shape for name, info in header.tensors.items()}


def test_a_fused_tensor_that_has_no_halves_or_stands_beside_them_is_refused(tmp_path):
    metadata, shapes = shapes_of(fused_copy("qwen35moe", tmp_path))
    name = f"blk.0.{FUSED}.weight"
    experts, rows, columns = shapes[name]
    with pytest.raises(ModelFileError, match=f"tensor {name} has {rows + 1} rows for each expert, expected an even"):
        build("qwen35moe", metadata, {**shapes, name: (experts, rows + 1, columns)})
    with pytest.raises(ModelFileError, match=rf"tensor blk.0.{GATE}.weight has shape \[{experts}, {rows}, {columns}\]"):
        build("qwen35moe", metadata, {**shapes, name: (experts, 2 * rows, columns)})
    halves = {name.replace(FUSED, part): (experts, rows // 2, columns) for part in (GATE, UP)}
    with pytest.raises(ModelFileError, match=f"no place for tensor {name}"):
        build("qwen35moe", metadata, {**shapes, **halves})
