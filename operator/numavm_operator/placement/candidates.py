"""Which hosts come into question at all: everything that is decided without looking at what is free."""

from __future__ import annotations

from numavm_api.numavm import DomainType
from numavm_operator.placement.host import Host
from numavm_operator.placement.outcome import Cause, Miss
from numavm_operator.placement.request import HostNeeds, Request, Wanted
from numavm_operator.placement.shape import CpuRule, Shape


def ineligible(host: Host, request: Request) -> Miss | None:
    """Return why `host` does not come into question for this one VM; None: it does."""
    if request.tied_to is not None and request.tied_to != host.name:
        return Miss(Cause.TIED_ELSEWHERE, detail=request.tied_to)
    if host.name in request.excluded:
        return Miss(Cause.EXCLUDED, detail=request.excluded[host.name])
    if host.name in request.kept:
        return Miss(Cause.KEPT, detail=request.kept[host.name])
    away = request.away.get(host.name)
    if away is not None and away.cells is None:
        return Miss(Cause.SPREAD, detail=away.other)
    return None


def unsuitable(host: Host, wanted: Wanted) -> Miss | None:
    """Return why `host` is not for any VM that wants this; None: what is free decides."""
    shape = wanted.shape
    return (
        _not_open(host)
        or _wrong_node(host, wanted.host)
        or _unable(host, wanted.host, shape)
        or _forbidden(host, wanted.host)
        or _without_siblings(host, shape)
    )


def emulated(host: Host, needs: HostNeeds) -> bool:
    """Tell whether such a VM would run under TCG here."""
    return needs.domain_type is DomainType.TCG or not host.kvm


def _not_open(host: Host) -> Miss | None:
    if host.fenced:
        return Miss(Cause.FENCED)
    if host.unschedulable:
        return Miss(Cause.UNSCHEDULABLE)
    if not host.reachable:
        return Miss(Cause.UNREACHABLE)
    if not host.ready:
        return Miss(Cause.NOT_READY, detail=host.not_ready_because)
    return None


def _wrong_node(host: Host, needs: HostNeeds) -> Miss | None:
    taint = needs.nodes.repelled_by(host.node)
    if taint is not None:
        return Miss(Cause.TAINT, detail=str(taint))
    for label, value in needs.node_selector:
        if (host.node.labels or {}).get(label) != value:
            return Miss(Cause.NODE_SELECTOR, detail=f"{label}={value}")
    return None if needs.nodes.suits(host.node) else Miss(Cause.NODE_AFFINITY)


def _unable(host: Host, needs: HostNeeds, shape: Shape) -> Miss | None:
    no_type = _wrong_domain_type(host, needs.domain_type)
    if no_type is not None:
        return no_type
    if needs.machine_type.startswith("pc-") and needs.machine_type not in host.machine_types:
        return Miss(Cause.MACHINE_TYPE, detail=needs.machine_type)
    if shape.vcpus > host.max_vcpus:
        return Miss(Cause.MAX_VCPUS, shape.vcpus, host.max_vcpus)
    return None


def _forbidden(host: Host, needs: HostNeeds) -> Miss | None:
    """Return what its administrator does not permit here; the agent would refuse it all the same."""
    for path in needs.host_paths:
        if not any(_below(path, directory) for directory in host.directories):
            return Miss(Cause.NOT_PERMITTED, detail=path)
    for power in needs.powers:
        if power not in host.powers:
            cause = Cause.POWER_NOT_PERMITTED if power.name is None else Cause.NETWORK_NOT_PERMITTED
            return Miss(cause, detail=str(power))
    return None


def _wrong_domain_type(host: Host, domain_type: DomainType) -> Miss | None:
    match domain_type:
        case DomainType.KVM:
            return None if host.kvm else Miss(Cause.NO_KVM)
        case DomainType.TCG:
            return None if host.emulation else Miss(Cause.EMULATION_NOT_ALLOWED)
        case DomainType.AUTO:
            return None if host.kvm or host.emulation else Miss(Cause.NO_KVM)


def _below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _without_siblings(host: Host, shape: Shape) -> Miss | None:
    if shape.rule is not CpuRule.SIBLINGS:
        return None
    widest = max((core.width for cell in host.cells for core in cell.cores), default=0)
    if widest >= shape.group_size:
        return None
    return Miss(Cause.NO_SIBLINGS, shape.group_size, widest)
