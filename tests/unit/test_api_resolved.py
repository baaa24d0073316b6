"""What a placement decides of a VM, and what a restart keeps of it."""

from numavm_api.backing import MemoryAccess
from numavm_api.cpu import BindingMode
from numavm_api.effective import DerivedCells, effective
from numavm_api.quantity import BASE_PAGE, MEBIBYTE
from numavm_api.resolved import resolved, with_kept_cells
from support.domains import claim_for, facts_of, spec_of

HUGE = 2 * MEBIBYTE


def derived(**numa: object) -> dict[str, object]:
    return {
        "cpu": {"cores": 4, "numa": {"guestMappingPassthrough": {}, **numa}},
        "memory": {"guest": "128Mi"},
    }


def test_derived_cells_are_those_of_the_placement() -> None:
    vm = effective(spec_of(derived(hostBinding={"mode": "Preferred"})))

    cells = resolved(vm, claim_for(vm, facts_of(2))).cells

    assert [(cell.id, len(cell.vcpus), cell.memory) for cell in cells] == [
        (0, 2, 64 * MEBIBYTE),
        (1, 2, 64 * MEBIBYTE),
    ]
    assert {cell.mode for cell in cells} == {BindingMode.PREFERRED}


def test_a_page_size_is_the_placements_only_where_the_spec_left_it_the_choice() -> None:
    fallback = {"hugepages": {"pageSize": "2Mi", "fallback": ["4Ki"]}}
    firm = {"hugepages": {"pageSize": "2Mi"}}
    cells = [
        {"id": 0, "cpus": "0", "memory": "64Mi", **fallback},
        {"id": 1, "cpus": "1", "memory": "64Mi", **firm},
    ]
    vm = effective(spec_of({"cpu": {"cores": 2, "numa": {"cells": cells}}}))
    claim = claim_for(vm, facts_of(2))
    small = [cell.model_copy(update={"page_size": BASE_PAGE}) for cell in claim.cells]

    found = resolved(vm, claim.model_copy(update={"cells": small}))

    assert [cell.page_size for cell in found.cells] == [BASE_PAGE, HUGE]


def test_the_number_of_derived_cells_is_kept_unless_the_spec_names_one() -> None:
    any_number = effective(spec_of(derived()))
    named = effective(spec_of(derived(guestMappingPassthrough={"cells": 2})))

    assert with_kept_cells(any_number, 3).derived_cells == DerivedCells(3)
    assert with_kept_cells(any_number, None).derived_cells == DerivedCells(None)
    assert with_kept_cells(named, 3).derived_cells == DerivedCells(2)
    assert with_kept_cells(effective(spec_of(cells=2)), 3).derived_cells is None


def test_base_pages_of_a_memfd_are_shared_and_huge_ones_as_asked() -> None:
    cells = [
        {"id": 0, "cpus": "0", "memory": "64Mi", "hugepages": {"pageSize": "2Mi"}},
        {"id": 1, "cpus": "1", "memory": "64Mi"},
    ]
    vm = effective(spec_of({"cpu": {"cores": 2, "numa": {"cells": cells}}}))

    found = resolved(vm, claim_for(vm, facts_of(2)))

    assert [cell.access for cell in found.cells] == [MemoryAccess.PRIVATE, MemoryAccess.SHARED]
    assert {cell.access for cell in vm.cells} == {MemoryAccess.PRIVATE}  # no change of the spec
