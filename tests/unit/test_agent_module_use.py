"""Whether a guest uses what is plugged in, by its kernel's MemTotal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numavm_agent.reconcile.hot_report import HotNow, hot_findings
from numavm_agent.reconcile.module_use import unused_modules
from numavm_api.numavm import NumaVMSpec
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_api.vm_status import BalloonStatus, ModuleStatus


def mib(amount: int) -> Bytes:
    return Bytes(amount * MEBIBYTE)


def module(
    name: str, size: int, *, model: str = "dimm", current: int | None = None
) -> ModuleStatus:
    has = None if current is None else mib(current)
    return ModuleStatus(name=name, model=model, size=mib(size), current=has)


def says(available: int | None, actual: int, *, stale: bool = False) -> BalloonStatus:
    own = None if available is None else mib(available)
    return BalloonStatus(target=mib(actual), actual=mib(actual), available=own, stale=stale)


# What was measured of Linux 6.1 with 256 MiB: MemTotal is 152 MiB, and grows by all of a module that is brought online.
BOOT, KERNEL = 256, 152
DIMM = module("m0", 256)


@pytest.mark.parametrize(
    ("modules", "balloon", "told"),
    [
        ((DIMM,), says(KERNEL, 512), True),
        ((DIMM,), says(KERNEL + 256, 512), False),
        ((), says(KERNEL, 256), False),
        # A balloon takes from MemTotal: the guest uses the module, and gave 200 MiB back.
        ((DIMM,), says(KERNEL + 256 - 200, 512 - 200), False),
        ((DIMM,), says(KERNEL - 100, 512 - 100), True),
        # A small module hides in what a kernel keeps to itself.
        ((module("m0", 128),), says(KERNEL, 384), False),
        # Of virtio-mem, what the guest has taken; QEMU's balloon does not count it.
        ((module("v0", 512, model="virtio-mem", current=256),), says(KERNEL, 256), True),
        ((module("v0", 512, model="virtio-mem", current=256),), says(KERNEL + 256, 256), False),
        ((module("v0", 512, model="virtio-mem", current=0),), says(KERNEL, 256), False),
        # Files are no memory of the kernel's.
        ((module("p0", 512, model="nvdimm"),), says(KERNEL, 256), False),
        # Nobody knows.
        ((DIMM,), says(None, 512), False),
        ((DIMM,), says(KERNEL, 512, stale=True), False),
        ((DIMM,), None, False),
    ],
)
def test_modules_that_the_kernel_does_not_have_are_told(
    modules: tuple[ModuleStatus, ...], balloon: BalloonStatus | None, *, told: bool
) -> None:
    text = unused_modules(mib(BOOT), modules, balloon)
    assert (modules[0].name in text if told else text == "") is True


@given(
    boot=st.integers(64, 1 << 20),
    sizes=st.lists(st.integers(1, 1 << 16), min_size=1, max_size=4),
    kept=st.integers(0, 128),
    given_back=st.integers(0, 1 << 20),
)
def test_a_guest_that_uses_its_modules_is_never_blamed(
    boot: int, sizes: list[int], kept: int, given_back: int
) -> None:
    """Law: whatever the balloon took, and whatever a kernel keeps up to 128 MiB and one part in sixteen."""
    total = boot + sum(sizes)
    reserved = min(kept + boot // 16, boot)
    ballooned = min(given_back, total - reserved)
    modules = [module(f"m{number}", size) for number, size in enumerate(sizes)]
    figures = says(total - reserved - ballooned, total - ballooned)
    assert unused_modules(mib(boot), modules, figures) == ""


def test_the_condition_waits_for_the_guest() -> None:
    running = NumaVMSpec.model_validate({"domain": {"memory": {"guest": "256Mi"}}})
    memory = hot_findings(running, running, (DIMM,), HotNow(), unused="m0 is not used")[1]
    assert (memory.status, str(memory.reason)) == ("Unknown", "AwaitingGuest")
    assert "m0 is not used" in memory.message
