"""Turns a lab host into command lines: QEMU's, virtiofsd's and the kernel's. Pure.

The host's CPUs are emulated in software (TCG), which gives any NUMA topology on any machine: AMD-like CPUs have SVM, so
KVM runs inside; Intel-like ones have sibling threads.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from numavm_lab.hosts.model import HostSpec, MemoryAccess

ROOT_TAG = "numavm-root"
SHARE_TAG = "numavm-share"
_KERNEL_OPTIONS = (
    "console=ttyS0",
    "loglevel=4",
    "panic=-1",  # with -no-reboot: a panic ends QEMU, and so is seen outside
    "net.ifnames=0",
    "mitigations=off",  # emulated CPUs leak nothing, and every avoided instruction counts
    "nokaslr",
    "audit=0",
    "apparmor=0",  # its profiles are not loaded inside
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",
    "init_on_alloc=0",
    "nowatchdog",  # virtual CPUs stall when this machine is busy
    "tsc=reliable",
    "no_timer_check",
    "maxcpus=1",  # services.sh brings up the others
)


@dataclass(frozen=True)
class HostFiles:
    """Where the parts of one host lie on this machine."""

    kernel: Path
    initrd: Path
    console: Path
    root_socket: Path
    share_socket: Path
    qmp_socket: Path


def qemu_argv(spec: HostSpec, files: HostFiles, *, qemu: Path, uuid: UUID) -> list[str]:
    """Return QEMU's command line for a host.

    ssh is forwarded from a port of 127.0.0.1 that the kernel chooses.
    """
    return [
        str(qemu),
        *("-name", f"{spec.name},debug-threads=on"),
        *("-uuid", str(uuid)),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-machine", "q35,hmat=on" if spec.cells[0].access else "q35"),
        *("-accel", "tcg,thread=multi,tb-size=256"),
        *("-cpu", cpu_model(spec)),
        *("-smp", smp(spec)),
        *("-m", f"{spec.memory >> 20}M"),
        *_numa(spec),
        *_kernel(spec, files),
        *("-chardev", f"file,id=console,path={_escaped(files.console)},append=on"),
        *("-serial", "chardev:console"),
        *("-qmp", f"unix:{_escaped(files.qmp_socket)},server=on,wait=off"),
        *_virtiofs("root", ROOT_TAG, files.root_socket),
        *_virtiofs("share", SHARE_TAG, files.share_socket),
        *("-netdev", "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *spec.extra_qemu_options,
    ]


def cpu_model(spec: HostSpec) -> str:
    """Return QEMU's ``-cpu``: software emulation gives SVM to AMD and sibling threads to Intel only (QEMU 7.2)."""
    return "max" if spec.kvm else "max,vendor=GenuineIntel"


def smp(spec: HostSpec) -> str:
    """Return QEMU's ``-smp``: sockets as large as can be without any spanning two cells."""
    per_socket = math.gcd(*(cell.cpus for cell in spec.cells))
    sockets = spec.cpus // per_socket
    return (
        f"{spec.cpus},sockets={sockets},cores={per_socket // spec.threads},threads={spec.threads}"
    )


def kernel_options(spec: HostSpec) -> list[str]:
    """Return the kernel's command line, the user's options last, where they win."""
    return [*_KERNEL_OPTIONS, f"numavm.host={spec.name}", *spec.extra_kernel_options]


def virtiofsd_argv(virtiofsd: Path, *, shared: Path, socket: Path, read_only: bool) -> list[str]:
    """Return the command line of the daemon that shows a directory to the host."""
    return [
        str(virtiofsd),
        *("--shared-dir", str(shared)),
        *("--socket-path", str(socket)),
        *("--sandbox", "none"),  # a namespace needs rights that a container may lack
        *("--log-level", "warn"),
        *(["--readonly"] if read_only else ["--cache", "never"]),
    ]


def _numa(spec: HostSpec) -> Iterator[str]:
    first = 0
    for number, cell in enumerate(spec.cells):
        # virtiofsd maps the host's memory, so it is shared.
        yield from ("-object", f"memory-backend-memfd,id=cell{number},size={cell.memory},share=on")
        cpus = f",cpus={first}-{first + cell.cpus - 1}" if cell.cpus else ""
        initiator = "" if cell.cpus or not cell.access else f",initiator={cell.access.initiator}"
        yield from ("-numa", f"node,nodeid={number},memdev=cell{number}{cpus}{initiator}")
        first += cell.cpus
    for source, row in enumerate(spec.distances or ()):
        for target, value in enumerate(row):
            yield from ("-numa", f"dist,src={source},dst={target},val={value}")
    for number, cell in enumerate(spec.cells):
        if cell.access is not None:
            yield from _hmat(number, cell.access)


def _hmat(number: int, access: MemoryAccess) -> Iterator[str]:
    initiator = number if access.initiator is None else access.initiator
    link = f"hmat-lb,initiator={initiator},target={number},hierarchy=memory"
    yield from ("-numa", f"{link},data-type=access-latency,latency={access.latency_nanoseconds}")
    mebibytes = access.bandwidth >> 20
    yield from ("-numa", f"{link},data-type=access-bandwidth,bandwidth={mebibytes}M")


def _kernel(spec: HostSpec, files: HostFiles) -> Iterator[str]:
    yield from ("-kernel", str(files.kernel))
    yield from ("-initrd", str(files.initrd))
    yield from ("-append", " ".join(kernel_options(spec)))


def _virtiofs(name: str, tag: str, socket: Path) -> Iterator[str]:
    yield from ("-chardev", f"socket,id={name},path={_escaped(socket)}")
    yield from ("-device", f"vhost-user-fs-pci,chardev={name},tag={tag},queue-size=1024")


def _escaped(path: Path) -> str:
    """Return a path for use in a QEMU option list, where a comma is written twice."""
    return str(path).replace(",", ",,")
