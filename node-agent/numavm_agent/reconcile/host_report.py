"""The NumaHost's status, made whole from what the agent knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numavm_agent.reconcile.conditions import Finding, dated
from numavm_agent.reconcile.host_probe import Qemu
from numavm_agent.reconcile.kubelet_finding import pools_exclusive
from numavm_agent.topology.readings import HostTopology
from numavm_api.conditions import HostConditionType, Reason
from numavm_api.cpuset import CpuSet
from numavm_api.numahost import (
    Capabilities,
    EffectivePools,
    HeldClaim,
    HostCell,
    NumaHostSpec,
    NumaHostStatus,
)
from numavm_api.pools import OtherUsers, pool_violations
from numavm_api.quantity import BASE_PAGE, GIBIBYTE, Bytes, format_bytes


@dataclass(frozen=True, slots=True)
class HostView:
    """All that the report is made from."""

    agent_version: str
    generation: int
    spec: NumaHostSpec
    topology: HostTopology
    cells: Sequence[HostCell]
    pools: EffectivePools
    others: OtherUsers
    claims: Sequence[HeldClaim]
    highest_epoch: int
    qemu: Qemu | None
    """None: it is being found out."""
    why_fixed: str | None = None
    """Why memory of running VMs cannot be moved here; None: it can."""


def host_status(view: HostView, before: NumaHostStatus, *, now: str) -> NumaHostStatus:
    """Return the whole status of a host whose libvirt answers."""
    findings = [
        _ready(view),
        _pools_configured(view),
        _claims_consistent(view),
        pools_exclusive(view.spec, view.cells, view.others),
    ]
    return NumaHostStatus(
        observed_generation=view.generation,
        boot_id=view.topology.boot_id,
        agent_version=view.agent_version,
        highest_epoch=view.highest_epoch,
        capabilities=_capabilities(view.qemu, view) if view.qemu else before.capabilities,
        cells=list(view.cells),
        pools=view.pools,
        others=view.others.reported(),
        permitted=view.spec.permitted,
        pci_devices=list(view.topology.pci_devices),
        claims=sorted(view.claims, key=lambda claim: (claim.namespace, claim.name, claim.uid)),
        summary=_summary(view),
        conditions=dated(findings, before.conditions, generation=view.generation, now=now),
    )


def status_without_libvirt(
    before: NumaHostStatus, error: str, *, generation: int, boot_id: str, now: str
) -> NumaHostStatus:
    """Return the status of a host whose libvirt does not answer: what was held stays held, and nothing new may come."""
    finding = Finding(
        HostConditionType.READY,
        "False",
        Reason.LIBVIRT_UNAVAILABLE,
        f"libvirt does not answer: {error}",
    )
    others = [one for one in before.conditions if one.type != HostConditionType.READY]
    ready = dated([finding], before.conditions, generation=generation, now=now)
    return before.model_copy(update={"boot_id": boot_id, "conditions": [*ready, *others]})


def _ready(view: HostView) -> Finding:
    kind = HostConditionType.READY
    if view.qemu is None:
        return Finding(kind, "False", Reason.STARTING, "QEMU is asked what it can do here")
    return Finding(kind, "True", Reason.AGENT_READY, "libvirt answers, and the topology is read")


def _pools_configured(view: HostView) -> Finding:
    kind = HostConditionType.POOLS_CONFIGURED
    violations = pool_violations(view.spec, view.cells, view.others)
    nothing = not view.pools.dedicated and not view.pools.shared
    if violations:
        reason = Reason.NO_POOL if nothing else Reason.INVALID_POOLS
        return Finding(kind, "False", reason, " ".join(str(one) for one in violations))
    if nothing:
        return Finding(
            kind,
            "False",
            Reason.NO_POOL,
            "No CPU may be handed out: name CPUs in spec.dedicatedCpus or spec.sharedCpus",
        )
    named = (view.spec.reserved_cpus, view.spec.dedicated_cpus, view.spec.shared_cpus)
    by_hand = any(pool is not None for pool in named)
    reason = Reason.ADMINISTRATOR_POOLS if by_hand else Reason.DEFAULT_POOLS
    pools = view.pools
    named_pools = (
        ("dedicated", pools.dedicated),
        ("shared", pools.shared),
        ("housekeeping", pools.housekeeping),
    )
    message = ", ".join(f"{name} {cpus or 'none'}" for name, cpus in named_pools)
    return Finding(kind, "True", reason, message)


def _claims_consistent(view: HostView) -> Finding:
    kind = HostConditionType.CLAIMS_CONSISTENT
    overlaps = _overlaps(view)
    if overlaps:
        return Finding(kind, "False", Reason.OVERLAP, "; ".join(overlaps))
    orphans = [
        f"{claim.namespace}/{claim.name} ({claim.uid})" for claim in view.claims if claim.orphan
    ]
    if orphans:
        message = (
            f"domains whose NumaVM is gone are kept, with what they hold: {', '.join(orphans)}"
        )
        return Finding(kind, "False", Reason.ORPHANED_DOMAINS, message)
    return Finding(kind, "True", Reason.CONSISTENT, "Nothing is held twice")


def _overlaps(view: HostView) -> list[str]:
    found: list[str] = []
    seen: list[HeldClaim] = []
    for claim in view.claims:
        cpus = claim.placement.held_cpus
        found += [
            f"CPU {cpus & other.placement.held_cpus} is held by {claim.namespace}/{claim.name} and "
            f"{other.namespace}/{other.name}"
            for other in seen
            if not cpus.isdisjoint(other.placement.held_cpus)
        ]
        found += [
            f"CPU {cpus & taken} of {claim.namespace}/{claim.name} {by}"
            for taken, by in _foreign(view.others)
            if not cpus.isdisjoint(taken)
        ]
        seen.append(claim)
    return found


def _foreign(others: OtherUsers) -> list[tuple[CpuSet, str]]:
    kubelet = others.kubelet.exclusive_cpus if others.kubelet else CpuSet()
    return [
        (others.domain_cpus, "is pinned by a domain that NumaVM did not start"),
        (
            kubelet,
            f"was given to a pod by the kubelet: have its reservedSystemCPUs hold '{kubelet}', and restart the pod",
        ),
    ]


def _capabilities(qemu: Qemu, view: HostView) -> Capabilities:
    return Capabilities(
        kvm=qemu.kvm.works,
        kvm_message=qemu.kvm.message[:253],
        emulation_allowed=view.spec.allow_emulation,
        libvirt_version=qemu.libvirt_version,
        qemu_version=qemu.qemu_version,
        machine_types=list(qemu.emulator.machine_types)[:256],
        max_vcpus=qemu.emulator.max_vcpus,
        memory_moves=view.why_fixed is None,
        memory_moves_message=view.why_fixed,
    )


def _summary(view: HostView) -> dict[str, str]:
    held = CpuSet.union_of(claim.placement.held_cpus for claim in view.claims)
    pool = view.pools.dedicated
    booked = _booked(view.claims)
    base = sum(cell.memory.allocatable for cell in view.cells)
    base_held = sum(amount for (_, size), amount in booked.items() if size == BASE_PAGE)
    return {
        "cells": str(len(view.cells)),
        "cpus": f"{len(pool - held)}/{len(pool)}",
        "memory": f"{_gib(base - base_held)}/{_gib(base)}Gi",
        "hugepages": _hugepages_text(view, booked),
        "vms": str(len(view.claims)),
    }


def _hugepages_text(view: HostView, booked: dict[tuple[int, Bytes], Bytes]) -> str:
    sizes = sorted({pool.page_size for cell in view.cells for pool in cell.hugepages if pool.total})
    texts: list[str] = []
    for size in sizes:
        total = sum(
            pool.allocatable
            for cell in view.cells
            for pool in cell.hugepages
            if pool.page_size == size
        )
        held = sum(
            amount // size for (_, booked_size), amount in booked.items() if booked_size == size
        )
        texts.append(f"{format_bytes(size)}: {total - held}/{total}")
    return ", ".join(texts) or "none"


def _booked(claims: Sequence[HeldClaim]) -> dict[tuple[int, Bytes], Bytes]:
    booked: dict[tuple[int, Bytes], Bytes] = {}
    for claim in claims:
        for key, amount in claim.placement.held_memory().items():
            booked[key] = Bytes(booked.get(key, 0) + amount)
    return booked


def _gib(amount: int) -> str:
    return f"{max(0, amount) / GIBIBYTE:.1f}".removesuffix(".0")
