"""Whether a NumaVM's spec makes sense as a whole: every rule that more than one field has a part in.

The shape of each field is checked by its type, here and in the API server. Much of what follows is checked there too, by
CEL; this is the whole of it, and what the operator's condition `Accepted` reports. Pure.
"""

from __future__ import annotations

from numavm_api.numavm import NumaVMSpec
from numavm_api.rules_balloon import balloon_rules
from numavm_api.rules_cells import cell_rules
from numavm_api.rules_cpus import cpu_rules
from numavm_api.rules_devices import device_rules
from numavm_api.rules_disks import disk_rules
from numavm_api.rules_host_devices import host_device_rules
from numavm_api.rules_memory import memory_rules
from numavm_api.rules_modules import module_rules
from numavm_api.rules_numa import numa_rules
from numavm_api.rules_pci import pci_rules
from numavm_api.rules_scheduling import scheduling_rules
from numavm_api.violation import Violation

__all__ = ["Violation", "validate"]


def validate(spec: NumaVMSpec) -> list[Violation]:
    """Return everything that is wrong with `spec`, in the order of its fields; of a good spec, nothing."""
    rules = (
        *scheduling_rules(),
        *cpu_rules(),
        *cell_rules(),
        *numa_rules(),
        *memory_rules(),
        *module_rules(),
        *balloon_rules(),
        *device_rules(),
        *disk_rules(),
        *host_device_rules(),
        *pci_rules(),
    )
    return [violation for rule in rules for violation in rule(spec)]
