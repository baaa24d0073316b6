"""Kubeconfigs for everyone but the administrator: NumaVM's service accounts and single users."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from numavm_lab.controlplane.accounts import DEFAULT_TOKEN_SECONDS, ServiceAccount, mint_token
from numavm_lab.controlplane.kubeconfig import BearerToken, TokenFile, render_kubeconfig
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.controlplane.settings import Reach
from numavm_lab.errors import LabError
from numavm_lab.state import write_private


@contextmanager
def admin_client(plane: ControlPlane) -> Iterator[client.ApiClient]:
    """Give an API client with the administrator's rights, closed at the end."""
    if not plane.admin_kubeconfig.exists():
        raise LabError(f"no control plane in {plane.directory}; start one: numavm cluster up")
    made = config.new_client_from_config(str(plane.admin_kubeconfig))
    with made as api:  # type: ignore[attr-defined]  # the stubs leave the context manager out
        yield api


def token_for_service_account(
    plane: ControlPlane,
    account: ServiceAccount,
    *,
    node: str | None = None,
    lifetime_seconds: int = DEFAULT_TOKEN_SECONDS,
) -> str:
    """Return a new token of the account, bound to ``node`` (created if missing) where given.

    Raises:
        LabError: The API server does not answer, or refuses the account, the node's name or the
            lifetime; the text is its own.
    """
    with admin_client(plane) as api:
        try:
            return mint_token(api, account, node=node, lifetime_seconds=lifetime_seconds)
        except ApiException as error:
            raise LabError(
                f"token for {account.namespace}/{account.name}, node {node}: {_message(error)}"
            ) from error
        except HTTPError as error:
            raise LabError(f"{plane.server_url()} does not answer: {error}") from error


def kubeconfig_for_service_account(
    plane: ControlPlane,
    account: ServiceAccount,
    *,
    node: str | None = None,
    lifetime_seconds: int = DEFAULT_TOKEN_SECONDS,
    reach: Reach = Reach.THIS_MACHINE,
) -> str:
    """Return a kubeconfig (YAML) with a new token inline."""
    token = token_for_service_account(plane, account, node=node, lifetime_seconds=lifetime_seconds)
    return render_kubeconfig(
        server_url=plane.server_url(reach),
        authority_pem=plane.pki.authority.certificate.read_bytes(),
        credential=BearerToken(token),
        namespace=account.namespace,
    )


def write_renewable_kubeconfig(
    plane: ControlPlane,
    account: ServiceAccount,
    directory: Path,
    *,
    node: str | None = None,
    lifetime_seconds: int = DEFAULT_TOKEN_SECONDS,
    reach: Reach = Reach.THIS_MACHINE,
) -> Path:
    """Write ``kubeconfig`` and, beside it, the ``token`` file it names; return the former's path.

    Calling it again renews the token, atomically: a process that reads the file anew needs no
    restart. The reference is relative, so the directory may be seen under another path inside a lab
    host.
    """
    token = token_for_service_account(plane, account, node=node, lifetime_seconds=lifetime_seconds)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(directory / "token", token)
    document = render_kubeconfig(
        server_url=plane.server_url(reach),
        authority_pem=plane.pki.authority.certificate.read_bytes(),
        credential=TokenFile("token"),
        namespace=account.namespace,
    )
    write_private(directory / "kubeconfig", document)
    return directory / "kubeconfig"


def kubeconfig_for_user(
    plane: ControlPlane,
    name: str,
    *,
    groups: tuple[str, ...] = (),
    namespace: str = "default",
    reach: Reach = Reach.THIS_MACHINE,
) -> str:
    """Return a kubeconfig (YAML) of a user, who may do what RBAC grants the name or its groups."""
    pair = plane.pki.client(name, list(groups))
    return plane.kubeconfig_for_certificate(pair, namespace=namespace, reach=reach)


def _message(error: ApiException) -> str:
    """Return what the API server says in its Status object, or else the whole answer."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return f"HTTP {error.status} {error.reason}: {error.body}"
