"""What a VM asks of a node's labels, name and taints, with Kubernetes' meaning.

The semantics are those of k8s.io/component-helpers: terms are alternatives, what stands in a term holds together, an
empty term suits nothing, NotIn and DoesNotExist hold where the label is missing, Gt and Lt compare whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from numavm_api.scheduling import (
    NodeAffinity,
    NodeSelectorTerm,
    SelectorOperator,
    TaintEffect,
    Toleration,
    TolerationOperator,
)

CORDON_TAINT: Final = "node.kubernetes.io/unschedulable"
"""What a cordon is to the scheduler of pods, and who tolerates it comes all the same."""

OF_THE_KUBELET: Final = frozenset(
    {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
)
"""Taints that say a kubelet is silent, which no VM needs: whether a host is alive is its agent's Lease to say. The API
server gives the first to every node at its creation, and only a kubelet's health takes it away."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        return f"{self.key}{value}:{self.effect}"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a VM can ask of a node."""

    name: str = ""
    labels: Mapping[str, str] | None = None
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False

    @property
    def all_taints(self) -> tuple[Taint, ...]:
        """Its taints, a cordon among them."""
        cordon = Taint(CORDON_TAINT, "", TaintEffect.NO_SCHEDULE)
        taints = tuple(one for one in self.taints if one.key not in OF_THE_KUBELET)
        return (*taints, cordon) if self.cordoned and cordon not in taints else taints


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing asked of a label, or of the name."""

    of_name: bool
    key: str
    operator: str
    values: tuple[str, ...]

    def holds(self, node: NodeFacts) -> bool:
        """Tell whether the node is so."""
        label = node.name if self.of_name else (node.labels or {}).get(self.key)
        match SelectorOperator(self.operator):
            case SelectorOperator.IN:
                return label in self.values
            case SelectorOperator.NOT_IN:
                return label not in self.values
            case SelectorOperator.EXISTS:
                return label is not None
            case SelectorOperator.DOES_NOT_EXIST:
                return label is None
            case SelectorOperator.GT:
                return _number(label) is not None and _compare(label, self.values[0]) > 0
            case SelectorOperator.LT:
                return _number(label) is not None and _compare(label, self.values[0]) < 0


Term = tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class NodeWishes:
    """A VM's node affinity and tolerations."""

    required: tuple[Term, ...] | None = None
    """Alternatives; None: any node."""
    preferred: tuple[tuple[int, Term], ...] = ()
    tolerated: tuple[tuple[str | None, str | None, str | None], ...] = ()
    """(key, value, effect), None for any."""

    def suits(self, node: NodeFacts) -> bool:
        """Tell whether the required terms let the VM come here."""
        return self.required is None or any(_suits(term, node) for term in self.required)

    def repelled_by(self, node: NodeFacts) -> Taint | None:
        """Return the first taint that keeps the VM away."""
        hard = (one for one in node.all_taints if one.effect != TaintEffect.PREFER_NO_SCHEDULE)
        return next((taint for taint in hard if not self._tolerates(taint)), None)

    def dislike(self, node: NodeFacts) -> tuple[int, int]:
        """Return what speaks against the node: soft taints, and less than no weight of preferred terms."""
        soft = [one for one in node.taints if one.effect == TaintEffect.PREFER_NO_SCHEDULE]
        liked = sum(weight for weight, term in self.preferred if _suits(term, node))
        return sum(not self._tolerates(taint) for taint in soft), -liked

    def _tolerates(self, taint: Taint) -> bool:
        return any(
            key in (None, taint.key)
            and value in (None, taint.value)
            and effect in (None, taint.effect)
            for key, value, effect in self.tolerated
        )


ANY_NODE: Final = NodeWishes()


def wishes_of(affinity: NodeAffinity | None, tolerations: Sequence[Toleration]) -> NodeWishes:
    """Return the wishes that a spec has."""
    if affinity is None and not tolerations:
        return ANY_NODE
    nodes = affinity or NodeAffinity()
    required = nodes.required_during_scheduling_ignored_during_execution
    return NodeWishes(
        required=None if required is None else tuple(map(_term, required.node_selector_terms)),
        preferred=tuple(
            (one.weight, _term(one.preference))
            for one in nodes.preferred_during_scheduling_ignored_during_execution
        ),
        tolerated=tuple(
            (
                one.key,
                None if one.operator is TolerationOperator.EXISTS else one.value or "",
                one.effect,
            )
            for one in tolerations
        ),
    )


def _term(term: NodeSelectorTerm) -> Term:
    return (
        *(Ask(False, one.key, one.operator, tuple(one.values)) for one in term.match_expressions),  # noqa: FBT003 - a field
        *(Ask(True, one.key, one.operator, tuple(one.values)) for one in term.match_fields),  # noqa: FBT003 - the same
    )


def _suits(term: Term, node: NodeFacts) -> bool:
    return bool(term) and all(ask.holds(node) for ask in term)


def _number(label: str | None) -> int | None:
    text = label or ""
    return int(text) if text.removeprefix("-").isdecimal() else None


def _compare(label: str | None, value: str) -> int:
    return (_number(label) or 0) - int(value)
