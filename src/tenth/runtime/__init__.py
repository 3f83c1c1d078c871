"""The border to the native core: a planned program becomes a native plan, a Batch becomes a step.

The only layer that imports ``tenth._core``. It knows programs, not models; weights come as places in files.
"""

from __future__ import annotations

from tenth.runtime.building import Limits, MatrixSource, Progress, Reading, Streaming
from tenth.runtime.kernels import (
    KV_FORMATS,
    check_kv_format,
    expanded_scratch_bytes,
    int8_rate,
    kernel_formats,
    kernel_isa,
    kernel_isas,
    kv_page_bytes,
    panel_bytes,
    partial_sums_bytes,
    physical_processors,
    read_bandwidth,
    replay_experts,
    slot_bytes,
)
from tenth.runtime.runtime import ExpertCounters, InstructionProfile, LoadCosts, Runtime, StepCounters

__all__ = [
    "KV_FORMATS",
    "ExpertCounters",
    "InstructionProfile",
    "Limits",
    "LoadCosts",
    "MatrixSource",
    "Progress",
    "Reading",
    "Runtime",
    "StepCounters",
    "Streaming",
    "check_kv_format",
    "expanded_scratch_bytes",
    "int8_rate",
    "kernel_formats",
    "kernel_isa",
    "kernel_isas",
    "kv_page_bytes",
    "panel_bytes",
    "partial_sums_bytes",
    "physical_processors",
    "read_bandwidth",
    "replay_experts",
    "slot_bytes",
]
