"""`python -m numavm_lab.prepare`: has every program that the lab and the suites run, built once into the cache.

The suites would build each when they first need it, with nobody seeing why they stand still.
"""

import sys

from numavm_lab.controlplane.binaries import ensure_binaries
from numavm_lab.controlplane.helm import ensure_helm
from numavm_lab.controlplane.manifests import kubectl_program
from numavm_lab.demo.run import StepPrinter, demo_console
from numavm_lab.errors import LabError
from numavm_lab.guest import witness_images
from numavm_lab.hosts.virtiofsd import ensure_virtiofsd
from numavm_lab.progress import Progress
from numavm_lab.state import cache_directory


def prepare(progress: Progress) -> None:
    """Find or build etcd's company, kubectl, helm, virtiofsd and the witness guest; nothing where all is there.

    Raises:
        LabError: a program is missing and could not be built; the text says what to install.
    """
    ensure_binaries(progress)
    kubectl_program()
    ensure_helm(progress)
    ensure_virtiofsd(cache_directory(), progress)
    witness_images()


def main() -> None:
    """Prepare, with a line and the time for each step."""
    try:
        prepare(StepPrinter(demo_console()))
    except LabError as error:
        sys.exit(f"numavm_lab.prepare: {error}")


if __name__ == "__main__":
    main()
