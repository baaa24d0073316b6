"""The cluster that a command speaks to: found as kubectl finds it, read and patched as plain documents.

Owns the options `--kubeconfig`, `--context` and `--namespace`, and the turning of the API server's errors into ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from numavm_api.base import GROUP, VERSION
from numavm_api.errors import NumaVMError, RejectedError, TransientError
from numavm_api.numahost import PLURAL as HOSTS
from numavm_api.numavm import PLURAL as VMS

if TYPE_CHECKING:
    from kubernetes.client import ApiException

Document = dict[str, Any]

FIELD_MANAGER: Final = "kubectl-numavm"
_PAGE: Final = 500
_SECONDS: Final = (5, 30)
"""To connect, and to be answered."""

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="Path of the kubeconfig.",
        show_default="$KUBECONFIG, else ~/.kube/config",
        metavar="FILE",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig.", show_default="the current one", metavar="NAME"),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace.", show_default="the context's", metavar="NAME"
    ),
]


class Cluster:
    """NumaVM's objects on one API server, as one user. Every call may raise a `NumaVMError`."""

    def __init__(self, api: Any, namespace: str) -> None:  # noqa: ANN401 - an ApiClient; its stubs are older
        self.api = api
        self.namespace = namespace

    def vm(self, name: str) -> Document:
        """Return a NumaVM of the namespace."""
        return self._document(
            f"NumaVM {self.namespace}/{name}",
            lambda custom: custom.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, VMS, name, _request_timeout=_SECONDS
            ),
        )

    def patch_vm(self, name: str, spec: Mapping[str, Any]) -> Document:
        """Merge fields into the spec of a NumaVM of the namespace."""
        return self._document(
            f"NumaVM {self.namespace}/{name}",
            lambda custom: custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                VMS,
                name,
                {"spec": dict(spec)},
                field_manager=FIELD_MANAGER,
                _content_type="application/merge-patch+json",
                _request_timeout=_SECONDS,
            ),
        )

    def host(self, name: str) -> Document:
        """Return a NumaHost."""
        return self._document(
            f"NumaHost {name}",
            lambda custom: custom.get_cluster_custom_object(
                GROUP, VERSION, HOSTS, name, _request_timeout=_SECONDS
            ),
        )

    def hosts(self) -> list[Document]:
        """Return every NumaHost, by name."""
        return sorted(self._pages(HOSTS, None), key=lambda one: str(one["metadata"]["name"]))

    def vms(self, *, everywhere: bool = False) -> list[Document]:
        """Return every NumaVM of the namespace, or of all of them."""
        return list(self._pages(VMS, None if everywhere else self.namespace))

    def events_of(self, vm: Document) -> list[Document]:
        """Return the events about a NumaVM, oldest first; none where this user may not read them."""
        from kubernetes import client

        def events(_: Any) -> Any:  # noqa: ANN401 - the client's own types
            return client.CoreV1Api(self.api).list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.uid={vm['metadata']['uid']}",
                _request_timeout=_SECONDS,
            )

        try:
            answer = self._call("events", events)
        except RejectedError:
            return []
        listed = self.api.sanitize_for_serialization(answer)["items"]
        return sorted(listed, key=_time_of)

    def _pages(self, plural: str, namespace: str | None) -> Iterator[Document]:
        token: str | None = ""
        while token is not None:
            answer = self._call(plural, self._page(plural, namespace, token))
            yield from answer["items"]
            token = answer["metadata"].get("continue") or None

    def _page(self, plural: str, namespace: str | None, token: str) -> Callable[[Any], Document]:
        more = {"limit": _PAGE, "_continue": token, "_request_timeout": _SECONDS}

        def get(custom: Any) -> Any:  # noqa: ANN401 - the client's own types
            if namespace is None:
                return custom.list_cluster_custom_object(GROUP, VERSION, plural, **more)
            return custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural, **more)

        return get

    def _document(self, what: str, call: Callable[[Any], Any]) -> Document:
        found: Document = self._call(what, call)
        return found

    def _call(self, what: str, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - documents
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        try:
            return call(client.CustomObjectsApi(self.api))
        except client.ApiException as error:
            raise _error(what, error) from error
        except (HTTPError, OSError) as error:
            host = self.api.configuration.host
            raise TransientError(f"{what}: {host} does not answer: {error}") from error


@contextmanager
def cluster(
    kubeconfig: Path | None, context: str | None, namespace: str | None
) -> Iterator[Cluster]:
    """Give the cluster that kubectl would speak to with these options.

    Raises:
        RejectedError: there is no usable kubeconfig, or it has no such context.
    """
    from kubernetes import config
    from kubernetes.config import ConfigException

    file = str(kubeconfig) if kubeconfig else None
    try:
        listed: Any = config.list_kube_config_contexts(file)
        made: Any = config.new_client_from_config(file, context=context, persist_config=False)
    except (ConfigException, OSError) as error:
        raise RejectedError(f"no cluster: {error}; see --kubeconfig and --context") from error
    contexts, current = listed
    chosen = next((one for one in contexts if one["name"] == context), current)
    default = (chosen or {}).get("context", {}).get("namespace") or "default"
    with made as api:
        yield Cluster(api, namespace or default)


def _time_of(event: Document) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _error(what: str, error: ApiException) -> NumaVMError:
    try:
        text = str(json.loads(str(error.body))["message"])
    except (TypeError, ValueError, KeyError):
        text = f"HTTP {error.status} {error.reason}"
    kind = TransientError if (error.status or 500) >= 500 or error.status == 429 else RejectedError  # noqa: PLR2004 - HTTP's own numbers
    return kind(f"{what}: {text}")
