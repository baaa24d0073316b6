"""Random specs, as libvirt's own parser sees them: what is accepted it takes, and makes a command line of.

Left out is what libvirt judges by this very machine: named CPU models, and huge pages in files, which want a mount.
"""

import pytest
from hypothesis import HealthCheck, assume, event, given, settings

from numavm_agent.domain.render import render
from numavm_api.backing import BackingSource
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import BASE_PAGE
from numavm_api.validation import validate
from support.domains import claim_for, facts_of, vm_of
from support.embedded_libvirt import EmbeddedLibvirt
from support.random_specs import CELLS, specs

pytestmark = pytest.mark.xdist_group("embedded-libvirt")


@given(spec=specs())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_libvirt_takes_what_is_accepted(libvirt: EmbeddedLibvirt, spec: NumaVMSpec) -> None:
    check(libvirt, spec)


@pytest.mark.long
@given(spec=specs())
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
def test_libvirt_takes_thousands_that_are_accepted(
    libvirt: EmbeddedLibvirt, spec: NumaVMSpec
) -> None:
    check(libvirt, spec)


def check(libvirt: EmbeddedLibvirt, spec: NumaVMSpec) -> None:
    violations = validate(spec)
    event("refused" if violations else "accepted")
    assert all(str(one).startswith("spec.") for one in violations)
    assume(not violations)
    assume(spec.domain.cpu.model == "host-passthrough")
    vm = vm_of(spec)
    in_files = vm.effective.backing.source is BackingSource.FILE
    assume(not (in_files and any(cell.page_size > BASE_PAGE for cell in vm.effective.cells)))
    machine = "pc-q35-7.2" if spec.domain.machine.type == "q35" else "pc-i440fx-7.2"
    host = facts_of(CELLS, cpus=300, machine=machine)

    argv = libvirt.argv(render(vm, claim_for(vm.effective, host), host).xml)

    cells = vm.effective.derived_cells.count if vm.effective.derived_cells else None
    nodes = [value for value in argv.values("-numa") if value.startswith("node,")]
    assert len(nodes) == (cells or len(vm.effective.cells))
    assert argv.value("-smp").split(",")[0] == str(_cold_plugged(spec))
    memory = sum(backend["size"] for backend in argv.objects("memory-backend").values())
    assert memory == vm.effective.memory


def _cold_plugged(spec: NumaVMSpec) -> int:
    """Return how many vCPUs QEMU itself boots with: all that are on, up to the first that is off."""
    online = spec.domain.cpu.boot_vcpus
    return next(vcpu for vcpu in range(len(online) + 1) if vcpu not in online)


@given(spec=specs())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_qemu_starts_a_sample(
    libvirt: EmbeddedLibvirt, tmp_path_factory: pytest.TempPathFactory, spec: NumaVMSpec
) -> None:
    """What only QEMU itself refuses: cut down to what this machine surely has, one host cell and little memory."""
    small = small_form(spec)
    assume(not validate(small))
    logs = str(tmp_path_factory.mktemp("sample"))
    host = facts_of(1, cpus=2, log_directory=logs)
    vm = vm_of(small)
    domain = render(vm, claim_for(vm.effective, host), host)

    live = libvirt.start_paused_and_destroy(domain.xml, domain.name)

    assert f"<uuid>{domain.uuid}</uuid>" in live


def small_form(spec: NumaVMSpec) -> NumaVMSpec:
    """Return a spec with the same CPUs, cells, distances, HMAT and backing, but shared CPUs and 64Mi per cell."""
    whole = spec.to_api()["domain"]
    cpu = {key: whole["cpu"][key] for key in _KEPT if key in whole["cpu"]}
    memory = {"backing": {**whole["memory"].get("backing", {}), "locked": False}}
    numa = cpu.get("numa", {})
    numa.pop("hostBinding", None)
    for cell in numa.get("cells", ()):
        cell["memory"] = "64Mi"
        cell.pop("hostBinding", None)
    if not numa.get("cells"):
        memory["guest"] = "64Mi"
    return NumaVMSpec.model_validate({"domain": {"type": "TCG", "cpu": cpu, "memory": memory}})


_KEPT = ("sockets", "maxSockets", "vcpus", "dies", "cores", "threads", "cache", "tuning", "numa")
"""Not onlineVcpus: plugging at start wants every host cell that libvirt knows of, and seven are made up."""
