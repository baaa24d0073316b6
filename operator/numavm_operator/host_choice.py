"""Which of the hosts that fit a VM is taken, as people say it.

Alone here, so that a command line can name the choices without loading the placement.
"""

from enum import StrEnum


class HostChoice(StrEnum):
    """How a host is chosen among those that fit."""

    PACK = "Pack"
    """The fullest: what is left stays whole for large VMs."""
    SPREAD = "Spread"
    """The emptiest."""
