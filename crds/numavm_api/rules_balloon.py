"""Rules on the balloon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numavm_api.effective import effective
from numavm_api.effective_modules import ModuleKind
from numavm_api.numavm import NumaVMSpec
from numavm_api.pci_plan import is_q35
from numavm_api.quantity import MEBIBYTE, Bytes, format_bytes
from numavm_api.rules_cells import Rule
from numavm_api.rules_memory import MEMORY
from numavm_api.violation import Violation

BALLOON: Final = f"{MEMORY}.balloon"
DEAD_BEHIND_EXPRESS: Final = "behind a pcie-expander-bus a balloon gets no interrupts and never moves (measured with QEMU 7.2, which gives it INTx only)"


def balloon_rules() -> tuple[Rule, ...]:
    """Return the rules on the balloon."""
    return (_target_within_memory, _no_expander_on_q35)


def _target_within_memory(spec: NumaVMSpec) -> Iterator[Violation]:
    balloon = spec.domain.memory.balloon
    if balloon is None or balloon.target is None:
        return
    vm = effective(spec)
    dimms = sum(module.size for module in vm.modules if module.kind is ModuleKind.DIMM)
    most = Bytes(vm.memory + dimms)
    if not 0 < balloon.target <= most or balloon.target % MEBIBYTE:
        yield Violation(
            f"{BALLOON}.target",
            format_bytes(balloon.target),
            f"it is a positive multiple of 1Mi and at most the guest's boot memory and DIMMs, {format_bytes(most)}",
            f"use {format_bytes(most)} or less, or give the guest more memory",
        )


def _no_expander_on_q35(spec: NumaVMSpec) -> Iterator[Violation]:
    balloon, machine = spec.domain.memory.balloon, spec.domain.machine.type
    if balloon is not None and balloon.cell is not None and is_q35(machine):
        yield Violation(
            f"{BALLOON}.cell",
            str(balloon.cell),
            f"machine is {machine}, and {DEAD_BEHIND_EXPRESS}",
            "leave cell out, or set spec.domain.machine.type to pc",
        )
