"""Where a VM last ran."""

from numavm_api.vm_status import DomainState, DomainStatus
from numavm_operator.requests import former_host
from support.operator_worlds import WorldMaker


def former(**domain: str) -> str | None:
    status = DomainStatus(node_name="host-a", state=DomainState.SHUTOFF, **domain)
    return former_host(WorldMaker(domain=status).make().vm)


def test_a_vm_that_never_ran_has_no_former_host() -> None:
    assert former_host(WorldMaker().make().vm) is None
    assert former() is None


def test_a_vm_that_ran_has_one_even_after_a_refusal_there() -> None:
    assert former(started_at="2026-01-01T00:00:00Z") == "host-a"
    assert former(machine="pc-q35-7.2") == "host-a"
