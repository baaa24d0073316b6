"""Placers that run in an environment of their own: Nova's code and CP-SAT, each behind a pipe of JSON lines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench import placement_mix as mix
from numavm_operator.placement import Host

HERE = Path(__file__).parent
PYTHON = HERE.parent.parent / ".venv-bench" / "bin" / "python"
MIB, GIB = 1024**2, 1024**3


class Piped:
    """A program that answers one line with one line."""

    def __init__(self, script: str) -> None:
        """Start it.

        Raises:
            FileNotFoundError: `hack/bench-venv.sh` was not run.
        """
        self._process = subprocess.Popen(
            [str(PYTHON), str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and return the answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended: {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """End it."""
        self._process.kill()  # it holds nothing but its memory
        self._process.communicate()


class Nova:
    """Nova's own code: its fit, `spread` (its default) or `pack`, or its `scheduler`."""

    def __init__(self, hosts: list[Host], strategy: str) -> None:
        """Give it the fleet."""
        self._pipe = Piped("nova_server.py")
        self._pipe.ask(do="begin", strategy=strategy, hosts=[_for_nova(host) for host in hosts])
        self.seconds = 0.0
        """CPU seconds of the last decision, measured in its own process."""

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Place a VM; return host and cells, or why not."""
        answer = self._pipe.ask(
            do="place",
            uid=arrival.uid,
            vcpus=arrival.vcpus,
            cells=arrival.cells,
            huge=arrival.huge,
            mib=arrival.vcpus * arrival.gib_per_vcpu * 1024,
        )
        self.seconds = answer["seconds"]
        if "refused" in answer:
            return str(answer["refused"])
        return answer["host"], tuple(answer["cells"])

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        self._pipe.ask(do="leave", uid=uid)

    def end(self) -> None:
        """End its process."""
        self._pipe.end()


class Ideal:
    """The limit online: a VM is accepted where all that are there and it can be packed in any way, moves being free."""

    def __init__(self, hosts: list[Host]) -> None:
        """Give it the fleet."""
        self._pipe = Piped("optimum_server.py")
        self._hosts = [_for_optimum(host) for host in hosts]
        self._vms: dict[str, dict[str, int]] = {}
        self.seconds = 0.0

    def place(self, arrival: mix.Arrival) -> tuple[int, tuple[int, ...]] | str:
        """Accept a VM or not; it has no host, since it may move at any time."""
        vms = {**self._vms, arrival.uid: _need(arrival)}
        answer = self._pipe.ask(hosts=self._hosts, vms=list(vms.values()), all=True)
        self.seconds = answer["seconds"]
        if answer["vcpus"] < 0:
            return "no packing"
        self._vms = vms
        return 0, ()

    def leave(self, uid: str) -> None:
        """Give back what a VM holds."""
        del self._vms[uid]

    def end(self) -> None:
        """End its process."""
        self._pipe.end()


def most_vcpus(hosts: list[Host], arrivals: list[mix.Arrival]) -> int:
    """Return the most vCPUs of these VMs that the fleet can hold at once."""
    pipe = Piped("optimum_server.py")
    try:
        fleet = [_for_optimum(host) for host in hosts]
        answer = pipe.ask(hosts=fleet, vms=[_need(one) for one in arrivals], all=False)
        return int(answer["vcpus"])
    finally:
        pipe.end()


def _for_nova(host: Host) -> dict[str, Any]:
    return {
        "cells": [
            {
                "id": at,
                "cpus": _bits(cell.dedicated),
                "siblings": [
                    _bits(core.threads) for core in cell.cores if core.threads & cell.dedicated
                ],
                "mib": sum(cell.memory.values()) // MIB,
                "pages": [[size // 1024, amount // size] for size, amount in cell.memory.items()],
                "socket": min(cell.sockets, default=0),
            }
            for at, cell in enumerate(host.cells)
        ]
    }


def _for_optimum(host: Host) -> list[dict[str, int]]:
    return [
        {
            "threads": cell.dedicated.bit_count(),
            "huge": sum(amount // GIB for size, amount in cell.memory.items() if size == GIB),
            "base": cell.memory[min(cell.memory)] // GIB,
        }
        for cell in host.cells
    ]


def _need(arrival: mix.Arrival) -> dict[str, int]:
    each = arrival.vcpus // arrival.cells
    gib = each * arrival.gib_per_vcpu
    return {
        "vcpus": arrival.vcpus,
        "cells": arrival.cells,
        "threads": each,
        "huge": gib if arrival.huge else 0,
        "base": 0 if arrival.huge else gib,
    }


def _bits(mask: int) -> list[int]:
    return [at for at in range(mask.bit_length()) if mask >> at & 1]
