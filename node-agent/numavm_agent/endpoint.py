"""Probes and metrics over HTTP: `/healthz` (start me anew if not), `/readyz` (of use), `/metrics` (Prometheus).

In threads of its own, so that it answers while a turn of the loop hangs, and says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from numavm_agent.pulse import Pulse

_TEXT: Final = "text/plain; charset=utf-8"
_TIMEOUT_SECONDS: Final = 10


class Endpoint:
    """The server; port 0 takes any free one."""

    def __init__(self, address: str, port: int, pulse: Pulse, registry: CollectorRegistry) -> None:
        answers: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            "/healthz": lambda: _verdict(pulse.hangs()),
            "/readyz": lambda: _verdict(pulse.problem()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
        }
        self._server = ThreadingHTTPServer((address, port), _handler(answers))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="endpoint", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        structlog.get_logger("endpoint").info("serving", address=list(self._server.server_address))

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(
    answers: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS
        """A client that sends nothing holds no thread for long."""

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            if answer is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            status, kind, body = answer()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Log nothing: probes come every few seconds."""

    return Handler


def _verdict(problem: str | None) -> tuple[HTTPStatus, str, bytes]:
    if problem is None:
        return HTTPStatus.OK, _TEXT, b"ok\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{problem}\n".encode()
