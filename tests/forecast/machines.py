"""A machine whose rates are round numbers."""

from __future__ import annotations

from tenth.forecast.kernels import KernelRates
from tenth.forecast.probe import REQUEST_BYTES, Probe
from tenth.weights.formats import FORMATS

READ, DISK = 1e10, 1e9


def machine(**changes) -> Probe:
    """Reads 10 GB/s, multiplies 20 G/s with one row and 200 G/s with 256, reads the disk at 1 GB/s; no overhead."""
    kernels = KernelRates(products=dict.fromkeys(FORMATS, (2e10, 8e10, 2e11)), attention=(1e10, 2e10, 4e10),
                          instruction_s=0.0, activation_bytes_per_s=1e11, sample_s=0.0, step_s=0.0)
    values = {"cpu": "a CPU", "isa": "avx2", "threads": 2, "read": READ, "int8": 4e11, "kernels": kernels,
              "disk": dict.fromkeys(REQUEST_BYTES, DISK), "disk_in_order": DISK}
    return Probe(**(values | changes))
