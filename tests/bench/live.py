"""Changes of a running VM, from an acknowledged patch to what libvirt shows, against the bare virsh command.

The same guest twice: NumaVM's, and a copy of its domain that only virsh touches. Both are judged by libvirt's live XML.
vCPUs only come, one a round: of an emulated guest, as this machine's are, they go by a restart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
from kubernetes import client, watch
from lxml import etree
from rich.console import Console
from rich.progress import track

from bench.local_stack import local_stack, renamed_domain
from bench.report import Table, median, percentile
from numavm_agent.host.reader import LinuxHostReader
from numavm_lab.local import LIBVIRT_URI, ThisMachine
from support.vms import Manifest, Vms, condition, told, vm_manifest
from support.wait import wait_for

ROUNDS = 7
DEADLINE_SECONDS = 120
BOOT_SECONDS = 240
_POLL_SECONDS = 0.005
_TRIPS = 50
_NAME = "live"
_BARE = "bare-live"
_KIB_PER_MIB = 1024
_DIMM = """<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target>
<alias name='ua-mem-m0'/></memory>"""


@dataclass(frozen=True)
class Operation:
    """One change: by the spec, by virsh, and what the domain then looks like."""

    what: str
    spec: dict[str, Any]
    virsh: tuple[str, ...]
    done: Callable[[etree._Element], bool]


def operations(files: Path, number: int) -> Sequence[Operation]:
    """Return the changes of a round; but for one more vCPU it ends where it began."""
    file = files / "dimm.xml"
    file.write_text(_DIMM)
    virtio = {"name": "v0", "cell": 0, "size": "256Mi"}
    module = {"name": "m0", "cell": 0, "size": "128Mi", "dimm": {}}

    def modules(requested: str, *others: dict[str, Any]) -> dict[str, Any]:
        mine = {**virtio, "virtioMem": {"requested": requested}}
        # With a target the balloon would be filled by a DIMM that comes, and emptied before one goes: virsh does not.
        return {"devices": {"memory": [mine, *others]}, **balloon(None)}

    def balloon(target: str | None) -> dict[str, Any]:
        return {"memory": {"balloon": {"target": target}}}

    return (
        Operation(
            "vCPU on",
            {"cpu": {"sockets": number + 2}},
            ("setvcpu", _BARE, str(number + 1), "--enable"),
            _on(number + 2),
        ),
        Operation(
            "virtio-mem up",
            modules("128Mi"),
            ("update-memory-device", _BARE, "--alias", "ua-mem-v0", "--requested-size", "128MiB"),
            _current(128),
        ),
        Operation(
            "virtio-mem down",
            modules("64Mi"),
            ("update-memory-device", _BARE, "--alias", "ua-mem-v0", "--requested-size", "64MiB"),
            _current(64),
        ),
        Operation(
            "DIMM in", modules("64Mi", module), ("attach-device", _BARE, str(file)), _dimms(1)
        ),
        Operation("DIMM out", modules("64Mi"), ("detach-device", _BARE, str(file)), _dimms(0)),
        Operation("balloon down", balloon("224Mi"), ("setmem", _BARE, "224M"), _balloon(224)),
        Operation("balloon up", balloon("256Mi"), ("setmem", _BARE, "256M"), _balloon(256)),
    )


def run(console: Console) -> list[Table]:
    """Measure both, turn by turn."""
    ours: dict[str, list[float]] = {}
    bare: dict[str, list[float]] = {}
    with local_stack(console) as (stack, vms):
        host = stack.local
        vms.patch_host(host.name, cpuAllocationPercent=100 * (ROUNDS + 1))
        uid = vms.create(_manifest())["metadata"]["uid"]
        vms.wait(_NAME, _is_ready, BOOT_SECONDS, "Ready")
        with _beside(uid) as (connection, copy):
            for one in (uid, copy):
                _wait(connection, one, _current(64), BOOT_SECONDS)
            for number in track(range(ROUNDS), "changes", console=console):
                for operation in operations(host.directory, number):
                    took = _by_spec(vms, connection, uid, operation)
                    ours.setdefault(operation.what, []).append(took)
                    took = _by_virsh(host, connection, copy, operation)
                    bare.setdefault(operation.what, []).append(took)
        trip = watch_round_trip(vms)
    return [_table(ours, bare, trip)]


def watch_round_trip(vms: Vms) -> list[float]:
    """Return the seconds from a write to its event, seen by a watch in the writer's own process."""
    writer, took = client.CoreV1Api(vms.api), []
    body: Manifest = {"metadata": {"name": "round-trip"}}
    made = writer.create_namespaced_config_map(vms.namespace, body)
    events = watch.Watch().stream(
        client.CoreV1Api(vms.api).list_namespaced_config_map,
        vms.namespace,
        resource_version=made.metadata.resource_version,
        timeout_seconds=DEADLINE_SECONDS,
    )
    for number in range(_TRIPS):
        began = time.monotonic()
        body["data"] = {"number": str(number)}
        version = writer.patch_namespaced_config_map("round-trip", vms.namespace, body)
        for event in events:
            if event["object"].metadata.resource_version == version.metadata.resource_version:
                break
        took.append(time.monotonic() - began)
    writer.delete_namespaced_config_map("round-trip", vms.namespace)
    return took


def _manifest() -> Manifest:
    made = vm_manifest(_NAME, [(ROUNDS + 1, "256Mi")], boots=True, dedicated=False)
    domain = made["spec"]["domain"]
    domain["cpu"] |= {"cores": 1, "sockets": 1, "maxSockets": ROUNDS + 1}
    domain["firmware"]["kernelBoot"]["args"] += " memhp_default_state=online_movable"
    domain["memory"] = {"maxGuest": "2Gi", "balloon": {"model": "virtio"}}
    virtio = {"name": "v0", "cell": 0, "size": "256Mi", "virtioMem": {"requested": "64Mi"}}
    domain["devices"] = {"memory": [virtio]}
    return made


def _is_ready(vm: Manifest) -> bool:
    ready = condition(vm, "Ready")
    return ready.get("status") == "True" and (
        ready.get("observedGeneration") == vm["metadata"]["generation"]
    )


@contextmanager
def _beside(uid: str) -> Iterator[tuple[Any, str]]:
    """Start the same domain once more, nobody's; give libvirt's connection, and the copy's UUID."""
    connection = libvirt.open(LIBVIRT_URI)
    try:
        domain = connection.lookupByUUIDString(uid)
        root = etree.fromstring(renamed_domain(domain.XMLDesc(0), _BARE).encode())
        # Of a domain pinned to as many CPUs as it has vCPUs, the agent takes these for taken: so the copy is not pinned
        # by libvirt, but held to the same CPUs by the kernel.
        pins, current = "cputune/vcpupin", "devices/memory/target/current"
        for path in ("uuid", "metadata", "seclabel", pins, current):
            for node in root.findall(path):
                node.getparent().remove(node)
        copy = connection.createXML(etree.tostring(root, encoding="unicode"), 0)
        _hold_to_cpus_of(domain, copy)
        try:
            yield connection, str(copy.UUIDString())
        finally:
            copy.destroy()
    finally:
        connection.close()


def _hold_to_cpus_of(model: Any, copy: Any) -> None:
    """Give every thread of a domain the CPUs of another, past libvirt; threads that it makes later inherit them."""
    cpus = os.sched_getaffinity(_process_of(model))
    for task in Path(f"/proc/{_process_of(copy)}/task").iterdir():
        os.sched_setaffinity(int(task.name), cpus)


def _process_of(domain: Any) -> int:
    pid = LinuxHostReader().qemu_pid(domain.name(), domain.UUIDString())
    assert pid is not None
    return pid


def _by_spec(vms: Vms, connection: Any, uid: str, operation: Operation) -> float:
    vms.patch(_NAME, domain=operation.spec)
    began = time.monotonic()
    try:
        _wait(connection, uid, operation.done, DEADLINE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{operation.what}: {error}\n{told(vms.get(_NAME))}") from error
    took = time.monotonic() - began
    vms.wait(_NAME, _is_ready, DEADLINE_SECONDS, f"Ready after {operation.what}")
    return took


def _by_virsh(
    host: ThisMachine,
    connection: Any,
    uuid: str,
    operation: Operation,
) -> float:
    command, *rest = operation.virsh
    began = time.monotonic()
    host.exec(["virsh", "--connect", LIBVIRT_URI, command, *rest, "--live"])
    _wait(connection, uuid, operation.done, DEADLINE_SECONDS)
    return time.monotonic() - began


def _wait(
    connection: Any,
    uuid: str,
    done: Callable[[etree._Element], bool],
    seconds: float,
) -> None:
    domain = connection.lookupByUUIDString(uuid)
    wait_for(
        lambda: etree.fromstring(domain.XMLDesc(0).encode()),
        until=done,
        deadline_seconds=seconds,
        describe=f"domain {uuid} has changed",
        poll_seconds=_POLL_SECONDS,
    )


def _on(count: int) -> Callable[[etree._Element], bool]:
    return lambda root: len(root.findall("vcpus/vcpu[@enabled='yes']")) == count


def _dimms(count: int) -> Callable[[etree._Element], bool]:
    return lambda root: len(root.findall("devices/memory[@model='dimm']")) == count


def _current(mebibytes: int) -> Callable[[etree._Element], bool]:
    path = "devices/memory[@model='virtio-mem']/target/current"
    return lambda root: root.findtext(path) == str(mebibytes * _KIB_PER_MIB)


def _balloon(mebibytes: int) -> Callable[[etree._Element], bool]:
    # libvirt counts virtio-mem into it: what is asked of the balloon comes on top.
    virtio = 64
    wanted = {str(one * _KIB_PER_MIB) for one in (mebibytes, mebibytes + virtio)}
    return lambda root: root.findtext("currentMemory") in wanted


def _table(
    ours: dict[str, list[float]],
    bare: dict[str, list[float]],
    trip: list[float],
) -> Table:
    def row(what: str) -> tuple[str, ...]:
        mine, plain = median(ours[what]), median(bare[what])
        return (
            what,
            f"{plain * 1000:.0f}",
            f"{mine * 1000:.0f}",
            f"{percentile(ours[what], 95) * 1000:.0f}",
            f"{mine / plain:.2f}",
            f"{(mine - median(trip)) / plain:.2f}",
        )

    return Table(
        name="live",
        title=f"a change of a running VM, {ROUNDS} times each, this machine's libvirt, milliseconds",
        columns=("", "virsh, median", "NumaVM, median", "P95", "to virsh", "less a watch"),
        rows=tuple(row(what) for what in ours),
        notes=(
            "from the acknowledged patch, or from the call of virsh, to what libvirt's live XML shows",
            "where the claim is amended first, that is in NumaVM's figure",
            f"a watch round trip, a write until its event is seen: {median(trip) * 1000:.0f} ms, median of {_TRIPS}",
        ),
    )
