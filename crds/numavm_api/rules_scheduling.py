"""Rules on node affinity and tolerations; those of core/v1's validation (pkg/apis/core/validation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from numavm_api.numavm import LastLevelCache, NumaVMSpec
from numavm_api.scheduling import (
    NodeSelectorRequirement,
    NodeSelectorTerm,
    SelectorOperator,
    TolerationOperator,
)
from numavm_api.violation import Violation

Rule = Callable[[NumaVMSpec], Iterator[Violation]]
_NODES: Final = "spec.affinity.nodeAffinity"
_REQUIRED: Final = f"{_NODES}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
_PREFERRED: Final = f"{_NODES}.preferredDuringSchedulingIgnoredDuringExecution"


def scheduling_rules() -> tuple[Rule, ...]:
    """Return the rules on where a VM may go."""
    return (_values_fit_operators, _tolerations, _whole_caches_need_dedicated_cpus)


def _values_fit_operators(spec: NumaVMSpec) -> Iterator[Violation]:
    for path, term in _terms(spec):
        for at, one in enumerate(term.match_expressions):
            limit = _wrong_values(one)
            if limit:
                yield Violation(
                    f"{path}.matchExpressions[{at}].values",
                    f"{one.values}",
                    limit,
                    "change values or operator",
                )


def _terms(spec: NumaVMSpec) -> Iterator[tuple[str, NodeSelectorTerm]]:
    nodes = spec.affinity.node_affinity
    if nodes is None:
        return
    required = nodes.required_during_scheduling_ignored_during_execution
    for at, term in enumerate(required.node_selector_terms if required else ()):
        yield f"{_REQUIRED}[{at}]", term
    for at, preferred in enumerate(nodes.preferred_during_scheduling_ignored_during_execution):
        yield f"{_PREFERRED}[{at}].preference", preferred.preference


def _wrong_values(one: NodeSelectorRequirement) -> str:
    match one.operator:
        case SelectorOperator.IN | SelectorOperator.NOT_IN:
            return "" if one.values else f"operator {one.operator} needs at least one value"
        case SelectorOperator.EXISTS | SelectorOperator.DOES_NOT_EXIST:
            return f"operator {one.operator} takes none" if one.values else ""
        case SelectorOperator.GT | SelectorOperator.LT:
            good = len(one.values) == 1 and one.values[0].removeprefix("-").isdecimal()
            return "" if good else f"operator {one.operator} needs one whole number"


def _tolerations(spec: NumaVMSpec) -> Iterator[Violation]:
    for at, one in enumerate(spec.tolerations):
        path = f"spec.tolerations[{at}]"
        exists = one.operator is TolerationOperator.EXISTS
        if one.key is None and not exists:
            yield Violation(
                f"{path}.operator", one.operator, "every key is named by Exists", "set a key"
            )
        if exists and one.value is not None:
            yield Violation(
                f"{path}.value", one.value, "operator Exists takes none", "leave value out"
            )


def _whole_caches_need_dedicated_cpus(spec: NumaVMSpec) -> Iterator[Violation]:
    whole = spec.placement.last_level_cache is LastLevelCache.WHOLE
    if whole and not spec.domain.cpu.dedicated_cpu_placement:
        yield Violation(
            "spec.placement.lastLevelCache",
            LastLevelCache.WHOLE,
            "vCPUs without dedicated CPUs hold no cache",
            "set spec.domain.cpu.dedicatedCpuPlacement to true or leave lastLevelCache out",
        )
