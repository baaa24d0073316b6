"""How to reach the API server.

From a kubeconfig file or as a pod, for our own client and for kopf alike.

A token in a file is read again whenever the file is newer, since kubelet and lab renew it in place;
kubernetes' own kubeconfig loader reads it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kopf
import yaml
from kubernetes.aio import client, config

_BEARER = "BearerToken"
_REFRESH = "refresh_api_key_hook"


@dataclass(slots=True)
class TokenFile:
    """A bearer token that someone else renews."""

    path: Path
    _read_at_mtime: float = 0.0

    def refresh(self, configuration: client.Configuration) -> None:
        """Put the token of the file into `configuration` where the file has changed."""
        changed = self.path.stat().st_mtime
        if changed != self._read_at_mtime:
            configuration.api_key[_BEARER] = f"Bearer {self.path.read_text().strip()}"
            self._read_at_mtime = changed


async def load_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Return a configuration for a kubeconfig file; without one, for the pod's service account.

    Raises:
        kubernetes.aio.config.ConfigException: neither names a usable API server.
        OSError: the file cannot be read.
    """
    configuration = client.Configuration()
    if kubeconfig is None:
        config.load_incluster_config(  # type: ignore[no-untyped-call]  # kubernetes ships no types for it
            client_configuration=configuration
        )
        return configuration
    await config.load_kube_config(  # type: ignore[no-untyped-call]  # the same
        str(kubeconfig), client_configuration=configuration
    )
    token_file = _token_file(kubeconfig)
    if token_file is not None:
        # The attribute has no declared type of its own: the generated client infers None.
        setattr(configuration, _REFRESH, TokenFile(token_file).refresh)
    return configuration


async def kopf_connection(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Return the same connection in kopf's form.

    Kopf asks again when its token is no longer accepted.
    """
    configuration = await load_configuration(kubeconfig)
    refresh: Callable[[client.Configuration], None] | None = getattr(configuration, _REFRESH)
    if refresh is not None:
        refresh(configuration)
    scheme, _, token = (configuration.api_key.get(_BEARER) or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        trust_env=True,
    )


def _token_file(kubeconfig: Path) -> Path | None:
    document = yaml.safe_load(kubeconfig.read_text())
    contexts = {item["name"]: item["context"] for item in document.get("contexts", [])}
    users = {item["name"]: item.get("user") or {} for item in document.get("users", [])}
    user = users.get(contexts.get(document.get("current-context"), {}).get("user"), {})
    named = user.get("tokenFile")
    return kubeconfig.parent / named if isinstance(named, str) else None
