"""One VM that wants a host: what it asks of the host's cells, of the host itself, and of this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from numavm_api.effective import EffectiveVM
from numavm_api.numavm import DomainType
from numavm_api.powers import Grant
from numavm_api.scheduling import NodeAffinity, Toleration
from numavm_operator.placement.alternatives import Way, ways_of
from numavm_operator.placement.nodes import ANY_NODE, NodeWishes, wishes_of
from numavm_operator.placement.shape import Shape

_NOBODY: Final[Mapping[str, Any]] = MappingProxyType({})


class HostNeeds(NamedTuple):
    """What a VM asks of a host, whatever is free there."""

    domain_type: DomainType = DomainType.AUTO
    machine_type: str = "q35"
    host_paths: tuple[str, ...] = ()
    powers: tuple[Grant, ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    nodes: NodeWishes = ANY_NODE


class Wanted(NamedTuple):
    """Everything of a request that decides where it fits: equal ones get equal answers from equal hosts."""

    ways: tuple[Way, ...]
    all_ways: bool
    """False: there are ways that were not looked at, so that nothing can be refused."""
    host: HostNeeds

    @property
    def shape(self) -> Shape:
        """The cheapest way, which most VMs have as their only one."""
        return self.ways[0].shape


@dataclass(frozen=True, slots=True)
class Away:
    """What a VM keeps away from on one host."""

    other: str
    """The name of a VM that is there."""
    cells: frozenset[int] | None = None
    """Ids of host cells; None: the whole host."""


class Request(NamedTuple):
    """One VM that wants a host."""

    uid: str
    namespace: str
    name: str
    vm: EffectiveVM
    wanted: Wanted
    plain: tuple[EffectiveVM, ...]
    """The plain VM of each of `wanted.ways`."""
    placement_id: str
    epoch: int
    request_hash: str
    priority: int = 0
    excluded: Mapping[str, str] = _NOBODY
    """Hosts that do not count now, with the reason."""
    kept: Mapping[str, str] = _NOBODY
    """Hosts that are kept for another VM, with its name."""
    away: Mapping[str, Away] = _NOBODY
    """Hosts with VMs that it is to be spread from."""
    tied_to: str | None = None
    """The only host that counts."""
    former_host: str | None = None
    """The host that wins among those of equal distance."""

    @property
    def shape(self) -> Shape:
        """The shape of the VM as its user would have it first."""
        return self.wanted.shape


def request_for(  # noqa: PLR0913 - all by keyword, each a fact of its own
    vm: EffectiveVM,
    *,
    uid: str,
    namespace: str,
    name: str,
    placement_id: str,
    epoch: int,
    request_hash: str,
    domain_type: DomainType = DomainType.AUTO,
    machine_type: str = "q35",
    host_paths: tuple[str, ...] = (),
    powers: tuple[Grant, ...] = (),
    node_selector: Mapping[str, str] | None = None,
    node_affinity: NodeAffinity | None = None,
    tolerations: Sequence[Toleration] = (),
    priority: int = 0,
    excluded: Mapping[str, str] | None = None,
    kept: Mapping[str, str] | None = None,
    away: Mapping[str, Away] | None = None,
    tied_to: str | None = None,
    former_host: str | None = None,
) -> Request:
    """Return the request of `vm`.

    Args:
        vm: The VM; `numavm_api.validation.validate` accepted its spec.
        uid: The NumaVM's uid.
        namespace: For people.
        name: For people.
        placement_id: Goes into the placement as it is, like `epoch` and `request_hash`.
        epoch: The leader's.
        request_hash: `numavm_api.request_hash.request_hash(spec)`.
        domain_type: `spec.domain.type`.
        machine_type: `spec.domain.machine.type`, or the version that status keeps.
        host_paths: Every host path of the spec; the host must permit them.
        powers: What the spec asks of the host's administrator (`powers_asked`).
        node_selector: Labels the node must have.
        node_affinity: `spec.affinity.nodeAffinity`.
        tolerations: `spec.tolerations`.
        priority: Larger goes first in a queue; the engine itself does not read it.
        excluded: Hosts that do not count now, with the reason.
        kept: Hosts that are kept for another VM, with its name.
        away: Hosts with VMs that it is to be spread from.
        tied_to: The only host that counts (a disk of the VM lies there).
        former_host: Where the VM ran before.
    """
    ways = ways_of(vm)
    needs = HostNeeds(
        domain_type=domain_type,
        machine_type=machine_type,
        host_paths=tuple(sorted(host_paths)),
        powers=powers,
        node_selector=tuple(sorted((node_selector or {}).items())),
        nodes=wishes_of(node_affinity, tolerations),
    )
    return Request(
        uid=uid,
        namespace=namespace,
        name=name,
        vm=vm,
        wanted=Wanted(ways.ways, ways.all_there, needs),
        plain=ways.vms,
        placement_id=placement_id,
        epoch=epoch,
        request_hash=request_hash,
        priority=priority,
        excluded=dict(excluded) if excluded else _NOBODY,
        kept=dict(kept) if kept else _NOBODY,
        away=dict(away) if away else _NOBODY,
        tied_to=tied_to,
        former_host=former_host,
    )
