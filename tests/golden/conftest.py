"""libvirt, shared by the golden tests of one run."""

from collections.abc import Iterator

import pytest

from support.embedded_libvirt import EmbeddedLibvirt
from support.made_up_sysfs import even_host

CELLS = 8
CPUS_PER_CELL = 8


@pytest.fixture(scope="session")
def libvirt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLibvirt]:
    """Libvirt on a host of eight cells; a host with fewer is its first ones."""
    directory = tmp_path_factory.mktemp("embedded")
    with EmbeddedLibvirt(directory, even_host(CELLS, CPUS_PER_CELL)) as made:
        yield made
