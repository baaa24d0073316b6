"""Balloon figures of all domains, by one call that waits for nobody, on a connection of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import libvirt

from numavm_agent.libvirt.connection import ReconnectingConnection
from numavm_api.quantity import KIBIBYTE

FIGURES: Final = (
    "current",
    "maximum",
    "available",
    "unused",
    "usable",
    "rss",
    "disk_caches",
    "swap_in",
    "swap_out",
)
"""Of virConnectGetAllDomainStats (VIR_DOMAIN_STATS_BALLOON), in KiB; the guest's own are there with a balloon."""


class BalloonReader:
    """Asks libvirt."""

    def __init__(self, uri: str) -> None:
        self._connection = ReconnectingConnection(uri)

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """Return domain's UUID -> figure -> bytes. A domain that is busy has only what libvirt knows by itself.

        Raises:
            HypervisorUnavailable: libvirtd does not answer.
        """
        flags = (
            libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
            | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        )
        with self._connection.use("read balloon figures") as connection:
            found = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, flags)
            return {
                str(domain.UUIDString()): {
                    name: int(stats[f"balloon.{name}"]) * KIBIBYTE
                    for name in FIGURES
                    if f"balloon.{name}" in stats
                }
                for domain, stats in found
            }

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
