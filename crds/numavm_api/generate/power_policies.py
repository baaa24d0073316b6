"""Powers over a host or over other tenants' resources need a permission of their own.

One scheme for all: the verb `use` on a resource of group numavm.io named after the power, cluster-wide, with the VM's
namespace as the resource's name. Nothing is served there: it exists for the authorizer only. So an administrator grants it to
a group for all namespaces, or for some by `resourceNames`, and only in a ClusterRole bound by a ClusterRoleBinding: whoever
has every right within one namespace cannot grant it to themselves.
"""

from __future__ import annotations

from collections.abc import Callable
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


def _named(
    *,
    power: str,
    policy: str,
    description: str,
    said: str,
    refused: str,
    names_in: Callable[[str], str],
) -> Policy:
    """Return the policy that whoever names a thing of the host which the VM did not name before may use a power.

    Args:
        power: The resource that the authorizer is asked for.
        policy: Its name.
        description: What it is for.
        said: The beginning of the refusal, up to the names.
        refused: What the caller may not use.
        names_in: From `object` or `oldObject` to the expression for the names in it.
    """
    return Policy(
        name=policy,
        description=description,
        resources=["numavms"],
        variables={
            "old": f"oldObject == null ? [] : {names_in('oldObject')}",
            "new": f"({names_in('object')}).filter(x, !(x in variables.old))",
        },
        validations=[
            Validation(
                f"variables.new.size() == 0 || {_may_use(power)}",
                f"'{said} ' + variables.new.join(', ') + ', but ' + request.userInfo.username + ' may not use {refused}: "
                + _remedy(power),
                "Forbidden",
            ),
        ],
    )


HOST_PATHS: Final = _named(
    power="hostpaths",
    policy="numavm-host-paths",
    description="A new path of the host in a NumaVM needs the permission to use hostpaths.",
    said="spec names host paths",
    refused="them",
    names_in=_host_paths,
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


def _networks(kind: str) -> Callable[[str], str]:
    """Return the expression for the bridges, or networks of libvirt, that a NumaVM names."""
    return lambda root: (
        f"{root}.?spec.?networks.orValue([]).map(n, n.?{kind}.?name.orValue('')).filter(n, n != '')"
    )


BRIDGES: Final = _named(
    power="bridges",
    policy="numavm-bridges",
    description="A new bridge of the host in a NumaVM needs the permission to use bridges.",
    said="spec.networks[*].bridge.name is",
    refused="bridges",
    names_in=_networks("bridge"),
)
NETWORKS: Final = _named(
    power="networks",
    policy="numavm-networks",
    description="A new network of the host's libvirt in a NumaVM needs the permission to use networks.",
    said="spec.networks[*].network.name is",
    refused="networks",
    names_in=_networks("network"),
)


def _host_devices(root: str) -> str:
    """Return the expression for the host devices that a NumaVM names, each as its address or its ids."""
    devices = f"{root}.?spec.?domain.?devices.?hostDevices.orValue([])"
    ids = "d.source.?selector.?vendor.orValue('') + ':' + d.source.?selector.?device.orValue('')"
    return f"{devices}.map(d, d.source.?address.orValue({ids}))"


HOST_DEVICES: Final = _named(
    power="hostdevices",
    policy="numavm-host-devices",
    description="A new host device in a NumaVM needs the permission to use hostdevices.",
    said="spec names host devices",
    refused="them",
    names_in=_host_devices,
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
