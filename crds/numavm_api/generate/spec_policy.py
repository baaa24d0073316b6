"""Rules on a NumaVM's spec that are too dear for the schema's budget: a policy's is what a request really costs.

They refuse only what is surely wrong. An exclusion (`^3`) and ranges that overlap within one cell can hide a mistake from
them; those are found by the operator (`numavm_api.validation`, the whole list), which sets `Accepted=False`.
"""

from __future__ import annotations

from typing import Final

from numavm_api.cpu import MAX_VCPUS
from numavm_api.cpuset import MAX_MEMBER
from numavm_api.generate.policy import Policy, Validation
from numavm_api.generate.rule import bytes_of
from numavm_api.quantity import format_bytes
from numavm_api.rules_cpus import MAX_PC_VCPUS
from numavm_api.rules_memory import MAX_MEMORY

MAX_NAME_LENGTH: Final = 63
"""libvirt names a VM's log after namespace and name: both as long as a DNS label fit a file name."""
MAX_RANGES: Final = 128
"""Above this many ranges in all cells together overlaps are left to the operator: the comparison is quadratic."""

_FIELD: Final = "spec.domain.cpu.numa.cells"
_SPEC: Final = "object.spec"
_DOMAIN: Final = "object.spec.domain"
_DEVICES: Final = f"{_DOMAIN}.devices"
_COUNT: Final = "string(variables.count)"
_CPUSETS: Final = (
    "variables.cells.map(c, string(c.id) + ': ' + c.?cpus.orValue('memory only')).join('; ')"
)
_PRODUCT: Final = "spec.domain.cpu.maxSockets*dies*cores*threads"
_CPU: Final = f"{_DOMAIN}.cpu"
_PINNING: Final = f"{_CPU}.?pinning"

_VARIABLES: Final = {
    "cells": f"{_DOMAIN}.?cpu.?numa.?cells.orValue([])",
    "count": " * ".join(
        [
            f"{_CPU}.?maxSockets.orValue({_CPU}.sockets)",
            *(f"{_CPU}.{part}" for part in ("dies", "cores", "threads")),
        ]
    ),
    # Every cpuset as [field, text].
    "cpusets": (
        f"variables.cells.transformList(i, c, ['{_FIELD}[' + string(i) + '].cpus', string(c.?cpus.orValue(''))])"
        " + variables.cells.transformList(i, c, ["
        f"'{_FIELD}[' + string(i) + '].hostBinding.hostCells', string(c.?hostBinding.?hostCells.orValue(''))])"
        f" + [['spec.domain.cpu.numa.hostBinding.hostCells', string({_DOMAIN}.?cpu.?numa.?hostBinding.?hostCells.orValue(''))]]"
        " + "
        "["
        + ", ".join(
            f"['spec.domain.cpu.{path.replace('?', '')}', string({_CPU}.?{path}.orValue(''))]"
            for path in ("onlineVcpus", "realtime.?mask", "pinning.?cpuset", "pinning.?emulator")
        )
        + "]"
        f" + {_PINNING}.?vcpus.orValue([]).map(p,"
        " ['spec.domain.cpu.pinning.vcpus[vcpu=' + string(p.vcpu) + '].cpuset', string(p.cpuset)])"
        f" + {_PINNING}.?ioThreads.orValue([]).map(p,"
        " ['spec.domain.cpu.pinning.ioThreads[id=' + string(p.id) + '].cpuset', string(p.cpuset)])"
    ),
    # The first one with a range that runs backwards or a number past the limit, as [field, text], or nothing.
    "badCpusets": (
        "variables.cpusets.filter(s, s[1] != '' && s[1].split(',').map(r, r.replace('^', '').split('-'))"
        f".exists(r, int(r[0]) > int(r[r.size() - 1]) || int(r[r.size() - 1]) > {MAX_MEMBER}))"
    ),
    # Per cell its ranges, each as [first, last]; exclusions left out.
    "ranges": (
        "variables.cells.map(c, c.?cpus.orValue('').split(',').filter(r, r != '' && !r.startsWith('^'))"
        ".map(r, r.split('-')).map(r, [int(r[0]), int(r[r.size() - 1])]))"
    ),
    "plain": "variables.cells.all(c, !c.?cpus.orValue('').contains('^'))",
    "total": "variables.ranges.map(c, c.map(r, r[1] - r[0] + 1).sum()).sum()",
    "few": f"variables.ranges.map(c, c.size()).sum() <= {MAX_RANGES}",
    "memory": f"variables.cells.map(c, {bytes_of('c.memory')}).sum()",
    "modes": (
        f"variables.cells.map(c, c.?hostBinding.?mode.orValue({_DOMAIN}.?cpu.?numa.?hostBinding.?mode.orValue('Strict')))"
    ),
}


def _vcpu_rules() -> list[Validation]:
    return [
        Validation(
            f"variables.count <= {MAX_VCPUS}",
            f"'{_PRODUCT} is ' + {_COUNT} + ', but a VM has at most {MAX_VCPUS} vCPUs: lower one of the four'",
        ),
        Validation(
            f"!{_DOMAIN}.machine.type.startsWith('pc') || {_DOMAIN}.machine.type.startsWith('pc-q35')"
            f" || variables.count <= {MAX_PC_VCPUS}",
            f"'{_PRODUCT} is ' + {_COUNT} + ', but machine ' + {_DOMAIN}.machine.type + ' has at most {MAX_PC_VCPUS} vCPUs:"
            " use spec.domain.machine.type q35 or fewer vCPUs'",
        ),
        Validation(
            "variables.badCpusets.size() == 0",
            "variables.badCpusets[0][0] + ' is \\'' + variables.badCpusets[0][1] + '\\', but a range does not run backwards,"
            f" and a number is at most {MAX_MEMBER}: write it such as 0-3,8'",
        ),
    ]


def _pin_rules() -> list[Validation]:
    pins = f"{_PINNING}.?vcpus.orValue([])"
    return [
        Validation(
            f"{pins}.all(p, p.vcpu < variables.count)",
            f"'spec.domain.cpu.pinning.vcpus[*].vcpu is ' + {pins}.filter(p, p.vcpu >= variables.count).map(p, string(p.vcpu)).join(', ')"
            f" + ', but there are vCPUs 0 to ' + string(variables.count - 1) + ', and libvirt drops a pin past them without a word:"
            " pin only these, or raise the number of vCPUs'",
        ),
    ]


def _hmat_rules() -> list[Validation]:
    links = f"{_CPU}.?numa.?interconnects"
    ends = (
        f"{links}.?latencies.orValue([]).map(l, [l.initiator, l.target])"
        f" + {links}.?bandwidths.orValue([]).map(b, [b.initiator, b.target])"
    )
    return [
        Validation(
            f"({ends}).all(e, variables.cells.exists(c, c.id == e[0] && has(c.cpus)) && variables.cells.exists(c, c.id == e[1]))",
            "'spec.domain.cpu.numa.interconnects names cells other than ' + variables.cells.map(c, string(c.id)).join(', ')"
            " + ', or an initiator without cpus: name cells of the VM'",
        ),
        Validation(
            "variables.cells.all(c, c.distances.all(d, variables.cells.exists(o, o.id == d.cell)))",
            f"'{_FIELD}[*].distances names cells other than ' + variables.cells.map(c, string(c.id)).join(', ') + ': name one of them'",
        ),
    ]


def _cell_rules() -> list[Validation]:
    return [
        Validation(
            "variables.cells.all(c, c.id < variables.cells.size())",
            f"'{_FIELD}[*].id is ' + variables.cells.map(c, string(c.id)).join(', ') + ', but ' + string(variables.cells.size())"
            " + ' cells have the ids 0 to ' + string(variables.cells.size() - 1) + ', each once: renumber the cells'",
        ),
        Validation(
            "!variables.plain || variables.ranges.all(c, c.all(r, r[1] < variables.count))",
            f"'{_FIELD}[*].cpus is ' + {_CPUSETS} + ', but maxSockets*dies*cores*threads = ' + {_COUNT} + ' gives vCPUs 0 to '"
            " + string(variables.count - 1) + ': name only these, or raise spec.domain.cpu.maxSockets'",
        ),
        Validation(
            "variables.cells.size() == 0 || variables.badCpusets.size() > 0 || variables.total >= variables.count",
            f"'{_FIELD}[*].cpus is ' + {_CPUSETS} + ', together ' + string(variables.total) + ' of '"
            f" + {_COUNT} + ' vCPUs: put each vCPU into exactly one cell'",
        ),
        Validation(
            "!variables.plain || !variables.few || variables.ranges.all(i, c, variables.ranges.all(j, d, i >= j"
            " || c.all(r, d.all(s, r[1] < s[0] || s[1] < r[0]))))",
            f"'{_FIELD}[*].cpus is ' + {_CPUSETS} + ', where two cells have a vCPU in common: put each vCPU into exactly one cell'",
        ),
        Validation(
            "variables.modes.all(m, m == 'Restrictive') || !('Restrictive' in variables.modes)",
            f"'{_FIELD}[*].hostBinding.mode is ' + variables.modes.join(', ') + ', but libvirt takes Restrictive for all cells or"
            " for none: set spec.domain.cpu.numa.hostBinding.mode to Restrictive and leave the cells\\' own modes out'",
        ),
    ]


def _memory_rules() -> list[Validation]:
    guest, page = f"{_DOMAIN}.memory.guest", f"{_DOMAIN}.memory.hugepages.pageSize"
    return [
        Validation(
            f"!has({guest}) || variables.cells.size() == 0 || {bytes_of(guest)} == variables.memory",
            f"'spec.domain.memory.guest is ' + string({guest}) + ', but the cells\\' memory adds up to ' + string(variables.memory)"
            " + ' bytes: leave guest out, or make it the sum'",
        ),
        Validation(
            f"!has({_DOMAIN}.memory.hugepages)"
            f" || variables.cells.all(c, has(c.hugepages) || {bytes_of('c.memory')} % {bytes_of(page)} == 0)",
            f"'{_FIELD}[*].memory is ' + variables.cells.map(c, string(c.memory)).join(', ')"
            f" + ', but memory is a multiple of its page size ' + string({page}) + ': round it up'",
        ),
        Validation(
            f"variables.memory <= {MAX_MEMORY} && (!has({guest}) || {bytes_of(guest)} <= {MAX_MEMORY})",
            f"'spec.domain.memory.guest is ' + (has({guest}) ? string({guest}) : string(variables.memory))"
            f" + ', but a VM has at most {format_bytes(MAX_MEMORY)}: ask for less'",
        ),
    ]


def _paired(front: str, behind: str) -> list[Validation]:
    """Return the rules that two lists, given by their paths, have the same names."""

    def names_in(one: str, other: str) -> Validation:
        unknown = f"object.{one}.filter(a, !object.{other}.exists(b, b.name == a.name))"
        return Validation(
            f"{unknown}.size() == 0",
            f"'{one}[*].name is \\'' + {unknown}.map(a, a.name).join('\\', \\'') + '\\', but {other} has no entry of that name:"
            f" add one to {other}, or remove it from {one}'",
        )

    return [names_in(front, behind), names_in(behind, front)]


def _each_once(items: str, value: str, *, limit: str, spelling: str = "string(v)") -> Validation:
    """Return the rule that an optional value, `spelling` of it, differs between a list's entries."""
    path, _, name = value.rpartition(".?")
    values = f"object.{items}.map(i, i.?{value}.orValue('')).filter(v, v != '').map(v, {spelling})"
    field = ".".join(part for part in (f"{items}[*]", path.replace(".?", "."), name) if part)
    return Validation(
        f"{values}.all(v, {values}.exists_one(w, w == v))",
        f"'{field} is ' + {values}.join(', ') + ', but {limit}: change one of them'",
    )


def _device_rules() -> list[Validation]:
    mac = f"{_DEVICES}.interfaces.all(i, i.?macAddress.orValue('') != '00:00:00:00:00:00')"
    return [
        *_paired("spec.domain.devices.disks", "spec.volumes"),
        *_paired("spec.domain.devices.interfaces", "spec.networks"),
        _each_once(
            "spec.volumes", "hostDisk.?path", limit="two disks on one image destroy its content"
        ),
        _each_once(
            "spec.domain.devices.interfaces",
            "macAddress",
            limit="two cards with one address do not work",
            spelling="string(v).lowerAscii()",  # hexadecimal digits; paths on Linux differ by case
        ),
        Validation(
            f"{_DEVICES}.disks.all(i, !has(i.bootOrder)"
            f" || {_DEVICES}.disks.exists_one(j, has(j.bootOrder) && j.bootOrder == i.bootOrder))",
            f"'spec.domain.devices.disks[*].bootOrder is ' + {_DEVICES}.disks.filter(i, has(i.bootOrder))"
            ".map(i, string(i.bootOrder)).join(', ') + ', but each number stands once: change one of them'",
        ),
        Validation(
            mac,
            "'spec.domain.devices.interfaces[*].macAddress is 00:00:00:00:00:00, but the zero address is no address: leave it out'",
        ),
    ]


def _name_and_label_rules() -> list[Validation]:
    selector = f"{_SPEC}.nodeSelector"
    bad_key = f"{selector}.map(k, k).filter(k, format.qualifiedName().validate(k).hasValue())"
    bad_value = (
        f"{selector}.map(k, {selector}[k]).filter(v, format.labelValue().validate(v).hasValue())"
    )
    return [
        Validation(
            f"object.metadata.name.size() <= {MAX_NAME_LENGTH}",
            "'metadata.name is ' + object.metadata.name + ', ' + string(object.metadata.name.size())"
            f" + ' characters, but a NumaVM has at most {MAX_NAME_LENGTH}: libvirt names files after it'",
        ),
        Validation(
            f"{bad_key}.size() == 0",
            f"'spec.nodeSelector has \\'' + {bad_key}.join('\\', \\'') + '\\', but a label key is [prefix/]name with at most 63"
            " letters, digits, -, _ or . in the name'",
        ),
        Validation(
            f"{bad_value}.size() == 0",
            f"'spec.nodeSelector has \\'' + {bad_value}.join('\\', \\'') + '\\', but a label value has at most 63 letters, digits,"
            " -, _ or ., and begins and ends with a letter or digit'",
        ),
    ]


SPEC: Final = Policy(
    name="numavm-spec",
    description="The parts of a NumaVM's spec fit each other: vCPUs and cells, memory, devices and what is behind them.",
    resources=["numavms"],
    # What is stored already can always be changed elsewhere, its finalizers above all.
    conditions={"spec-changes": "oldObject == null || object.spec != oldObject.spec"},
    variables=_VARIABLES,
    validations=[
        *_name_and_label_rules(),
        *_vcpu_rules(),
        *_pin_rules(),
        *_cell_rules(),
        *_hmat_rules(),
        *_memory_rules(),
        *_device_rules(),
    ],
)

HOST_SPEC: Final = Policy(
    name="numavm-host-spec",
    description="The CPU pools of a NumaHost are readable.",
    resources=["numahosts"],
    conditions={"spec-changes": "oldObject == null || object.?spec != oldObject.?spec"},
    variables={
        "cpusets": "["
        + ", ".join(
            f"['spec.{pool}', string(object.?spec.?{pool}.orValue(''))]"
            for pool in ("reservedCpus", "dedicatedCpus", "sharedCpus")
        )
        + "]",
        "badCpusets": _VARIABLES["badCpusets"],
    },
    validations=[_vcpu_rules()[-1]],
)
