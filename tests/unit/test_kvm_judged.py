"""When KVM is used, by how long its guest and an emulated one took."""

import pytest

from numavm_agent.topology.kvm import KvmProbe, held_against_emulation


class Guests:
    """Guests that take so many seconds each, by a clock of their own; None: they never finish."""

    def __init__(self, kvm: float | None, tcg: float | None) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self._takes = {"kvm": kvm, "tcg": tcg}

    def run(self, accelerator: str, deadline: float) -> KvmProbe:
        """Let the clock go on for as long as the guest takes, and say whether it was done in time."""
        self.ran.append(accelerator)
        takes = self._takes[accelerator]
        works = takes is not None and takes <= deadline
        self.now += takes if takes is not None and works else deadline
        return KvmProbe(works=works, message=accelerator)


@pytest.mark.parametrize(
    ("kvm", "tcg", "used", "ran"),
    [
        pytest.param(0.3, 0.1, "kvm", ["kvm"], id="prompt"),
        pytest.param(None, 0.1, "tcg", ["kvm"], id="hangs"),
        pytest.param(14.0, 0.5, "tcg", ["kvm", "tcg"], id="crawls"),
        pytest.param(14.0, 12.0, "kvm", ["kvm", "tcg"], id="on a host that is busy"),
        pytest.param(14.0, None, "kvm", ["kvm", "tcg"], id="on a host that is emulated"),
    ],
)
def test_kvm_is_used_where_it_is_prompt_or_emulation_is_no_quicker(
    kvm: float | None, tcg: float | None, used: str, ran: list[str]
) -> None:
    guests = Guests(kvm, tcg)

    found = held_against_emulation(guests.run, 60, lambda: guests.now)

    assert ("kvm" if found.works else "tcg", guests.ran) == (used, ran)
    assert ("less than half" in found.message) == (ran == ["kvm", "tcg"] and used == "tcg")
