"""Rules on devices that look at more than one part of a spec: too dear for the schema's budget.

Addresses and bus numbers are left to the operator (`numavm_api.rules_pci`): they need the plan of all buses.
"""

from __future__ import annotations

from typing import Final

from numavm_api.generate.policy import Policy, Validation
from numavm_api.generate.rule import bytes_of
from numavm_api.modules import DEFAULT_SLOTS
from numavm_api.quantity import BASE_PAGE

_DOMAIN: Final = "object.spec.domain"
_DEVICES: Final = f"{_DOMAIN}.devices"
_MEMORY: Final = f"{_DOMAIN}.memory"
_CEILING: Final = f"{_MEMORY}.maxGuest"
_MODULES: Final = "spec.domain.devices.memory"
_PAGES: Final = f"{_MEMORY}.hugepages"
_OWN_PAGES: Final = "c.id == m.cell && has(c.hugepages)"

_VARIABLES: Final = {
    "cells": f"{_DOMAIN}.?cpu.?numa.?cells.orValue([])",
    "boot": (
        f"variables.cells.size() > 0 ? variables.cells.map(c, {bytes_of('c.memory')}).sum()"
        f" : has({_MEMORY}.guest) ? {bytes_of(f'{_MEMORY}.guest')} : 0"
    ),
    "modules": f"{_DEVICES}.memory",
    "plugged": f"variables.modules.map(m, {bytes_of('m.size')}).sum()",
    "dimms": f"variables.modules.filter(m, has(m.dimm)).map(m, {bytes_of('m.size')}).sum()",
    "slots": f"{_MEMORY}.?slots.orValue({DEFAULT_SLOTS})",
    "count": "variables.cells.size() > 0 ? variables.cells.size() : 1",
    # Every cell that a device names, as [field, cell].
    "named": " + ".join(
        [
            *(
                f"{_DEVICES}.{kind}.filter(d, has(d.cell)).map(d, ['spec.domain.devices.{kind}[name=' + d.name + '].cell', string(d.cell)])"
                for kind in ("memory", "disks", "interfaces", "hostDevices", "pciExpanders")
            ),
            (
                f"(has({_MEMORY}.balloon) && has({_MEMORY}.balloon.cell)"
                f" ? [['spec.domain.memory.balloon.cell', string({_MEMORY}.balloon.cell)]] : [])"
            ),
        ]
    ),
    # Names of modules that are not in whole pages, their own or those of their cell.
    "torn": (
        f"variables.modules.filter(m, has(m.cell) && {bytes_of('m.size')} % (has(m.hugepages) ? {bytes_of('m.hugepages.pageSize')}"
        f" : variables.cells.exists(c, {_OWN_PAGES})"
        f" ? variables.cells.filter(c, {_OWN_PAGES}).map(c, {bytes_of('c.hugepages.pageSize')})[0]"
        f" : has({_PAGES}) ? {bytes_of(f'{_PAGES}.pageSize')} : {BASE_PAGE}) != 0).map(m, m.name)"
    ),
    "strangers": "variables.named.filter(n, int(n[1]) >= variables.count)",
}

DEVICES: Final = Policy(
    name="numavm-devices",
    description="The devices of a NumaVM fit its cells and its memory.",
    resources=["numavms"],
    conditions={"spec-changes": "oldObject == null || object.spec != oldObject.spec"},
    variables=_VARIABLES,
    validations=[
        Validation(
            "variables.strangers.size() == 0",
            "variables.strangers[0][0] + ' is ' + variables.strangers[0][1] + ', but the guest has the cells 0 to '"
            " + string(variables.count - 1) + ': name one of these'",
        ),
        Validation(
            f"variables.modules.size() == 0 || has({_CEILING})",
            "'spec.domain.memory.maxGuest is nothing, but boot memory and spec.domain.devices.memory are '"
            " + string(variables.boot + variables.plugged) + ' bytes: set it to that or more'",
        ),
        Validation(
            f"!has({_CEILING}) || {bytes_of(_CEILING)} >= variables.boot + variables.plugged",
            f"'spec.domain.memory.maxGuest is ' + string({_CEILING}) + ', but boot memory and {_MODULES} are '"
            " + string(variables.boot + variables.plugged) + ' bytes: raise it to that or more'",
        ),
        Validation(
            f"!has({_CEILING}) || variables.modules.size() <= variables.slots",
            f"'spec.domain.memory.slots is ' + string(variables.slots) + ', but {_MODULES} has '"
            " + string(variables.modules.size()) + ' modules, and each takes a slot, virtio-mem and virtio-pmem too: raise it'",
        ),
        Validation(
            "variables.torn.size() == 0",
            f"'{_MODULES}[*].size of ' + variables.torn.join(', ')"
            " + ' is no multiple of its page size, its own or that of its cell: round it up'",
        ),
        Validation(
            f"!has({_MEMORY}.balloon) || !has({_MEMORY}.balloon.target)"
            f" || {bytes_of(f'{_MEMORY}.balloon.target')} <= variables.boot + variables.dimms",
            f"'spec.domain.memory.balloon.target is ' + string({_MEMORY}.balloon.target)"
            " + ', but the guest\\'s boot memory and DIMMs are ' + string(variables.boot + variables.dimms)"
            " + ' bytes: lower it, or give the guest more memory'",
        ),
    ],
)
