"""A running guest with room for more vCPUs and memory, and what its own kernel says it has."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt

from numavm_agent.domain.metadata import read_metadata
from numavm_agent.reconcile.live_plan import read_unplugging
from numavm_agent.verify.module_figures import module_figures
from numavm_api.cpuset import CpuSet
from numavm_api.placement import Placement
from numavm_api.quantity import MEBIBYTE, Bytes
from numavm_lab.guest import Report, parse_reports
from support.agents import Document, Vm, place, small_spec
from support.wait import wait_for

ROOM = Bytes(512 * MEBIBYTE)
_KIB_PER_MIB = 1024


@dataclass
class HotGuest:
    """A VM whose claim has room for two vCPUs and `ROOM` of modules."""

    vm: Vm
    base: int = 0
    """KiB that its kernel manages with no module."""
    earlier: int = 0
    """Reports of boots before this one."""

    def boot(
        self,
        modules: list[Document] | None = None,
        kernel_arguments: str = "",
        balloon: Document | None = None,
    ) -> None:
        """Create it, and wait until its kernel has spoken."""
        spec = small_spec(self.vm.node.libvirt)
        spec["domain"]["firmware"]["kernelBoot"]["args"] += f" {kernel_arguments}"
        spec["domain"]["cpu"] = {"sockets": 1, "maxSockets": 2}
        # Room above 4 GiB costs the guest 64 MiB of bounce buffers.
        spec["domain"]["memory"] = {
            "guest": "256Mi",
            "maxGuest": "1Gi",
            "balloon": {"model": "virtio", **(balloon or {})},
        }
        spec["domain"]["devices"] = {"memory": modules or []}
        self.vm.create(spec)
        self.vm.claim(self._claim())
        self.vm.wait("NumaAligned", "True")
        self.base = wait_for(
            lambda: self.seen()[1], describe="the guest booted", deadline_seconds=180
        )

    def change(
        self,
        *,
        sockets: int,
        modules: list[Document],
        memory: str = "256Mi",
        balloon: str | None = None,
    ) -> None:
        """Change the spec by one patch; without a target of the balloon the guest has all its memory."""
        domain: Document = {
            "cpu": {"sockets": sockets},
            "memory": {"guest": memory, "balloon": {"target": balloon}},
            "devices": {"memory": modules},
        }
        self.vm.patch({"domain": domain})

    def seen(self) -> tuple[str, int]:
        """Return CPUs and memory, in KiB, by the guest kernel's last word; nothing before its first."""
        reports = self._reports()[self.earlier :]
        if not reports:
            return "", 0
        return str(reports[-1].online_cpus), reports[-1].nodes[0].memory_kib

    def wait(self, *, cpus: str, more: int) -> None:
        """Wait until the guest's kernel has these CPUs, and so many MiB more than without modules."""
        wait_for(
            self.seen,
            until=lambda now: now == (cpus, self.base + more * _KIB_PER_MIB),
            deadline_seconds=120,
            describe=f"CPUs {cpus} and {self.base} KiB + {more} MiB; agent:\n{self.vm.node.agent.log(15)}\n",
        )

    def settles(self) -> None:
        """Wait until status says of this very spec that nothing is left to do."""
        generation = self.vm.get()["metadata"]["generation"]

        def is_done(status: Document) -> bool:
            conditions = {one["type"]: one for one in status.get("conditions", ())}
            kinds = ("HotVCPUChange", "HotMemoryChange", "NumaAligned")
            found = [conditions.get(kind, {}) for kind in kinds]
            return all(
                one.get("status") == "True" and one.get("observedGeneration") == generation
                for one in found
            )

        wait_for(self.vm.status, until=is_done, deadline_seconds=60, describe="all is done")

    def restart(self) -> None:
        """Restart it under a claim for the spec as it is now, as the operator does."""
        self.vm.patch({"restartToken": str(uuid.uuid4())})
        wait_for(lambda: self.vm.qemu() is None, describe="it is stopped", deadline_seconds=60)
        self.earlier = len(self._reports())
        self.vm.claim(self._claim(claim_id="claim-restart"))
        self.vm.wait_domain("again", state="Running", placementId="claim-restart")

    def balloon_to(self, mebibytes: int) -> None:
        """Set the balloon past NumaVM."""
        with self._libvirt() as domain:
            domain.setMemoryFlags(mebibytes * _KIB_PER_MIB, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def balloon(self) -> int:
        """Return the size of the guest by its balloon, in MiB, by libvirt's word."""
        with self._libvirt() as domain:
            return int(domain.info()[2]) // _KIB_PER_MIB

    def module_names(self) -> set[str]:
        """Return the modules that libvirt shows."""
        return {module.name for module in module_figures(self._xml())}

    def asked_for_generation(self) -> int:
        """Return the generation of the spec for which the guest was asked to give something back; 0: it was not."""
        record = read_metadata(self._xml())
        asked = read_unplugging(record.operation) if record is not None else None
        return asked.generation if asked is not None else 0

    def _reports(self) -> list[Report]:
        logs = self.vm.node.libvirt.logs.glob(f"*_{self.vm.name}_*serial*")
        words = [parse_reports(log.read_text(errors="replace")) for log in logs]
        return [report for one in words for report in one]

    def _xml(self) -> str:
        with self._libvirt() as domain:
            return str(domain.XMLDesc(0))

    @contextmanager
    def _libvirt(self) -> Iterator[Any]:
        connection = libvirt.open(self.vm.node.libvirt.uri)
        try:
            yield connection.lookupByUUIDString(self.vm.uid())
        finally:
            connection.close()

    def _claim(self, **changes: Any) -> Placement:
        made = place(self.vm.spec(), pcpus=CpuSet(), **changes)
        cells = [cell.model_copy(update={"plugged": ROOM}) for cell in made.cells]
        return made.model_copy(update={"cells": cells})
