"""What one control plane is: its ports, and the command lines of its two processes."""

import errno
import json
import random
import socket
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from numavm_lab.controlplane.pki import GUEST_VIEW_OF_LOOPBACK, Pki
from numavm_lab.errors import LabError
from numavm_lab.state import write_private

_PORTS: Final = range(20_000, 30_000)
"""Below ip_local_port_range of Linux (32768 on) and the NodePorts of Kubernetes (30000-32767)."""


class Component(StrEnum):
    """A process of the control plane, by the name of its program."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"


class Reach(StrEnum):
    """From where a kubeconfig is used; the value is the API server's address seen from there."""

    THIS_MACHINE = "127.0.0.1"
    LAB_HOST = GUEST_VIEW_OF_LOOPBACK


@dataclass(frozen=True)
class Settings:
    """Ports (loopback) and durability of one control plane; on disk, so a restart keeps the URL."""

    api_port: int
    etcd_client_port: int
    etcd_peer_port: int
    unsafe_no_fsync: bool

    @staticmethod
    def load_or_create(path: Path, *, unsafe_no_fsync: bool) -> "Settings":
        """Read the settings of an earlier start, or choose free ports and write them."""
        if path.exists():
            return Settings(**json.loads(path.read_text()))
        api, client, peer = free_ports(3)
        settings = Settings(api, client, peer, unsafe_no_fsync)
        write_private(path, json.dumps(asdict(settings)))
        return settings

    def server_url(self, reach: Reach = Reach.THIS_MACHINE) -> str:
        """Return the API server's URL as seen from there."""
        return f"https://{reach}:{self.api_port}"

    @property
    def etcd_client_url(self) -> str:
        """Where etcd serves its clients."""
        return f"https://127.0.0.1:{self.etcd_client_port}"

    @property
    def etcd_peer_url(self) -> str:
        """Where etcd would serve other members; a single member wants one all the same."""
        return f"https://127.0.0.1:{self.etcd_peer_port}"

    @property
    def etcd_membership(self) -> list[str]:
        """The flags that name the only member, for etcd and for restoring a snapshot."""
        return [
            "--name=default",
            f"--initial-cluster=default={self.etcd_peer_url}",
            f"--initial-advertise-peer-urls={self.etcd_peer_url}",
        ]


def etcd_argv(program: Path, settings: Settings, pki: Pki, data: Path) -> list[str]:
    """Return etcd's command line: TLS with client certificates on both ports, loopback only."""
    fsync = ["--unsafe-no-fsync"] if settings.unsafe_no_fsync else []
    return [
        str(program),
        f"--data-dir={data}",
        *settings.etcd_membership,
        f"--listen-peer-urls={settings.etcd_peer_url}",
        f"--listen-client-urls={settings.etcd_client_url}",
        f"--advertise-client-urls={settings.etcd_client_url}",
        "--client-cert-auth",
        f"--trusted-ca-file={pki.etcd_authority.certificate}",
        f"--cert-file={pki.etcd.certificate}",
        f"--key-file={pki.etcd.key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={pki.etcd_authority.certificate}",
        f"--peer-cert-file={pki.etcd.certificate}",
        f"--peer-key-file={pki.etcd.key}",
        "--logger=zap",
        "--log-level=warn",
        *fsync,
    ]


def api_server_argv(program: Path, settings: Settings, pki: Pki, directory: Path) -> list[str]:
    """Return kube-apiserver's command line: loopback only, Node and RBAC, nobody anonymous.

    ValidatingAdmissionPolicy and ServiceAccount admission are on by default.
    """
    return [
        str(program),
        f"--etcd-servers={settings.etcd_client_url}",
        f"--etcd-cafile={pki.etcd_authority.certificate}",
        f"--etcd-certfile={pki.etcd.certificate}",
        f"--etcd-keyfile={pki.etcd.key}",
        "--bind-address=127.0.0.1",
        f"--secure-port={settings.api_port}",
        f"--cert-dir={directory / 'apiserver'}",
        f"--tls-cert-file={pki.serving.certificate}",
        f"--tls-private-key-file={pki.serving.key}",
        f"--client-ca-file={pki.authority.certificate}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # It taints each new Node as not ready, and without a controller-manager nobody takes that off.
        "--disable-admission-plugins=TaintNodesByCondition",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.service_account_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--endpoint-reconciler-type=none",  # it would publish loopback, which Endpoints refuse
        "--allow-privileged=true",
        # For `kubectl logs` and `exec`, where there is a kubelet.
        f"--kubelet-client-certificate={pki.admin.certificate}",
        f"--kubelet-client-key={pki.admin.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def free_ports(count: int) -> list[int]:
    """Return distinct free loopback ports below those that the kernel gives to clients.

    A port from the kernel's own range can be lost while its server restarts: to any client's source port, and to
    a client of that very server, which then talks to itself (TCP self-connect).
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise LabError(f"fewer than {count} of the ports {_PORTS.start}-{_PORTS.stop - 1} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
