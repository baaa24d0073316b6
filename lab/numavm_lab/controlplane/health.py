"""Waiting for etcd and the API server to be ready, by their own health endpoints."""

import http.client
import ssl
import time
from collections.abc import Callable

from numavm_lab.controlplane.pki import KeyPair

_POLL_SECONDS = 0.05
_REQUEST_SECONDS = 5.0


def probe(*, port: int, path: str, authority: KeyPair, client: KeyPair) -> str | None:
    """Ask ``https://127.0.0.1:port/path``; return None for the answer 200, else what was seen."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(client.certificate, client.key)
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=_REQUEST_SECONDS, context=context
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if answer.status == http.HTTPStatus.OK else f"HTTP {answer.status}: {body}"


def wait_ready(
    ask: Callable[[], str | None], *, is_alive: Callable[[], bool], deadline_seconds: float
) -> str | None:
    """Ask until the answer is None (ready); return why not once the process or the time is gone."""
    end = time.monotonic() + deadline_seconds
    while (seen := ask()) is not None:
        if not is_alive():
            return f"the process ended; last seen: {seen}"
        if time.monotonic() > end:
            return f"not ready after {deadline_seconds:g} s; last seen: {seen}"
        time.sleep(_POLL_SECONDS)
    return None
