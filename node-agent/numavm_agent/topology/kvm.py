"""Whether KVM really runs guest code here.

That /dev/kvm opens says little: on some nested hosts guests start and hang in their first
instructions after leaving real mode, or crawl and stop in the middle of a kernel's boot (both
measured). So a guest of 512 bytes switches to 64-bit mode with paging, works for a while, and says
so; where it takes long, KVM must not be slower than emulation.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

KVM_DEVICE: Final = Path("/dev/kvm")
DEADLINE_SECONDS: Final = 60
"""A working probe takes a fraction of a second; under a host that is itself emulated, several."""
_PROMPT_SECONDS: Final = 2.0
"""So soon a guest is done where nothing is wrong: KVM is then not held against emulation."""
_DEBUG_EXIT_PORT: Final = 0x501
_SUCCESS: Final = (0x55 << 1) | 1
"""QEMU's isa-debug-exit ends with (value written << 1) | 1."""

# Assembled from kvm_probe.S beside this file, which says what each instruction is for.
_BOOT_SECTOR: Final = bytes.fromhex(
    "fa31c08ed88ec08ed0fcbf0010b90018f3abc70600100320c70600200330c706"
    "00308300660f0116a07c66b8001000000f22d866b8200000000f22e066b98000"
    "00c00f320d00010f300f20c0660d010000800f22c066ea5d7c00000800b98096"
    "980031db891c25008000008304250080000003ffc975f4813c250080000080c3"
    "c901750766ba0105b055eef4ebfd6690000000000000000000000000009a2000"
    "0f00907c"
)


_TELLS_DEBUG_EXIT: Final = bytes.fromhex("66ba0105")
_TELLS_SERIAL: Final = bytes.fromhex("66baf803")
"""`movw $port, %dx` before the guest says that it is done: to isa-debug-exit, or to the first serial port (0x3f8)."""
_SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class KvmProbe:
    """What the probe found."""

    works: bool
    message: str
    """What happened, for `status.capabilities.kvmMessage`."""


def probe_kvm(
    emulator: str = "qemu-system-x86_64", deadline_seconds: float = DEADLINE_SECONDS
) -> KvmProbe:
    """Run a tiny guest under KVM and return whether it finished its work in time, and not later than an emulated one.

    Blocks for up to one and a half times the deadline; run it in a thread, once per boot.
    """
    if not KVM_DEVICE.exists():
        return KvmProbe(works=False, message=f"{KVM_DEVICE} does not exist")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return KvmProbe(works=False, message=f"{KVM_DEVICE} may not be opened by this user")
    return held_against_emulation(partial(run_probe_guest, emulator), deadline_seconds)


def held_against_emulation(
    run: Callable[[str, float], KvmProbe],
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> KvmProbe:
    """Judge KVM by a guest; one that takes its time must not take more than twice that of an emulated one.

    On a host that is itself emulated it takes its time, but there emulation takes far longer.

    Args:
        run: Runs the guest under an accelerator of QEMU, `kvm` or `tcg`, for so many seconds at most.
        deadline_seconds: What KVM is given.
        clock: Seconds.
    """
    began = clock()
    probe = run("kvm", deadline_seconds)
    took = clock() - began
    if not probe.works or took <= _PROMPT_SECONDS or not run("tcg", took / 2).works:
        return probe
    text = f"KVM takes {took:.0f} s for what emulation does in less than half of that"
    return KvmProbe(works=False, message=text)


def run_probe_guest(emulator: str, accelerator: str, deadline_seconds: float) -> KvmProbe:
    """Run the tiny guest under an accelerator of QEMU, `kvm` or `tcg`."""
    with tempfile.TemporaryDirectory(prefix="numavm-probe-") as directory:
        image = Path(directory) / "boot.img"
        image.write_bytes(_bootable(_BOOT_SECTOR))
        return _run(_argv(emulator, accelerator, image, deadline_seconds), deadline_seconds)


def serial_boot_image() -> bytes:
    """Return a disk whose guest does the same work and says so by a byte `U` on its first serial port."""
    return _bootable(_BOOT_SECTOR.replace(_TELLS_DEBUG_EXIT, _TELLS_SERIAL))


def _bootable(code: bytes) -> bytes:
    return code.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"


def _argv(emulator: str, accelerator: str, image: Path, deadline_seconds: float) -> list[str]:
    """`timeout` ends the guest even where the agent itself is killed meanwhile."""
    return [
        *("timeout", "--kill-after=1", str(deadline_seconds)),
        *(emulator, "-accel", accelerator, "-cpu", "max", "-machine", "pc", "-m", "16"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-drive", f"file={image},format=raw,if=ide"),
        *("-device", f"isa-debug-exit,iobase={_DEBUG_EXIT_PORT:#x},iosize=2"),
    ]


def _run(argv: list[str], deadline_seconds: float) -> KvmProbe:
    timed_out = 124
    try:
        # The grace beyond the deadline is for `timeout` to do its work first.
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=deadline_seconds + 5, check=False
        )
    except subprocess.TimeoutExpired:
        return KvmProbe(works=False, message=too_late(deadline_seconds))
    except OSError as error:
        return KvmProbe(works=False, message=f"{argv[0]}: {error.strerror}")
    if done.returncode == _SUCCESS:
        return KvmProbe(works=True, message="guest code ran")
    if done.returncode == timed_out:
        return KvmProbe(works=False, message=too_late(deadline_seconds))
    said = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return KvmProbe(works=False, message=f"QEMU ended with {done.returncode}: {said[0]}"[:250])


def too_late(deadline_seconds: float) -> str:
    """Return the words for a guest that did not say in time that it is done."""
    return f"a guest did not finish a moment's work in {deadline_seconds:g} s"
