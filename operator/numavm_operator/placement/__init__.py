"""Where a VM goes: host, host cells, CPUs, pages, emulator and overhead in one decision. Pure.

The story, one file a chapter: a `request` states demands; a `host` becomes what is `free` under claims
(`state`, `fleet`); `candidates` sorts out hosts that do not come into question; `fit` maps guest cells to host
cells, sound and complete (`problem`, `distinct`, `sharing`, `spanning`, `complete`); `score` says what is left;
`choose` takes the best host, with what `memory` knows already; `cpus` picks the CPUs and `build` writes the
claim; `misses`, `summary` and `explain` say why not. `amend` does the same for a running VM some of whose
cells are to be elsewhere.
"""

from numavm_operator.placement.amend import amend, moved_cells, turned_back
from numavm_operator.placement.choose import place
from numavm_operator.placement.explain import Explanation, explain
from numavm_operator.placement.fleet import Fleet
from numavm_operator.placement.host import Host, host_from
from numavm_operator.placement.outcome import (
    Cause,
    CauseCount,
    Miss,
    Placed,
    Refusal,
    Undecided,
)
from numavm_operator.placement.policy import Policy, Weights
from numavm_operator.placement.request import Request, overhead_of, request_for
from numavm_operator.placement.summary import summary

__all__ = [
    "Cause",
    "CauseCount",
    "Explanation",
    "Fleet",
    "Host",
    "Miss",
    "Placed",
    "Policy",
    "Refusal",
    "Request",
    "Undecided",
    "Weights",
    "amend",
    "explain",
    "host_from",
    "moved_cells",
    "overhead_of",
    "place",
    "request_for",
    "summary",
    "turned_back",
]
