"""What the engine needs of the runtime below it. Tests have one of their own, without a model."""

from __future__ import annotations

from typing import Protocol

from tenth.batch import F32, I32, Batch, StepResult


class StepRuntime(Protocol):
    """What the engine needs of tenth.runtime.Runtime."""

    @property
    def n_pages(self) -> int:
        """Pages of the KV cache."""

    @property
    def max_rows(self) -> int:
        """Most tokens in one step."""

    @property
    def max_outputs(self) -> int:
        """Most rows with logits in one step."""

    @property
    def vocab_size(self) -> int:
        """Logits in a row."""

    @property
    def context_tokens(self) -> int:
        """Longest sequence."""

    @property
    def writes_text(self) -> bool:
        """Whether steps choose tokens; else they give vectors."""

    @property
    def reads_whole(self) -> bool:
        """Whether a step has to have a sequence whole."""

    @property
    def prompts_apart(self) -> bool:
        """Whether a step computes rows of a prompt otherwise than those behind it."""

    @property
    def result_row(self) -> str:
        """Which row of a sequence a vector is of: "last", "first", or "every"."""

    @property
    def has_drafter(self) -> bool:
        """Whether ``draft`` can be asked."""

    def draft(self, batch: Batch) -> StepResult:
        """The likeliest next tokens of rows that go on from those of the last step, see engine/drafter.py."""

    @property
    def runs_ahead(self) -> bool:
        """Whether ``run_ahead`` can be asked."""

    def run_ahead(self, batch: Batch, most: int, ends: I32) -> StepResult:
        """At most so many steps, each going on from the tokens of the one before; none behind one of ``ends``."""

    def hurry(self) -> None:
        """Have ``run_ahead`` return soon."""

    @property
    def n_slots(self) -> int:
        """Places for recurrent states, more than sequences at work; 0 for a model that keeps none."""

    @property
    def n_spare_slots(self) -> int:
        """Of these, for states behind guesses."""

    @property
    def noted_experts(self) -> tuple[int, int] | None:
        """(layers, experts of each) where steps note which experts every row uses, for ``take_trace``; else None."""

    def take_trace(self) -> list[list[int]]:
        """What was noted since the last time, by layer."""

    def copy_slot(self, source: int, target: int) -> None:
        """Copy the state in one place to another."""

    def step(self, batch: Batch) -> StepResult:
        """Compute the rows of a batch; without sampling settings the result is not looked at."""

    def stop(self) -> None:
        """Have a step that runs in another thread raise StepStopped soon, if it can be computed again."""

    def logits(self) -> F32:
        """Logits [m, vocab] of the last step, a copy."""

    def close(self) -> None:
        """Free everything."""
