"""What is refused because the host's QEMU would quietly not do it."""

import pytest

from numavm_agent.reconcile.versions import too_old
from numavm_api.cpu import BindingMode
from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from support.domains import claim_for, facts_of, spec_of, vm_of


def bound(mode: BindingMode, host_cells: str) -> Placement:
    claim = claim_for(vm_of(spec_of(cells=1)).effective, facts_of(2))
    update = {"mode": mode, "host_cells": CpuSet.parse(host_cells)}
    return claim.model_copy(update={"cells": [claim.cells[0].model_copy(update=update)]})


@pytest.mark.parametrize(
    ("mode", "host_cells", "version", "refused"),
    [
        (BindingMode.PREFERRED, "0-1", "7.2.22", True),
        (BindingMode.PREFERRED, "0-1", "8.0.0", False),
        (BindingMode.PREFERRED, "0-1", "10.0.2", False),
        (BindingMode.PREFERRED, "1", "7.2.22", False),
        (BindingMode.INTERLEAVE, "0-1", "7.2.22", False),
        (BindingMode.PREFERRED, "0-1", "", False),
    ],
)
def test_several_preferred_cells_want_qemu_8(
    mode: BindingMode, host_cells: str, version: str, *, refused: bool
) -> None:
    told = list(too_old(bound(mode, host_cells), version))

    assert bool(told) is refused
    assert all("prefers the first of them only" in one for one in told)
