"""Which hosts come into question at all: everything that is decided without looking at what is free."""

from __future__ import annotations

from numavm_api.numavm import DomainType
from numavm_operator.placement.host import Host
from numavm_operator.placement.outcome import Cause, Miss
from numavm_operator.placement.request import CpuRule, Request, Shape


def ineligible(host: Host, request: Request) -> Miss | None:
    """Return why `host` does not come into question for this one VM; None: it does."""
    if request.tied_to is not None and request.tied_to != host.name:
        return Miss(Cause.TIED_ELSEWHERE, detail=request.tied_to)
    if host.name in request.excluded:
        return Miss(Cause.EXCLUDED, detail=request.excluded[host.name])
    return None


def unsuitable(host: Host, shape: Shape) -> Miss | None:
    """Return why `host` is not for any VM of this shape; None: what is free decides."""
    return _not_open(host) or _unable(host, shape) or _without_siblings(host, shape)


def emulated(host: Host, shape: Shape) -> bool:
    """Tell whether a VM of this shape would run under TCG here."""
    return shape.domain_type is DomainType.TCG or not host.kvm


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


def _unable(host: Host, shape: Shape) -> Miss | None:
    for label, value in shape.node_selector:
        if host.labels.get(label) != value:
            return Miss(Cause.NODE_SELECTOR, detail=f"{label}={value}")
    no_type = _wrong_domain_type(host, shape.domain_type)
    if no_type is not None:
        return no_type
    if shape.machine_type.startswith("pc-") and shape.machine_type not in host.machine_types:
        return Miss(Cause.MACHINE_TYPE, detail=shape.machine_type)
    if shape.vcpus > host.max_vcpus:
        return Miss(Cause.MAX_VCPUS, shape.vcpus, host.max_vcpus)
    for path in shape.host_paths:
        if not any(_below(path, directory) for directory in host.directories):
            return Miss(Cause.NOT_PERMITTED, detail=path)
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
