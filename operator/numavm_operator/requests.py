"""What a NumaVM asks of the placement: the reading of spec and status that scheduler and `explain` share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from numavm_api.effective import effective
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement
from numavm_api.powers import powers_asked
from numavm_api.request_hash import request_hash
from numavm_api.resolved import with_kept_cells
from numavm_api.rules_devices import host_paths
from numavm_api.scheduling import SpreadOver
from numavm_operator.objects import Vm
from numavm_operator.placement import Away, Fleet, Request, request_for
from numavm_operator.reconcile.refusals import Excluded, excluded


def left_out(
    vm: Vm, host_version: Callable[[str], int | None], now: datetime
) -> dict[str, Excluded]:
    """Return the hosts that are left out for what their agents have refused, with why and for how long.

    Args:
        vm: The VM.
        host_version: Gives the resourceVersion of a NumaHost; None: there is none.
        now: The time of day.
    """
    found: dict[str, Excluded] = {}
    for refusal in vm.status.refusals:
        version = host_version(refusal.node_name)
        text = None if version is None else str(version)
        out = excluded(refusal, host_version=text, now=now)
        if out is not None:
            found[refusal.node_name] = out
    return found


def request_of(
    vm: Vm,
    spec: NumaVMSpec,
    *,
    placement_id: str,
    epoch: int,
    excluded_hosts: Mapping[str, str] | None = None,
    kept: Mapping[str, str] | None = None,
    away: Mapping[str, Away] | None = None,
) -> Request:
    """Return the request of a NumaVM.

    Args:
        vm: The NumaVM.
        spec: Its spec, accepted.
        placement_id: Names the claim that may come of it.
        epoch: The leader's.
        excluded_hosts: Hosts that do not count now, with the reason.
        kept: Hosts that are kept for another VM, with its name.
        away: Hosts with VMs that it is to be spread from (`spread_from`).
    """
    former = former_host(vm)
    domain = vm.status.domain
    return request_for(
        with_kept_cells(effective(spec), vm.status.derived_cells),
        uid=vm.uid,
        namespace=vm.key.namespace,
        name=vm.key.name,
        placement_id=placement_id,
        epoch=epoch,
        request_hash=request_hash(spec),
        domain_type=spec.domain.type,
        machine_type=(domain.machine if domain else None) or spec.domain.machine.type,
        host_paths=tuple(path for _, path in host_paths(spec)),
        powers=powers_asked(spec),
        node_selector=spec.node_selector,
        node_affinity=spec.affinity.node_affinity,
        tolerations=spec.tolerations,
        excluded=excluded_hosts,
        kept=kept,
        away=away,
        tied_to=former if spec.volumes else None,
        former_host=former,
    )


def spread_from(vm: Vm, spec: NumaVMSpec, vms: Iterable[Vm], fleet: Fleet) -> dict[str, Away]:
    """Return the hosts with VMs of the same namespace that `spec.placement.spread` keeps this one away from."""
    if not spec.placement.spread:
        return {}
    others = [one for one in vms if one.key.namespace == vm.key.namespace and one.uid != vm.uid]
    found: dict[str, Away] = {}
    for name in fleet.states:
        claims = fleet.claims(name)
        here = [other for other in others if other.uid in claims]
        for other in sorted(here, key=lambda one: one.key):
            for over in sorted(_kept_from(spec, other)):
                cells = _cells_of(claims[other.uid]) if over is SpreadOver.CELL else None
                found[name] = _both(found.get(name), Away(str(other.key), cells))
    return found


def _kept_from(spec: NumaVMSpec, other: Vm) -> set[SpreadOver]:
    """Return what a VM does not share with another one."""
    return {
        one.over
        for one in spec.placement.spread
        if one.label_selector.match_labels.items() <= other.labels.items()
    }


def _cells_of(claims: Iterable[Placement]) -> frozenset[int]:
    return frozenset(cell for claim in claims for cell in (*claim.host_cells, claim.overhead_cell))


def _both(known: Away | None, more: Away) -> Away:
    if known is None or known.cells is None:
        return known or more
    return more if more.cells is None else Away(known.other, known.cells | more.cells)


def former_host(vm: Vm) -> str | None:
    """Return where the VM last ran: a hostDisk ties it there, and others go back there if they can.

    An agent that refuses a later claim reports no start; the machine type, known only of a domain
    that was there, stays.
    """
    domain = vm.status.domain
    if domain is None or (domain.started_at is None and domain.machine is None):
        return None
    return domain.node_name
