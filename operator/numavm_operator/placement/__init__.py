"""Where a VM goes: host, host cells, CPUs, pages, emulator and overhead in one decision. Pure.

The story, one file a chapter: a `request` states its `demands` as the `shape` of each of its `alternatives`; a `host`
becomes what is `free` under claims (`state`, `fleet`, `devices`, `cores`, `caches`); `candidates` sorts out hosts
that do not come into question (`nodes`, `spread`); `fit` tries the alternatives, and `search` maps guest cells to
host cells, sound and complete (`problem`, `openings`, `distinct` with `nearest`, `sharing`, `spanning`, `complete`,
`hands`); `score` says what is left; `choose` takes the best host: those that are alike are `groups`, of which a
`ranking` asks the ones that may still win by their `bounds`, and `memory` keeps what was found out; `cpus` picks the
CPUs and `build` writes the claim; `misses`, `summary` and `explain` say why not; `queue` says whose turn it is.
`amend` does the same for a running VM some of whose cells are to be elsewhere (`moves`).
"""

from numavm_operator.placement.amend import amend, turned_back
from numavm_operator.placement.choose import host_to_keep, place
from numavm_operator.placement.demands import overhead_of
from numavm_operator.placement.explain import Explanation, explain
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.host import Host, host_from
from numavm_operator.placement.moves import memory_moves, moved_cells
from numavm_operator.placement.nodes import Taint
from numavm_operator.placement.outcome import (
    Cause,
    CauseCount,
    Miss,
    Placed,
    Refusal,
    Undecided,
)
from numavm_operator.placement.policy import POLICIES, SPREAD, Policy, Weights
from numavm_operator.placement.queue import DEFAULT_PRIORITY, Patience, Queue, Turn, turn_of
from numavm_operator.placement.request import Away, Request, request_for
from numavm_operator.placement.summary import summary

__all__ = [
    "DEFAULT_PRIORITY",
    "POLICIES",
    "SPREAD",
    "Away",
    "Cause",
    "CauseCount",
    "Explanation",
    "Fleet",
    "Host",
    "Miss",
    "Patience",
    "Placed",
    "Policy",
    "Queue",
    "Refusal",
    "Request",
    "Taint",
    "Turn",
    "Undecided",
    "Weights",
    "amend",
    "explain",
    "host_from",
    "host_to_keep",
    "memory_moves",
    "moved_cells",
    "overhead_of",
    "place",
    "request_for",
    "summary",
    "turn_of",
    "turned_back",
]
