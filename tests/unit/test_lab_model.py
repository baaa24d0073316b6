from pathlib import Path

import pytest

from numavm_lab.errors import LabError
from numavm_lab.hosts import HostSpec, demo_hosts, load_hosts, parse_hosts

CELL = "{cpus: 4, memory: 1Gi}"
ACCESS = "access: {latencyNanoseconds: 90, bandwidth: 100Gi}"
TOLD = f"{{cpus: 1, memory: 1Gi, {ACCESS}}}"


def host(text: str) -> HostSpec:
    return parse_hosts(f"hosts: [{text}]", source="hosts.yaml")[0]


def refusal(text: str) -> str:
    with pytest.raises(LabError) as caught:
        parse_hosts(text, source="hosts.yaml")
    return str(caught.value)


def test_the_demo_has_one_host_with_kvm_and_one_with_siblings_and_unequal_distances() -> None:
    with_kvm, with_siblings = demo_hosts()

    assert (with_kvm.kvm, with_kvm.threads, len(with_kvm.cells)) == (True, 1, 2)
    assert (with_siblings.kvm, with_siblings.threads, len(with_siblings.cells)) == (False, 2, 4)
    assert with_siblings.distances is not None
    assert len({value for row in with_siblings.distances for value in row}) == 4
    assert all(cell.hugepages for spec in demo_hosts() for cell in spec.cells)


def test_the_file_beside_the_other_examples_is_the_demos() -> None:
    repository = Path(__file__).parents[2]

    assert demo_hosts() == load_hosts(repository / "deploy" / "lab" / "demo.yaml")


def test_sizes_are_bytes_and_pages_are_counted_by_their_size() -> None:
    spec = host("{name: a, cells: [{cpus: 2, memory: 512Mi, hugepages: {2Mi: 8}}]}")

    assert spec.cells[0].memory == 512 * 2**20
    assert dict(spec.cells[0].hugepages) == {2 * 2**20: 8}


def test_a_description_survives_being_written_down() -> None:
    for spec in demo_hosts():
        assert spec == HostSpec.model_validate_json(spec.model_dump_json(by_alias=True))


@pytest.mark.parametrize(
    ("field", "described", "why"),
    [
        ("hosts[0].name", f"{{name: Host_A, cells: [{CELL}]}}", "pattern"),
        ("hosts[0].name", f"{{name: '../a', cells: [{CELL}]}}", "pattern"),
        ("hosts[0].cells", "{name: a, cells: []}", "at least 1"),
        ("hosts[0].cells[0].memory", "{name: a, cells: [{cpus: 1, memory: 1GB}]}", "Ki, Mi or Gi"),
        ("hosts[0].cells[0].memory", "{name: a, cells: [{cpus: 1, memory: 64Mi}]}", "134217728"),
        ("hosts[0].cells[0].cpus", "{name: a, cells: [{cpus: 65, memory: 1Gi}]}", "64"),
        ("hosts[0].numa", f"{{name: a, numa: 1, cells: [{CELL}]}}", "not permitted"),
        (
            "hosts[0].threads",
            f"{{name: a, threads: 4, cells: [{CELL}]}}",
            "less than or equal to 2",
        ),
        ("hosts[0]", f"{{name: a, kvm: true, threads: 2, cells: [{CELL}]}}", "two hosts"),
        (
            "hosts[0]",
            "{name: a, threads: 2, cells: [{cpus: 3, memory: 1Gi}]}",
            "multiple of threads",
        ),
        ("hosts[0]", "{name: a, cells: [{cpus: 0, memory: 1Gi}]}", "the first cell boots"),
        ("hosts[0]", f"{{name: a, cells: [{CELL}], distances: [[10, 20]]}}", "1 x 1 matrix"),
        ("hosts[0]", f"{{name: a, cells: [{CELL}], distances: [[11]]}}", "distances[0][0] is 11"),
        (
            "hosts[0]",
            f"{{name: a, cells: [{CELL}, {CELL}], distances: [[10, 255], [20, 10]]}}",
            "distances[0][1] is 255",
        ),
        (
            "hosts[0].cells[0]",
            "{name: a, cells: [{cpus: 1, memory: 1Gi, hugepages: {2Mi: 512}}]}",
            "three quarters",
        ),
        (
            "hosts[0].cells[0].hugepages",
            "{name: a, cells: [{cpus: 1, memory: 1Gi, hugepages: {4Mi: 1}}]}",
            "2Mi or 1Gi",
        ),
        ("hosts[0]", f"{{name: a, cells: [{TOLD}, {CELL}]}}", "cells[1].access is missing"),
        (
            "hosts[0]",
            f"{{name: a, cells: [{TOLD}, {{cpus: 0, memory: 1Gi, {ACCESS}}}]}}",
            "cells[1].access.initiator is 1, which is no cell with CPUs",
        ),
        (
            "hosts[0].extraKernelOptions[0]",
            f"{{name: a, extraKernelOptions: ['a b'], cells: [{CELL}]}}",
            "pattern",
        ),
    ],
)
def test_a_bad_description_is_refused_with_its_field_and_limit(
    field: str, described: str, why: str
) -> None:
    text = refusal(f"hosts: [{described}]")

    assert f"  {field}" in text
    assert why in text


def test_a_name_given_twice_is_refused() -> None:
    one = f"{{name: a, cells: [{CELL}]}}"

    assert "the name a is given twice" in refusal(f"hosts: [{one}, {one}]")


def test_a_file_that_is_no_yaml_is_refused_by_name() -> None:
    assert "hosts.yaml: not YAML" in refusal("hosts: [")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"absent\.yaml: cannot read the hosts file"):
        load_hosts(tmp_path / "absent.yaml")
