"""libvirt's own parser on specs with devices by chance: what is accepted it takes, and puts where it was asked to."""

import pytest
from hypothesis import HealthCheck, assume, given, settings

from numavm_agent.domain.render import render
from numavm_api.numavm import NumaVMSpec
from numavm_api.validation import validate
from support.domains import facts_of, vm_of
from support.embedded_libvirt import Argv, EmbeddedLibvirt
from support.random_devices import claim_with_devices, specs

pytestmark = pytest.mark.xdist_group("embedded-libvirt")
CHECKS = list(HealthCheck)


def argv_of(libvirt: EmbeddedLibvirt, spec: NumaVMSpec) -> Argv:
    machine = "pc-i440fx-7.2" if spec.domain.machine.type == "pc" else "pc-q35-7.2"
    host = facts_of(4, cpus=8, machine=machine)
    vm = vm_of(spec)
    return libvirt.argv(render(vm, claim_with_devices(vm, host), host).xml)


def check(libvirt: EmbeddedLibvirt, spec: NumaVMSpec) -> None:
    """Hold libvirt's command line against the spec."""
    argv = argv_of(libvirt, spec)
    devices = spec.domain.devices
    backends = argv.objects("memory-backend")
    plugged = {
        one["id"]: one
        for driver in ("pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci")
        for one in argv.devices(driver)
    }
    assert plugged.keys() == {f"ua-mem-{one.name}" for one in devices.memory}
    for module in devices.memory:
        found = plugged[f"ua-mem-{module.name}"]
        assert found.get("node") == module.cell
        assert backends[found["memdev"]]["size"] == module.size
        if module.cell is not None:
            own = module.host_binding
            where = [module.cell] if own is None else sorted(own.host_cells)
            assert backends[found["memdev"]]["host-nodes"] == where
            if module.hugepages is not None:
                assert backends[found["memdev"]]["hugetlbsize"] == module.hugepages.page_size
    assert len(argv.devices("vfio-pci")) == len(devices.host_devices)
    assert len(argv.devices("virtio-balloon-pci")) == (spec.domain.memory.balloon is not None)
    numa_nodes = [one["numa_node"] for kind in ("pxb", "pxb-pcie") for one in argv.devices(kind)]
    assert {one.cell for one in devices.pci_expanders} <= set(numa_nodes)


@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)
@given(spec=specs())
def test_libvirt_takes_every_accepted_spec(libvirt: EmbeddedLibvirt, spec: NumaVMSpec) -> None:
    assume(not validate(spec))
    check(libvirt, spec)


@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=CHECKS)
@given(spec=specs())
def test_libvirt_takes_thousands_of_accepted_specs(
    libvirt: EmbeddedLibvirt, spec: NumaVMSpec
) -> None:
    assume(not validate(spec))
    check(libvirt, spec)
