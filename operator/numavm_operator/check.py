"""`numavm-check ready|no-numavms`: what the chart's test and its uninstall guard ask, as the operator's own account."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from numavm_api.errors import NumaVMError
from numavm_api.numahost import LEASE_NAMESPACE
from numavm_operator.kube.client import Json, KubeClient
from numavm_operator.kube.connection import load_configuration
from numavm_operator.kube.lists import list_all
from numavm_operator.kube.paths import NUMAHOSTS, NUMAVMS, leases

_LEASE: Final = "numavm-operator"
_WAIT_SECONDS: Final = 30
_POLL_SECONDS: Final = 1.0
_NAMED: Final = 10
"""So many NumaVMs are named; of more the number is enough."""
_REMEDY: Final = (
    "Delete them first (kubectl delete nvm --all --all-namespaces), which stops their guests; or take operator and"
    " agents away and let the guests run on: helm uninstall --no-hooks. CRDs and NumaVMs stay then, and a later install"
    " takes them up again."
)


def main() -> None:
    """Run the check that the first argument names; exit code 1 and words where it fails."""
    checks: dict[str, Check] = {"ready": _ready, "no-numavms": _no_numavms}
    check = checks.get(sys.argv[1]) if len(sys.argv) == 2 else None  # noqa: PLR2004 - the one argument
    if check is None:
        sys.exit(f"usage: numavm-check {'|'.join(checks)}")
    try:
        problem = asyncio.run(_with_client(check))
    except NumaVMError as error:
        sys.exit(f"numavm-check: {error}")
    if problem:
        sys.exit(f"numavm-check: {problem}")


Check = Callable[[KubeClient], Awaitable[str | None]]


async def _with_client(check: Check) -> str | None:
    async with KubeClient(await load_configuration(None)) as client:
        return await check(client)


async def _no_numavms(client: KubeClient) -> str | None:
    vms = await list_all(client, NUMAVMS)
    if not vms:
        return None
    names = [f"{vm['metadata']['namespace']}/{vm['metadata']['name']}" for vm in vms[:_NAMED]]
    more = f" and {len(vms) - _NAMED} more" if len(vms) > _NAMED else ""
    return f"{len(vms)} NumaVMs exist: {', '.join(names)}{more}. {_REMEDY}"


async def _ready(client: KubeClient) -> str | None:
    """Say why NumaVM is not in service: the kinds, a living leader; hosts are told, and are not a condition."""
    await client.get(NUMAVMS, {"limit": "1"})
    hosts = await list_all(client, NUMAHOSTS)
    sys.stdout.write(f"{len(hosts)} NumaHosts, {sum(map(_is_ready, hosts))} of them Ready\n")
    first = await _lease(client)
    for _ in range(_WAIT_SECONDS):
        await asyncio.sleep(_POLL_SECONDS)
        now = await _lease(client)
        if now and now != first:
            sys.stdout.write(f"the operator leads: {now.get('holderIdentity')}\n")
            return None
    return (
        f"Lease {LEASE_NAMESPACE}/{_LEASE} was not renewed for {_WAIT_SECONDS} s: no operator leads"
    )


async def _lease(client: KubeClient) -> Json:
    found = await list_all(client, leases(LEASE_NAMESPACE))
    mine = next((one for one in found if one["metadata"]["name"] == _LEASE), {})
    spec: Json = mine.get("spec", {})
    return spec


def _is_ready(host: Json) -> bool:
    conditions = host.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
