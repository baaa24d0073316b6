"""`read_spec`: every rule on a spec as a whole, also those that the API server checks before."""

import pytest

from numavm_api.numahost import NumaHostSpec
from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_host_spec, read_spec
from numavm_api.validation import validate
from support.manifests import BAD, GOOD, BadManifest, Refuser


@pytest.mark.parametrize("name", GOOD)
def test_a_good_spec_is_read(name: str) -> None:
    assert isinstance(read_spec(GOOD[name]), NumaVMSpec), read_spec(GOOD[name])


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_spec_gives_violations(bad: BadManifest) -> None:
    found = read_spec(bad.spec)

    assert isinstance(found, list)
    assert found
    assert all(violation.field.startswith("spec") for violation in found)


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.refuser is Refuser.OPERATOR], ids=str)
def test_a_violation_names_field_value_and_limit(bad: BadManifest) -> None:
    found = read_spec(bad.spec)

    assert isinstance(found, list)
    text = " ".join(map(str, found))
    assert [part for part in bad.says if part not in text] == [], text


def test_all_violations_are_told_at_once() -> None:
    spec = NumaVMSpec.model_validate(
        {
            "domain": {
                "cpu": {"isolateEmulatorThread": True},
                "memory": {"guest": "100"},
                "devices": {"disks": [{"name": "a"}]},
            }
        }
    )

    told = [str(violation) for violation in validate(spec)]
    expected = [
        (
            "spec.domain.cpu.isolateEmulatorThread is true, but only a VM with dedicated CPUs can hold"
            " a pCPU for its emulator: set spec.domain.cpu.dedicatedCpuPlacement to true or leave"
            " isolateEmulatorThread out."
        ),
        "spec.domain.memory.guest is 100, but memory is a positive multiple of 1Mi: use 1Mi.",
        (
            "spec.domain.devices.disks[0].name is 'a', but spec.volumes has no entry of that name:"
            " add 'a' to spec.volumes, or remove this entry."
        ),
    ]
    assert expected == told


def test_a_missing_field_is_told_with_its_path() -> None:
    found = read_spec({"networks": [{}]})

    assert isinstance(found, list)
    assert {
        ("spec.domain", "nothing", "set it"),
        ("spec.networks[0].name", "nothing", "set it"),
    } == {(violation.field, violation.value, violation.remedy) for violation in found}


def test_a_long_value_is_shortened() -> None:
    found = read_spec({"domain": {"cpu": {"model": "x" * 5000}}})

    assert isinstance(found, list)
    assert max(len(violation.value) for violation in found) < 200


def test_a_host_without_a_spec_has_the_default_one() -> None:
    assert read_host_spec(None) == NumaHostSpec()


def test_what_only_we_can_tell_of_a_host_is_told() -> None:
    found = read_host_spec({"reservedCpus": "0-3,^7", "cpuAllocationPercent": 100})

    assert isinstance(found, list)
    assert [violation.field for violation in found] == ["spec.reservedCpus"]
