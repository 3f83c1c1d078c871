"""On which NUMA node the weights lie that each worker reads: whether placing works on this machine.

    python scripts/weight_nodes.py MODEL.gguf [--unplaced]

Loads the model with a worker for each core. Per worker: the node of its processor, and how many megabytes of the
weights that it takes first lie on which node, as move_pages(2) tells (it moves nothing without a list of nodes). On a
machine of one node that is all of them.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from collections import Counter
from pathlib import Path

import tenth
from tenth import _core

MOVE_PAGES = 279  # of x86-64
PAGE = os.sysconf("SC_PAGE_SIZE")
NODES = "/sys/devices/system/node"


def nodes_of_pages(stretches: list[tuple[int, int]]) -> Counter[int]:
    """How many pages of these addresses lie on each node; below 0: errors, as -ENOENT for a page that is not there."""
    pages = [page for start, end in stretches for page in range(start // PAGE * PAGE, end, PAGE)]
    addresses, nodes = (ctypes.c_void_p * len(pages))(*pages), (ctypes.c_int * len(pages))()
    if ctypes.CDLL(None, use_errno=True).syscall(MOVE_PAGES, 0, ctypes.c_ulong(len(pages)), addresses, None, nodes, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return Counter(nodes)


def main() -> None:
    """Load, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--unplaced", action="store_true", help="leave placing out, to compare")
    args = parser.parse_args()
    if args.unplaced:
        _core.Plan.place_weights = lambda _: None  # type: ignore[method-assign]
    processors = _core.physical_processors()
    nodes = sorted(_core.nodes_of(processors, NODES))  # workers are numbered node by node
    with tenth.load(args.model, threads=len(processors), context_tokens=256) as model:
        plan = model.loaded.runtime._plan
        for worker, node in enumerate(nodes):
            found = nodes_of_pages(plan.stretches_of(worker))
            of_all = {n: f"{count * PAGE / 1e6:.1f} MB" for n, count in sorted(found.items())}
            print(f"worker {worker} on node {node}: {of_all}, {found[node] / found.total():.1%} there")


if __name__ == "__main__":
    main()
