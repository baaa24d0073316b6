"""Whose turn a NumaVM's is, by its priority class: the reading that scheduler and `explain` share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from numavm_operator.objects import PriorityClass, Vm
from numavm_operator.placement import DEFAULT_PRIORITY, Turn, turn_of

_NOT_YET: Final = "9999-12-31T23:59:59Z"
"""When a VM was created that only stands in a file: after all that are there."""


def priority_in(classes: Iterable[PriorityClass], name: str | None) -> int:
    """Return the priority of a class; of none, or one that does not exist, the global default's, else 0.

    Of several global defaults the smallest counts, as kube-apiserver has it.
    """
    found = list(classes)
    named = next((one.value for one in found if one.name == name), None)
    defaults = [one.value for one in found if one.global_default]
    return named if named is not None else min(defaults, default=DEFAULT_PRIORITY)


def turn_in(classes: Iterable[PriorityClass], vm: Vm) -> Turn:
    """Return the place of a NumaVM in the queue."""
    name = vm.spec.priority_class_name if vm.spec is not None else None
    return turn_of(priority_in(classes, name), vm.created or _NOT_YET, str(vm.key))
