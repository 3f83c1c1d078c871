from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


def cpu_is_supported() -> bool:
    """Whether the CPU has SSE4.2, without which nothing here runs."""

def kernel_isas() -> list[str]:
    """Instruction sets this CPU can run, slowest first."""

def kernel_isa() -> str:
    """The instruction set in use. Raises ResourceError."""

def formats() -> list:
    """
    Weight formats: (name, gguf_id, block_weights, block_bytes, panel_block_bytes, what activations are rounded to).
    """

def pack(isa: str, format: str, raw: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """File rows, uint8 [rows, row_bytes], as panels: uint8 [bytes]."""

def not_finite_rows(isa: str, format: str, raw: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> list[int]:
    """
    Numbers of the file rows that hold a scale, minimum or float weight that is infinite or NaN.
    """

def decode_row(isa: str, format: str, packed: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], out_rows: int, k: int, row: int) -> NDArray[numpy.float32]:
    """One row of packed weights as float32 [k]."""

def quantize(isa: str, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> tuple:
    """x, float32 [n, k], as int8 [n, k] and scales float32 [n, k / 32]."""

def round_rows(isa: str, dtype: str, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """x, float32 [n, k], as the bytes of a q8 or bf16 buffer."""

def gated(isa: str, format: str, gate: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], up: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], out_rows: int, k: int, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], parts: int = 1) -> object:
    """
    round_rows((x @ gate.T) * (x @ up.T)) to what the format reads, without storing either, for outputs by 32 and, to q8, whole tiles, in `parts` calls; None where there is no such kernel.
    """

def product(isa: str, format: str, packed: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], out_rows: int, k: int, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], splits: int = 1, bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None, residual: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None = None, misalign: int = 0) -> NDArray[numpy.float32]:
    """
    x @ W.T (+ bias) (+ residual), float32 [n, out_rows], computed in `splits` slices on as many threads.
    """

def sample_rows(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], packed: tuple, threads: int = 1) -> tuple:
    """
    Choose a token for each row of logits [m, vocab]. packed: tenth.batch.Sampling.packed().

    Returns (tokens int32 [m], logprobs float32 [m], top_ids int32 [m, k], top_logprobs float32 [m, k]), k the
    greatest n_top. A negative token is a SAMPLE_ reason of tenth.batch for having none.
    """

def random_unit(seed: int, counter: int) -> float:
    """The number in [0, 1) that a draw uses."""

class Plan:
    """A flat program ready to run. Built and driven by tenth.runtime only."""

    def __init__(self, n_threads: int, max_rows: int, max_outputs: int, vocab: int, context_tokens: int, arena_bytes: int, n_pages: int, kv_format: int, n_slots: int) -> None: ...

    def add_file(self, path: str, mode: int) -> int: ...

    def add_matrix(self, gguf_id: int, file: int, offset: int, out_rows: int, columns: int) -> int: ...

    def add_experts(self, gguf_id: int, file: int, offset: int, stride: int, n_experts: int, out_rows: int, columns: int) -> int: ...

    def add_streamed(self, gguf_id: int, file: int, offset: int, stride: int, n_experts: int, out_rows: int, columns: int, layer: int, stage: int) -> int: ...

    def finish_store(self, n_slots: Mapping[int, int], passing_slots: int, half_life_steps: float) -> None: ...

    def close_files(self) -> None: ...

    def place_weights(self) -> None: ...

    def read_weights(self) -> tuple[int, str] | None: ...

    def stop_reading(self) -> None: ...

    def read_seconds(self) -> tuple[float, float, float]: ...

    @property
    def read_bytes(self) -> int: ...

    def panels_of(self, thread: int, n_threads: int) -> list[tuple[int, int, int]]: ...

    def stretches_of(self, thread: int) -> list[tuple[int, int]]: ...

    def fetched_of(self, thread: int) -> list[tuple[int, int]]:
        """
        By instruction: what the worker has fetched of the product at or behind it while it waits, (from, to).
        """

    def hold_first(self) -> None:
        """Worker 0 reads no weights from now on,"""

    def let_first(self) -> None:
        """until now."""

    @property
    def first_processor(self) -> int:
        """Where worker 0 is pinned, or -1."""

    @property
    def spans_nodes(self) -> bool: ...

    def restore_expert_usage(self, shares: Sequence[float]) -> None: ...

    def add_vector(self, arg: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], /) -> int: ...

    def add_layer(self, layer: int, n_kv_heads: int, head_dim: int, latent: int, levels: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None: ...

    def add_recurrence(self, arg: int, /) -> None: ...

    def set_hidden(self, arg: int, /) -> None: ...

    def add_instruction(self, op: str, inputs: list, outputs: list, attributes: dict, is_guess: bool = False, of_drafter: bool = False) -> None: ...

    def finish(self, logits: tuple, drafted: tuple | None = None) -> None: ...

    def step(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], row_starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], pages: list, outputs: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], slots: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], copies: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], n_generated: int = 0) -> bool: ...

    def stop(self) -> None: ...

    def draft(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], row_starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], pages: list, outputs: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], sources: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None: ...

    def copy_slot(self, arg0: int, arg1: int, /) -> None: ...

    def sample(self, packed: tuple) -> tuple: ...

    def run_ahead(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], row_starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], pages: list, outputs: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], packed: tuple, most: int, ends: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple: ...

    def hurry(self) -> None: ...

    def logits(self) -> NDArray[numpy.float32]: ...

    def profile(self, of_drafter: bool = False) -> list: ...

    def step_counters(self) -> tuple: ...

    def reset_counters(self) -> None: ...

    def expert_counts(self) -> dict: ...

    def expert_usage(self) -> list[float]: ...

    def take_trace(self) -> list[list[int]]: ...

    @property
    def isa(self) -> str: ...

    @property
    def n_threads(self) -> int: ...

    @property
    def page_bytes(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

    @property
    def weight_bytes(self) -> int: ...

def physical_processors() -> list[int]:
    """Processors this process may use, one per physical core."""

def nodes_of(processors: Sequence[int], root: str) -> list[int]:
    """
    The NUMA node of each of these processors, as the files under root say.
    """

def first_of_cores(allowed: Sequence[int], root: str) -> list[int]:
    """
    Of these processors the first of each core, as the files under root say.
    """

def partial_sums_bytes(n_heads: int, head_dim: int, context_tokens: int) -> int: ...

def expanded_scratch_bytes(latent: int, rotated: int, nope: int, value: int, rows: int) -> int: ...

def page_bytes(arg0: Sequence[tuple[int, int, int]], arg1: int, /) -> int: ...

def read_bandwidth(threads: int, seconds: float, n_bytes: int) -> list[float]:
    """Bytes per second of each pass over n_bytes of memory."""

def int8_rate(threads: int, seconds: float, isa: str = '') -> list[float]:
    """Byte multiply-adds per second of each pass."""

class ExpertCache:
    """
    Which expert slices are in memory and what to read next; pure. For tests.
    """

    def __init__(self) -> None: ...

    def add_layer(self, n_experts: int) -> int: ...

    def add_matrix(self, layer: int, stage: int, slot_bytes: int) -> int: ...

    def finish(self, n_slots: Mapping[int, int], half_life_steps: float, passing_slots: int, are_fresh: bool = False) -> None: ...

    def take_fresh(self, bytes: int) -> tuple[int, int, int]: ...

    def warmed(self, size: int, first: int, n: int) -> None: ...

    def begin_step(self, n_tokens: int) -> None: ...

    def want(self, layer: int, experts_and_rows: Sequence[tuple[int, int]]) -> list[int]: ...

    def predict(self, layer: int, experts: Sequence[int]) -> None: ...

    def next_read(self, guesses: bool = True) -> int: ...

    def has_unread(self) -> bool: ...

    def has_guesses(self) -> bool: ...

    def restore_usage(self, shares: Sequence[float]) -> None: ...

    def preload(self) -> None: ...

    def next_idle_read(self) -> int: ...

    def landed(self, slice: int) -> None: ...

    def failed(self, slice: int) -> None: ...

    def abandoned(self, slice: int) -> None: ...

    def use(self, slice: int) -> bool: ...

    def release(self, slice: int) -> None: ...

    def finished(self, slice: int) -> None: ...

    def end_step(self) -> None: ...

    def first_slice(self, matrix: int) -> int: ...

    def state(self, slice: int) -> int: ...

    def place(self, slice: int) -> int: ...

    def counts(self) -> dict: ...

    def check(self) -> None: ...

class ExpertStore:
    """
    An expert store whose slots hold rows as the files have them. For tests.
    """

    def __init__(self, mode: int, n_readers: int) -> None: ...

    def add_layer(self, n_experts: int) -> int: ...

    def add_matrix(self, layer: int, stage: int, path: str, offset: int, n_rows: int, row_bytes: int) -> int: ...

    @staticmethod
    def slot_bytes(n_rows: int, row_bytes: int) -> int: ...

    def finish(self, n_slots: Mapping[int, int], half_life_steps: float, passing_slots: int) -> None: ...

    def begin_step(self, n_tokens: int) -> None: ...

    def want(self, layer: int, experts_and_rows: Sequence[tuple[int, int]]) -> None: ...

    def predict(self, layer: int, experts: Sequence[int]) -> None: ...

    def order(self) -> list[int]: ...

    def multiply(self, matrix: int, expert: int, seconds: float = 0.0) -> bytes: ...

    def end_step(self) -> None: ...

    def restore_usage(self, shares: Sequence[float]) -> None: ...

    def counts(self) -> dict: ...

    @property
    def mode(self) -> int: ...

def replay_experts(trace: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], n_experts: int, n_slots: int, half_life_steps: float, passing_slots: int) -> tuple:
    """
    (ready, wanted) of a routing trace [tokens, layers, k] through a cache of so many whole experts.
    """

def texts(raw: bytes, at: int, count: int) -> tuple:
    """
    (the texts, the byte after the last). Raises ValueError where they leave the bytes or are not UTF-8.
    """

def skip_texts(raw: bytes, at: int, count: int) -> tuple:
    """
    (how many begin here, where the last of them begins, its length): it alone may reach beyond the bytes.
    """

class TextPairs:
    def __iter__(self, /):
        """Implement iter(self)."""

    def __next__(self, /):
        """Implement next(self)."""

class TextIndex:
    """
    The places of texts of a header; of several that are the same, the last one's.
    """

    def get(self, text: str) -> int | None:
        """None where there is no such text."""

class Texts:
    """
    Texts of a header, each a Python string only when it is asked for. Raises as ``texts``.
    """

    def __init__(self, raw: bytes, at: int, count: int) -> None: ...

    @property
    def end(self) -> int:
        """The byte after the last."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> str: ...

    def __iter__(self) -> Iterator: ...

    def ids(self) -> dict:
        """Text -> place, the last one's where there are several."""

    def index(self, without: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> TextIndex:
        """The places of those without a mark."""

    def find(self, wanted: Iterable) -> dict:
        """
        The places of these texts, of those that are there; the last where there are several.
        """

    def joins_words(self, without: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> bool:
        """Whether one without a mark has U+2581 behind another character."""

    def token_bytes(self, kinds: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], alphabet: Annotated[NDArray[numpy.uint16], dict(shape=(512), order='C', device='cpu', writable=False)] | None = None) -> tuple:
        """
        (the bytes of all tokens, where each ends). Kinds: 0 as a vocabulary writes them, in an alphabet of bytes or with U+2581 for a space; 1 as they are; 2 one byte, as <0x41>.
        """

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The two sides of each one's space; ValueError at one that has none."""
