"""This machine's facts for `numavm doctor`, read by the agent's own code where it has any."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from numavm_agent.host.reader import LinuxHostReader
from numavm_agent.libvirt.adapter import LibvirtHypervisor
from numavm_agent.topology.host import read_host
from numavm_agent.topology.kvm import KvmProbe, probe_kvm
from numavm_api.errors import NumaVMError
from numavm_cli.views.doctor import MachineFacts

_CGROUP: Final = Path("/sys/fs/cgroup/cgroup.controllers")
_KSM: Final = Path("/sys/kernel/mm/ksm")
_GROUPS: Final = Path("/sys/kernel/iommu_groups")


def machine_facts(libvirt_uri: str, *, probe: bool) -> MachineFacts:
    """Return what this machine says of itself; nothing that is missing is an error.

    Args:
        libvirt_uri: Where libvirt is asked.
        probe: Run a tiny guest under KVM; up to a minute where KVM does not work.
    """
    libvirt, qemu, message = _hypervisor(libvirt_uri)
    kvm = probe_kvm() if probe else KvmProbe(works=False, message="")
    return MachineFacts(
        cells=read_host().cells,
        kvm=kvm.works if probe else None,
        kvm_message=kvm.message,
        libvirt=libvirt,
        qemu=qemu,
        hypervisor_message=message,
        cgroup_controllers=frozenset(_CGROUP.read_text().split()) if _CGROUP.exists() else None,
        iommu_groups=len(list(_GROUPS.iterdir())) if _GROUPS.exists() else 0,
        swap=len(Path("/proc/swaps").read_text().splitlines()) > 1,
        ksm_across_cells=_word(_KSM / "run") == _word(_KSM / "merge_across_nodes") == "1",
        numa_balancing=_word(Path("/proc/sys/kernel/numa_balancing")) not in {"0", ""},
        kubelet=LinuxHostReader().kubelet_runs(),
    )


def _hypervisor(uri: str) -> tuple[str | None, str | None, str]:
    hypervisor = LibvirtHypervisor(uri)
    libvirt = None
    try:
        libvirt = hypervisor.libvirt_version()
        return libvirt, hypervisor.qemu_version(), ""
    except NumaVMError as error:
        return libvirt, None, str(error)
    finally:
        hypervisor.close()


def _word(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
