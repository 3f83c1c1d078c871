"""What an engine counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EngineStats:
    """Counts since the engine started."""

    n_steps: int = 0
    n_rows: int = 0
    n_prompt_tokens: int = 0  # of requests whose work has begun
    n_cached_tokens: int = 0  # of these, known already
    n_requests: int = 0
    n_failed_steps: int = 0
    n_stopped_steps: int = 0  # because somebody was cancelled whose prompt they computed
    n_preemptions: int = 0
    n_drafted: int = 0  # guesses at tokens that were computed
    n_accepted: int = 0  # of these, right
    step_s: float = 0.0
