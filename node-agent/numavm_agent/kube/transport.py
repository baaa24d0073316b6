"""HTTP to the API server: JSON in, JSON out, errors as the agent's own, the bearer token as fresh as its file.

The kubernetes client's connection and TLS settings are used as they are; of its generated classes none, because plain
documents are what server-side apply wants, and each imported module costs start-up time on every host.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from numavm_agent.errors import ApiConflict, ApiDenied, ApiUnavailable
from numavm_agent.settings import AgentSettings
from numavm_api.errors import NumaVMError, RejectedError

CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 10.0
_OK: Final = range(200, 300)
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_GONE: Final = 410
_UNAVAILABLE: Final = frozenset({401, 408, 410, 425, 429})
"""401 too: a token may have expired just before its file was renewed."""
_SERVER_ERRORS: Final = 500


_TOKEN_KEY: Final = "BearerToken"  # noqa: S105 - the name of a field, no secret
"""What the kubernetes client calls the token among its keys."""


class ContentType(StrEnum):
    """What a request carries."""

    JSON = "application/json"
    MERGE_PATCH = "application/merge-patch+json"
    APPLY_PATCH = "application/apply-patch+yaml"


class NotFound(RejectedError):  # noqa: N818 - HTTP's own word
    """The API server has no such object."""


Document = dict[str, Any]


class Transport:
    """Requests with the credentials of one kubeconfig, token file or pod; shared by threads."""

    def __init__(self, configuration: Configuration) -> None:
        # The stubs are those of an older generation of the client.
        self._configuration: Any = configuration
        self._configuration.retries = False  # the loop tries again, and a Lease must not wait
        self._client: Any = ApiClient(configuration)
        self._agent = {"User-Agent": "numavm-agent", "Accept": "application/json"}

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: ContentType = ContentType.JSON,
    ) -> Document:
        """Return the answer's document.

        Raises:
            NotFound, ApiConflict, ApiDenied, ApiUnavailable: what the server said, or that it said nothing.
        """
        response = self._send(method, path, query, body, content_type, read_seconds=READ_SECONDS)
        with closing(response):
            try:
                payload = response.read()
            except urllib3.exceptions.HTTPError as error:
                raise ApiUnavailable(f"{method} {path}: {error}") from error
        if response.status not in _OK:
            raise _error(method, path, response.status, payload)
        document: Document = json.loads(payload)
        return document

    def lines(
        self, path: str, *, query: Mapping[str, str], silence_seconds: float
    ) -> Iterator[bytes]:
        """Yield the lines of a stream until the server ends it.

        Raises:
            ApiUnavailable: the stream broke, or nothing came for `silence_seconds`.
        """
        response = self._send(
            "GET", path, query, None, ContentType.JSON, read_seconds=silence_seconds
        )
        with closing(response):
            if response.status not in _OK:
                raise _error("GET", path, response.status, response.read())
            try:
                yield from _split_lines(response)
            except urllib3.exceptions.HTTPError as error:
                raise ApiUnavailable(f"GET {path}: {error}") from error

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Document | None,
        content_type: ContentType,
        *,
        read_seconds: float,
    ) -> urllib3.HTTPResponse:
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {**self._agent, **self._authorization()}
        if body is not None:
            headers["Content-Type"] = content_type
        timeout = (CONNECT_SECONDS, read_seconds)
        try:
            answer = self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise ApiUnavailable(f"{method} {path}: {error}") from error
        response: urllib3.HTTPResponse = answer.response
        return response

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._configuration.get_api_key_with_prefix(_TOKEN_KEY, "authorization")
        except OSError as error:
            raise ApiUnavailable(f"cannot read the bearer token: {error}") from error
        return {"Authorization": token} if token else {}


def _split_lines(response: urllib3.HTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _error(method: str, path: str, status: int, payload: bytes) -> NumaVMError:
    text = f"{method} {path}: {status} {_message(payload)}"
    if status == _NOT_FOUND:
        return NotFound(text)
    if status == _CONFLICT:
        return ApiConflict(text)
    if status in _UNAVAILABLE or status >= _SERVER_ERRORS:
        return ApiUnavailable(text)
    return ApiDenied(text)


def _message(payload: bytes) -> str:
    try:
        document = json.loads(payload)
    except ValueError:
        return payload[:500].decode(errors="replace")
    return str(document.get("message", "")) if isinstance(document, dict) else str(document)


class TokenFile:
    """A bearer token that follows its file: read again whenever the file's identity, size or time changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self, configuration: Configuration) -> None:
        """Put the current token into `configuration`; the kubernetes client calls this before each use."""
        found = self._path.stat()
        version = (found.st_ino, found.st_size, found.st_mtime_ns)
        if version != self._read:
            self._token = self._path.read_text(encoding="ascii").strip()
            self._read = version
        configuration.api_key[_TOKEN_KEY] = f"Bearer {self._token}"


def configuration_from(settings: AgentSettings) -> Configuration:
    """Return how to reach the API server, and as whom.

    Raises:
        RejectedError: the settings name no usable credentials.
    """
    configuration: Any = Configuration()  # the stubs are those of an older generation
    try:
        if settings.server is not None:
            configuration.host = settings.server.rstrip("/")
            configuration.ssl_ca_cert = str(settings.ca_file)
            token_file = settings.token_file
        elif settings.kubeconfig is not None:
            load_kube_config(
                config_file=str(settings.kubeconfig),
                client_configuration=configuration,
                persist_config=False,
            )
            token_file = settings.token_file or _token_file_of(settings.kubeconfig)
        else:
            load_incluster_config(client_configuration=configuration)
            return _typed(configuration)
    except (ConfigException, OSError, yaml.YAMLError) as error:
        raise RejectedError(f"no credentials for the API server: {error}") from error
    if token_file is not None:
        hook = TokenFile(token_file)
        configuration.refresh_api_key_hook = hook
    return _typed(configuration)


def _typed(configuration: Configuration) -> Configuration:
    return configuration


def _token_file_of(kubeconfig: Path) -> Path | None:
    """Return the current user's `tokenFile`, which may be relative to the kubeconfig (client-go's rule)."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    contexts = {entry["name"]: entry["context"] for entry in document.get("contexts", ())}
    users = {entry["name"]: entry.get("user") or {} for entry in document.get("users", ())}
    context = contexts.get(document.get("current-context"), {})
    named = users.get(context.get("user"), {}).get("tokenFile")
    return kubeconfig.parent / named if named else None
