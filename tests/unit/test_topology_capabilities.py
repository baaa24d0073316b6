"""What libvirt's capabilities say of QEMU."""

import pytest

from numavm_agent.topology.capabilities import parse_capabilities
from numavm_agent.topology.readings import TopologyError

CAPABILITIES = """
<capabilities>
  <guest><arch name='i686'><emulator>/usr/bin/qemu-system-i386</emulator></arch></guest>
  <guest>
    <arch name='x86_64'>
      <emulator>/usr/bin/qemu-system-x86_64</emulator>
      <machine maxCpus='255'>pc-i440fx-7.2</machine>
      <machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
      <machine maxCpus='288'>pc-q35-7.2</machine>
      <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
      <machine maxCpus='4096'>microvm</machine>
      <domain type='qemu'/>{kvm}
    </arch>
  </guest>
</capabilities>"""


def test_machine_types_and_limits() -> None:
    found = parse_capabilities(CAPABILITIES.format(kvm="<domain type='kvm'/>"))

    assert found.emulator == "/usr/bin/qemu-system-x86_64"
    assert found.machine_types == ("pc-i440fx-7.2", "pc-q35-7.2")
    assert found.aliases == {"pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2"}
    assert found.max_vcpus == 288  # of q35: microvm is not offered
    assert found.kvm


def test_without_kvm() -> None:
    assert not parse_capabilities(CAPABILITIES.format(kvm="")).kvm


def test_a_host_without_an_emulator_for_x86() -> None:
    with pytest.raises(TopologyError, match="no emulator for x86_64"):
        parse_capabilities("<capabilities><guest><arch name='i686'/></guest></capabilities>")
