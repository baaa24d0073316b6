"""A VM with a host device, a claim that holds one, and a host that has some."""

from typing import Any

from numavm_agent.reconcile.admission import ClaimRequest, HostState
from numavm_api.numahost import PciDevice, Permitted
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import PlacedDevice
from support.agent_values import claim, host, spec

NIC = "0000:65:00.0"
TWIN = "0000:65:00.1"
ALONE = "0000:b1:00.0"


def pci(address: str = NIC, cell: int = 0, group: int | None = 7) -> PciDevice:
    """Return an Intel 82574L of the host."""
    return PciDevice(
        address=address,
        cell=cell,
        vendor="8086",
        device="10d3",
        class_code="0x020000",
        iommu_group=group,
    )


def with_device(source: dict[str, Any] | None = None) -> NumaVMSpec:
    """Return the spec of a VM that asks for one host device."""
    document = spec().to_api()
    document["domain"]["devices"] = {
        "hostDevices": [{"name": "nic", "source": source or {"address": NIC}}]
    }
    return NumaVMSpec.model_validate(document)


def asks_for(
    address: str = NIC, source: dict[str, Any] | None = None, host_cell: int = 0
) -> ClaimRequest:
    """Return a claim that holds the device at `address` for such a VM."""
    wanted = with_device(source)
    held = [PlacedDevice(name="nic", address=address, host_cell=host_cell)]
    return ClaimRequest(spec=wanted, placement=claim(wanted, devices=held), admitted_before=False)


def host_with(
    *devices: PciDevice, permitted: dict[str, str] | None = None, **changes: Any
) -> HostState:
    """Return a host with these devices; by default all 82574L are permitted."""
    allowed = permitted if permitted is not None else {"vendor": "8086", "device": "10d3"}
    return host(
        pci_devices=devices,
        permitted=Permitted.model_validate({"pciDevices": [allowed] if allowed else []}),
        **changes,
    )
