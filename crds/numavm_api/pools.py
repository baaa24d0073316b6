"""Which CPUs of a host NumaVM may hand out: the administrator's pools after defaults, and after what others took.

Pure: the agent publishes the result in `NumaHost.status.pools`, and the placement reads only that. A pool that makes no
sense (see `pool_violations`) is read so that nothing is promised twice: reserved CPUs win over shared ones, shared ones over
dedicated ones, and a CPU that is not online counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from numavm_api.cpuset import CpuSet
from numavm_api.numahost import EffectivePools, HostCell, NumaHostSpec
from numavm_api.others import KubeletUse, OtherUses
from numavm_api.placement import Placement
from numavm_api.violation import Violation


@dataclass(frozen=True, slots=True)
class OtherUsers:
    """Who else hands out CPUs of the host."""

    kubelet_runs: bool = False
    """True: only CPUs that the administrator names are handed out."""
    domain_cpus: CpuSet = field(default_factory=CpuSet)
    """CPUs that domains of others are pinned to narrowly."""
    kubelet: KubeletUse | None = None
    """What kubelet last said; None: it never answered, or there is none."""
    kubelet_error: str | None = None
    """Why kubelet does not answer now; what it last said still counts."""

    @property
    def cpus(self) -> CpuSet:
        """CPUs that others hold: kubelet's exclusive ones, narrow pins of foreign domains."""
        return self.domain_cpus | (self.kubelet.exclusive_cpus if self.kubelet else CpuSet())

    def reported(self) -> OtherUses:
        """Return what NumaHost shows of it."""
        return OtherUses(kubelet=self.kubelet, domain_cpus=self.domain_cpus)


NOBODY = OtherUsers()


def effective_pools(
    spec: NumaHostSpec,
    cells: Sequence[HostCell],
    claims: Iterable[Placement] = (),
    others: OtherUsers = NOBODY,
) -> EffectivePools:
    """Return the pools in force.

    Args:
        spec: What the administrator wrote.
        cells: The host's cells with their online CPUs.
        claims: What domains of NumaVM hold here; CPUs they keep to themselves are no shared ones.
        others: Who else uses CPUs.
    """
    online = online_cpus(cells)
    reserved = spec.reserved_cpus or CpuSet()
    named_shared = (spec.shared_cpus or CpuSet()) - reserved
    housekeeping = _housekeeping(spec, cells) & online
    if spec.dedicated_cpus is not None:
        dedicated = spec.dedicated_cpus - reserved - named_shared
    elif others.kubelet_runs:
        dedicated = CpuSet()
    else:
        dedicated = online - housekeeping - named_shared
    follows = spec.shared_cpus is None
    held = CpuSet.union_of(claim.held_cpus for claim in claims)
    shared = (dedicated if follows else named_shared) - held
    return EffectivePools(
        dedicated=(dedicated & online) - others.cpus,
        shared=(shared & online) - others.cpus,
        shared_follows_dedicated=follows,
        housekeeping=housekeeping,
        foreign=others.cpus,
    )


def online_cpus(cells: Iterable[HostCell]) -> CpuSet:
    """Return every online CPU of the cells."""
    return CpuSet(frozenset(cpu.id for cell in cells for cpu in cell.cpus))


def pool_violations(
    spec: NumaHostSpec, cells: Sequence[HostCell], others: OtherUsers = NOBODY
) -> list[Violation]:
    """Return what is wrong with the administrator's pools on this host; it goes into the condition `PoolsConfigured`."""
    return [
        *_offline(spec, online_cpus(cells)),
        *_overlaps(spec),
        *_unknown_cells(spec, cells),
        *_kubelet_without_pools(spec, others),
    ]


def _housekeeping(spec: NumaHostSpec, cells: Sequence[HostCell]) -> CpuSet:
    if spec.reserved_cpus is not None:
        return spec.reserved_cpus
    if spec.dedicated_cpus is None:
        no_pool = spec.shared_cpus is None
        return CpuSet.union_of(_first_core(cell) for cell in cells) if no_pool else CpuSet()
    return online_cpus(cells) - spec.dedicated_cpus - (spec.shared_cpus or CpuSet())


def _first_core(cell: HostCell) -> CpuSet:
    """Return the core with the smallest CPU number, or nothing where the cell has no other."""
    cores = sorted({cpu.siblings for cpu in cell.cpus}, key=CpuSet.first)
    return cores[0] if len(cores) > 1 else CpuSet()


def _named_pools(spec: NumaHostSpec) -> list[tuple[str, CpuSet]]:
    pools = [
        ("spec.reservedCpus", spec.reserved_cpus),
        ("spec.sharedCpus", spec.shared_cpus),
        ("spec.dedicatedCpus", spec.dedicated_cpus),
    ]
    return [(name, cpus) for name, cpus in pools if cpus is not None]


def _offline(spec: NumaHostSpec, online: CpuSet) -> Iterator[Violation]:
    for name, cpus in _named_pools(spec):
        offline = cpus - online
        if offline:
            yield Violation(
                name,
                f"'{cpus}'",
                f"CPU {offline} is not online here ({online} are)",
                "name CPUs of this host, or bring them online",
            )


def _overlaps(spec: NumaHostSpec) -> Iterator[Violation]:
    pools = _named_pools(spec)
    for index, (name, cpus) in enumerate(pools):
        for other, others in pools[:index]:
            both = cpus & others
            if both:
                yield Violation(
                    name,
                    f"'{cpus}'",
                    f"CPU {both} is in {other} '{others}' too, which wins",
                    "put each CPU into one pool",
                )


def _unknown_cells(spec: NumaHostSpec, cells: Sequence[HostCell]) -> Iterator[Violation]:
    known = CpuSet(frozenset(cell.id for cell in cells))
    for index, reserve in enumerate(spec.reserved_memory):
        if reserve.cell not in known:
            yield Violation(
                f"spec.reservedMemory[{index}].cell",
                str(reserve.cell),
                f"this host has the cells {known}",
                "name one of them",
            )


def _kubelet_without_pools(spec: NumaHostSpec, others: OtherUsers) -> Iterator[Violation]:
    if others.kubelet_runs and spec.dedicated_cpus is None and spec.shared_cpus is None:
        yield Violation(
            "spec.dedicatedCpus",
            "nothing",
            "a kubelet runs here and hands out the same CPUs",
            "keep CPUs from the kubelet by its reservedSystemCPUs, and name them here",
        )
