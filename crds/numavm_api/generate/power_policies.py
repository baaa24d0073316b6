"""Powers over a host or over other tenants' resources need a permission of their own.

One scheme for all: the verb `use` on a resource of group numavm.io named after the power, cluster-wide, with the VM's
namespace as the resource's name. Nothing is served there: it exists for the authorizer only. So an administrator grants it to
a group for all namespaces, or for some by `resourceNames`, and only in a ClusterRole bound by a ClusterRoleBinding: whoever
has every right within one namespace cannot grant it to themselves.
"""

from __future__ import annotations

from typing import Final

from numavm_api.base import GROUP
from numavm_api.generate.policy import CALLERS, Policy, Validation
from numavm_api.numavm import FINALIZER


def _may_use(power: str) -> str:
    """Return the expression that asks the authorizer for a power in the object's namespace."""
    return f"authorizer.group('{GROUP}').resource('{power}').name(request.namespace).check('use').allowed()"


def _remedy(power: str) -> str:
    return (
        f"an administrator grants it by a ClusterRole with apiGroups [{GROUP}], resources [{power}], verbs [use],"
        " resourceNames [' + request.namespace + '], bound by a ClusterRoleBinding'"
    )


def _host_paths(root: str) -> str:
    """Return the expression for all paths of the host that a NumaVM names."""
    boot = f"{root}.?spec.?domain.?firmware.?kernelBoot"
    volumes = f"{root}.?spec.?volumes.orValue([])"
    modules = f"{root}.?spec.?domain.?devices.?memory.orValue([])"
    return (
        f"[{boot}.?kernel.orValue(''), {boot}.?initrd.orValue('')].filter(p, p != '')"
        f" + {volumes}.map(v, v.?hostDisk.?path.orValue('')).filter(p, p != '')"
        f" + {modules}.map(m, m.?nvdimm.?path.orValue('')).filter(p, p != '')"
        f" + {modules}.map(m, m.?virtioPmem.?path.orValue('')).filter(p, p != '')"
    )


HOST_PATHS: Final = Policy(
    name="numavm-host-paths",
    description="A new path of the host in a NumaVM needs the permission to use hostpaths.",
    resources=["numavms"],
    variables={
        "old": f"oldObject == null ? [] : {_host_paths('oldObject')}",
        "new": f"({_host_paths('object')}).filter(p, !(p in variables.old))",
    },
    validations=[
        Validation(
            f"variables.new.size() == 0 || {_may_use('hostpaths')}",
            "'spec names host paths ' + variables.new.join(', ') + ', but ' + request.userInfo.username + ' may not use them: "
            + _remedy("hostpaths"),
            "Forbidden",
        ),
    ],
)

_CPU: Final = "?spec.?domain.?cpu"
_BACKING: Final = "?spec.?domain.?memory.?backing"


def _power(power: str, field: str, path: str) -> Policy:
    """Return the policy that whoever sets or changes a field may use a power; one who leaves it as it was need not."""
    return Policy(
        name=f"numavm-{power}",
        description=f"A new {field} in a NumaVM needs the permission to use {power}.",
        resources=["numavms"],
        conditions={
            "asks-for-it": f"object.{path}.hasValue()"
            f" && (oldObject == null || object.{path} != oldObject.{path})"
        },
        validations=[
            Validation(
                _may_use(power),
                f"'{field} is set, but ' + request.userInfo.username + ' may not use {power}: "
                + _remedy(power),
                "Forbidden",
            )
        ],
    )


REALTIME: Final = _power("realtime", "spec.domain.cpu.realtime", f"{_CPU}.?realtime")
HAND_PINS: Final = _power("handpins", "spec.domain.cpu.pinning", f"{_CPU}.?pinning")
LOCKED_MEMORY: Final = Policy(
    name="numavm-lockedmemory",
    description="Locked memory in a NumaVM needs the permission to use lockedmemory.",
    resources=["numavms"],
    conditions={
        "asks-for-it": f"object.{_BACKING}.?locked.orValue(false)"
        f" && (oldObject == null || !oldObject.{_BACKING}.?locked.orValue(false))"
    },
    validations=[
        Validation(
            _may_use("lockedmemory"),
            "'spec.domain.memory.backing.locked is true, but ' + request.userInfo.username + ' may not use lockedmemory: "
            + _remedy("lockedmemory"),
            "Forbidden",
        )
    ],
)


def _network_policy(power: str, kind: str, what: str) -> Policy:
    """Return the policy that whoever connects a VM to a thing of the host it was not connected to may use its kind."""
    names = f"?spec.?networks.orValue([]).map(n, n.?{kind}.?name.orValue('')).filter(n, n != '')"
    return Policy(
        name=f"numavm-{power}",
        description=f"A new {what} in a NumaVM needs the permission to use {power}.",
        resources=["numavms"],
        variables={
            "old": f"oldObject == null ? [] : oldObject.{names}",
            "new": f"(object.{names}).filter(n, !(n in variables.old))",
        },
        validations=[
            Validation(
                f"variables.new.size() == 0 || {_may_use(power)}",
                f"'spec.networks[*].{kind}.name is ' + variables.new.join(', ') + ', but ' + request.userInfo.username"
                f" + ' may not use {power}: " + _remedy(power),
                "Forbidden",
            ),
        ],
    )


BRIDGES: Final = _network_policy("bridges", "bridge", "bridge of the host")
NETWORKS: Final = _network_policy("networks", "network", "network of the host's libvirt")


def _host_devices(root: str) -> str:
    """Return the expression for the host devices that a NumaVM names, each as its address or its ids."""
    devices = f"{root}.?spec.?domain.?devices.?hostDevices.orValue([])"
    ids = "d.source.?selector.?vendor.orValue('') + ':' + d.source.?selector.?device.orValue('')"
    return f"{devices}.map(d, d.source.?address.orValue({ids}))"


HOST_DEVICES: Final = Policy(
    name="numavm-host-devices",
    description="A new host device in a NumaVM needs the permission to use hostdevices.",
    resources=["numavms"],
    variables={
        "old": f"oldObject == null ? [] : {_host_devices('oldObject')}",
        "new": f"({_host_devices('object')}).filter(d, !(d in variables.old))",
    },
    validations=[
        Validation(
            f"variables.new.size() == 0 || {_may_use('hostdevices')}",
            "'spec names host devices ' + variables.new.join(', ') + ', but ' + request.userInfo.username + ' may not use them: "
            + _remedy("hostdevices"),
            "Forbidden",
        ),
    ],
)

TEARDOWN: Final = Policy(
    name="numavm-teardown",
    description="While a host holds a claim of a NumaVM, only the operator takes its finalizer away.",
    resources=["numavms"],
    conditions={
        "takes-the-finalizer-away": (
            f"'{FINALIZER}' in oldObject.?metadata.?finalizers.orValue([])"
            f" && !('{FINALIZER}' in object.metadata.?finalizers.orValue([]))"
        ),
    },
    variables=CALLERS,
    validations=[
        Validation(
            "variables.isOperator || !has(oldObject.status) || !has(oldObject.status.nodeName)"
            f" || {_may_use('forceddeletions')}",
            f"'finalizer {FINALIZER} stays while status.nodeName is ' + oldObject.status.nodeName + ': without it the domain there"
            " is left as an orphan; " + _remedy("forceddeletions"),
            "Forbidden",
        ),
    ],
)
