"""Control plane, operator, and this machine's own libvirt as the only host: what benches run on."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from numavm_lab.stack import Stack
from support.vms import Vms
from support.wait import wait_for


@contextmanager
def local_stack(console: Console) -> Iterator[tuple[Stack, Vms]]:
    """Give a running stack with this machine as its host, and its default namespace's NumaVMs."""
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    stack = Stack(directory, progress=lambda step: console.print(f"  {step}", highlight=False))
    try:
        stack.up([], local=True)
        with stack.admin() as api:
            vms = Vms(api, "default")
            wait_for(
                lambda: vms.host(stack.local.name).get("status", {}).get("conditions"),
                until=lambda seen: any(
                    one["type"] == "Ready" and one["status"] == "True" for one in seen or ()
                ),
                deadline_seconds=60,
                describe="this machine's NumaHost Ready",
            )
            yield stack, vms
            vms.delete_and_wait()
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)


def renamed_domain(xml: str, name: str) -> str:
    """Return a running domain's XML under another name, without its id: what virsh can create anew.

    Its serial log is another file too: virtlogd gives a file to one domain only.
    """
    renamed = re.sub(r"<name>.*?</name>", f"<name>{name}</name>", xml, count=1)
    renamed = re.sub(r"[^/'\"]*serial\.log", f"{name}-serial.log", renamed)
    return re.sub(r"<domain type='(\w+)' id='\d+'>", r"<domain type='\1'>", renamed, count=1)
