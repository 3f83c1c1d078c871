"""What fits into a memory budget: everything, or everything but the experts, of which some slots. Pure arithmetic.

Memory is granted in this order: Python itself, the dense weights ("trunk", read in full for every token), keys and
values for the context that was asked for, workspace, and the rest to the experts. Experts stream from the file when
they do not all fit; a trunk is never streamed.

A context that nobody asked for gives way before experts do: it is halved while keys and values take more than an eighth
of what they and the experts share, down to 2048 tokens; further only where the model could not run otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tenth.errors import Cause, ResourceError

LEAST_CONTEXT = 256  # a smaller one is not worth proposing
FAIR_CONTEXT = 2048  # down to here a context that nobody asked for gives way to experts
MOST_KV_SHARE = 1 / 8


@dataclass(frozen=True)
class Needs:
    """What a model needs, in bytes. Sizes of expert slices are those of their panels in memory.

    ``slices``: how many there are in all, by size. ``layer_slices``: how many one row uses in one layer, the most by
    size. ``token_bytes``: what one row uses in all layers. ``smaller_kv``: (context, bytes) that may be granted
    instead of ``kv``, largest first; empty when the context was asked for.
    """

    python: int
    trunk: int
    kv: int
    workspace: int
    slices: Mapping[int, int]
    layer_slices: Mapping[int, int]
    token_bytes: int
    stream_workspace: int  # more workspace when experts are streamed
    context_tokens: int
    chunk_tokens: int = 0  # most tokens of a prompt in one step
    state: int = 0  # of recurrent layers, for all sequences that may be at work
    smaller_kv: tuple[tuple[int, int], ...] = ()

    @property
    def experts(self) -> int:
        """Bytes of all experts."""
        return sum(size * n for size, n in self.slices.items())

    @property
    def fixed(self) -> int:
        """Bytes of everything but experts."""
        return self.python + self.trunk + self.kv + self.state + self.workspace

    @property
    def least(self) -> int:
        """The least budget: slots for the experts that one row uses in one layer, or everything when that is less."""
        slots = sum(size * n for size, n in self.layer_slices.items())
        return self.fixed + min(self.experts, slots + self.stream_workspace)


@dataclass(frozen=True)
class Placement:
    """Where the weights go. ``n_slots``: slots of the expert store by their size; empty when all is resident."""

    needs: Needs
    budget_bytes: int
    n_slots: Mapping[int, int]
    is_shortened: bool = False  # whether the context is shorter than usual, because memory is
    free_bytes: int | None = None  # on this machine, where the budget is somebody's word; else nobody asked

    @property
    def streams(self) -> bool:
        """Whether experts stay in the file until they are needed."""
        return bool(self.n_slots)

    @property
    def slot_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(size * n for size, n in self.n_slots.items())

    @property
    def granted_bytes(self) -> int:
        """Bytes of everything but Python."""
        needs = self.needs
        experts = self.slot_bytes + needs.stream_workspace if self.streams else needs.experts
        return needs.fixed - needs.python + experts

    @property
    def tokens_held(self) -> float:
        """How many times the experts that one token uses fit into the slots."""
        return self.slot_bytes / max(self.needs.token_bytes, 1)

    @property
    def warning(self) -> str | None:
        """What to tell the user, or None."""
        parts = []
        if self.streams and self.tokens_held < 1:
            parts.append(
                f"only {gb(self.slot_bytes)} are left for experts, less than the {gb(self.needs.token_bytes)} that one "
                f"token uses: every token reads nearly all of its experts from the disk"
            )
        if self.is_shortened:
            tokens = self.needs.context_tokens
            parts.append(f"memory is short, so the context is {tokens} tokens; --context asks for more")
        if self.free_bytes is not None and self.granted_bytes > self.free_bytes:
            parts.append(f"the model may take {gb(self.granted_bytes)}, but only {gb(self.free_bytes)} are free here")
        return "; ".join(parts) or None

    def as_data(self) -> dict[str, int | bool]:
        """The grants, for printing."""
        needs = self.needs
        more = needs.stream_workspace if self.streams else 0
        return {
            "budget_bytes": self.budget_bytes, "python_bytes": needs.python, "trunk_bytes": needs.trunk,
            "kv_bytes": needs.kv, "state_bytes": needs.state, "workspace_bytes": needs.workspace + more,
            "experts_bytes": needs.experts,
            "expert_slot_bytes": self.slot_bytes if self.streams else needs.experts, "streams": self.streams,
            "least_bytes": needs.least, "context_tokens": needs.context_tokens,
        }  # fmt: skip


def place(
    needs: Needs, budget_bytes: int, source: str = "the budget", always_stream: bool = False
) -> Placement:
    """The placement within a budget. Raises ResourceError, naming the least budget that would do.

    ``always_stream``: experts get slots, one for each slice, although all fit.
    """
    settled = settle(needs, budget_bytes)
    placement = _place(settled, budget_bytes, source)
    if always_stream and not placement.streams:
        placement = replace(placement, n_slots=settled.slices)
    return replace(placement, is_shortened=settled is not needs)


def settle(needs: Needs, budget_bytes: int) -> Needs:
    """The needs with keys and values for as many tokens as the budget is given to: see the head of this file."""
    choices = [needs]
    choices += [replace(needs, kv=kv, context_tokens=tokens, smaller_kv=()) for tokens, kv in needs.smaller_kv]
    for choice in choices:
        left = budget_bytes - choice.fixed
        is_fair = choice.kv <= MOST_KV_SHARE * (left + choice.kv) or choice.context_tokens <= FAIR_CONTEXT
        if left >= choice.experts or (choice.experts and is_fair and budget_bytes >= choice.least):
            return choice
    return next((choice for choice in choices if budget_bytes >= choice.least), choices[-1])


def _place(needs: Needs, budget_bytes: int, source: str) -> Placement:
    left = budget_bytes - needs.fixed
    if left >= needs.experts:
        return Placement(needs, budget_bytes, {})
    if budget_bytes < needs.least:
        raise ResourceError(_refusal(needs, budget_bytes, source), _way_out(needs, budget_bytes),
                            cause=Cause("model-large", bytes=needs.least, budget=budget_bytes))
    left -= needs.stream_workspace
    # The same share of every size, because a layer's matrices are used together; at least one row's.
    share = left / needs.experts
    n_slots = {size: max(int(share * n), needs.layer_slices[size]) for size, n in needs.slices.items()}
    excess = sum(size * n for size, n in n_slots.items()) - left
    for size in sorted(n_slots, key=lambda size: size * (needs.layer_slices[size] - n_slots[size])):
        fewer = min(max(-(-excess // size), 0), n_slots[size] - needs.layer_slices[size])
        n_slots[size] -= fewer
        excess -= fewer * size
    return Placement(needs, budget_bytes, n_slots)


def gb(n_bytes: float) -> str:
    """For messages: in GB (10^9 bytes), or MB where that says more."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _refusal(needs: Needs, budget_bytes: int, source: str) -> str:
    parts = [
        f"{gb(needs.trunk)} of weights", f"{gb(needs.kv)} of keys and values for {needs.context_tokens} tokens",
        f"{gb(needs.workspace)} of workspace", f"{gb(needs.python)} for Python",
    ]  # fmt: skip
    if needs.state:
        parts.append(f"{gb(needs.state)} of recurrent state")
    if needs.slices:
        parts.append(f"{gb(needs.least - needs.fixed)} for the experts of one token and layer")
    return (
        f"this model needs at least {gb(needs.least)}: {', '.join(parts[:-1])} and {parts[-1]}; "
        f"{source} is {gb(budget_bytes)}"
    )


def _way_out(needs: Needs, budget_bytes: int) -> str:
    # Rounded up, so that the number can be typed as it stands.
    enough = f"--memory {-(-needs.least // 10**7) / 100:.2f}GB would do"
    enough += ", less with a smaller --max-sequences" if needs.state else ""
    without_kv = needs.least - needs.kv
    tokens = (budget_bytes - without_kv) * needs.context_tokens // max(needs.kv, 1) // 256 * 256
    if tokens >= LEAST_CONTEXT:
        return f"{enough}, or --context {min(tokens, needs.context_tokens)}; else choose a smaller model"
    return f"{enough}; else choose a smaller model"
