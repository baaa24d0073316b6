"""Which running VMs' memory stays where it is, by their specs alone."""

from typing import Any

import pytest

from numavm_api.movable import what_strays, why_unmovable
from numavm_api.numavm import NumaVMSpec


def spec(**domain: Any) -> NumaVMSpec:
    return NumaVMSpec.model_validate({"domain": domain})


@pytest.mark.parametrize(
    "memory",
    [
        {"guest": "1Gi"},
        {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}},
        {"guest": "1Gi", "hugepages": {"pageSize": "1Gi"}, "backing": {"source": "Memfd"}},
    ],
)
def test_anonymous_memory_and_huge_pages_move_and_stay(memory: dict[str, Any]) -> None:
    assert why_unmovable(spec(memory=memory)) is None
    assert what_strays(spec(memory=memory)) is None


@pytest.mark.parametrize("backing", [{"source": "Memfd"}, {"access": "Shared"}])
def test_base_pages_of_a_memfd_move_and_what_is_touched_later_is_told(
    backing: dict[str, Any],
) -> None:
    given = spec(memory={"guest": "1Gi", "backing": backing})

    assert why_unmovable(given) is None
    assert "4 KiB pages" in (what_strays(given) or "")


def test_base_pages_of_a_file_do_not_and_the_reason_names_the_way_out() -> None:
    why = why_unmovable(spec(memory={"guest": "1Gi", "backing": {"source": "File"}}))

    assert why is not None
    assert "4 KiB pages" in why
    assert "huge pages" in why


def test_memory_modules_hold_a_vm_where_it_is() -> None:
    modules = [{"name": "m0", "cell": 0, "size": "128Mi", "dimm": {}}]
    given = spec(memory={"guest": "1Gi", "maxGuest": "2Gi"}, devices={"memory": modules})

    assert "modules" in (why_unmovable(given) or "")
