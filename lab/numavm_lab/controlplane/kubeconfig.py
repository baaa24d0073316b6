"""Kubeconfig documents: one cluster, one user, one context; all inline but a renewed token."""

import base64
from dataclasses import dataclass

import yaml

from numavm_lab.controlplane.pki import KeyPair


@dataclass(frozen=True)
class ClientCertificate:
    """A user who shows a certificate."""

    pair: KeyPair


@dataclass(frozen=True)
class BearerToken:
    """A user who shows this token."""

    token: str


@dataclass(frozen=True)
class TokenFile:
    """A user whose token is in a file; a relative path starts at the kubeconfig's directory."""

    path: str


Credential = ClientCertificate | BearerToken | TokenFile


def render_kubeconfig(
    *, server_url: str, authority_pem: bytes, credential: Credential, namespace: str = "default"
) -> str:
    """Return a kubeconfig (YAML)."""
    name = "numavm-lab"
    cluster = {"server": server_url, "certificate-authority-data": _base64(authority_pem)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": _user(credential)}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _user(credential: Credential) -> dict[str, str]:
    match credential:
        case ClientCertificate(pair):
            return {
                "client-certificate-data": _base64(pair.certificate.read_bytes()),
                "client-key-data": _base64(pair.key.read_bytes()),
            }
        case BearerToken(token):
            return {"token": token}
        case TokenFile(path):
            return {"tokenFile": path}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
