"""What a whole node is: configuration and command lines of containerd, kubelet, controller-manager and scheduler.

Pure. Everything lies below one directory. The values that are not defaults were each measured to be needed in a
container without systemd, on cgroup v1 or v2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numavm_lab.controlplane.pki import Pki


@dataclass(frozen=True)
class NodePaths:
    """Where a node keeps its files."""

    directory: Path

    @property
    def socket(self) -> Path:
        """Containerd's socket."""
        return self.directory / "containerd.sock"

    @property
    def pod_resources(self) -> Path:
        """Where the kubelet says what it has given to pods."""
        return self.directory / "kubelet" / "pod-resources"


def containerd_config(paths: NodePaths, sandbox_image: str) -> str:
    """Return containerd's config.toml (version 2, of containerd 1.x)."""
    root = paths.directory / "containerd"
    return f"""\
version = 2
root = "{root}/root"
state = "{root}/state"
oom_score = 0
[grpc]
address = "{paths.socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
# Without CAP_SYS_RESOURCE runc cannot lower a score and dies.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{paths.directory}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def cni_config() -> dict[str, Any]:
    """Return a pod network of this node alone."""
    return {
        "cniVersion": "0.4.0",
        "name": "numavm-lab",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]},
            }
        ],
    }


def kubelet_config(
    paths: NodePaths, pki: Pki, port: int, health_port: int, *, cpus: int
) -> dict[str, Any]:
    """Return the KubeletConfiguration: pods in no cgroup hierarchy of kubelet's own, nothing evicted.

    Of several CPUs it leaves the last one to NumaVM, as docs/runbook.md tells administrators to.
    """
    static = {
        "cpuManagerPolicy": "static",
        "cpuManagerPolicyOptions": {"strict-cpu-reservation": "true"},
        "reservedSystemCPUs": str(cpus - 1),
    }
    return {
        **(static if cpus > 1 else {}),
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health_port,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{paths.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": ["none"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi"},
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "volumePluginDir": str(paths.directory / "volume-plugins"),
    }


def kubelet_argv(
    program: Path, paths: NodePaths, *, config: Path, kubeconfig: Path, name: str
) -> list[str]:
    """Return kubelet's command line."""
    return [
        str(program),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={name}",
        f"--root-dir={paths.directory / 'kubelet'}",
        f"--cert-dir={paths.directory / 'kubelet-pki'}",
    ]


def controller_manager_argv(program: Path, pki: Pki, kubeconfig: Path) -> list[str]:
    """Return kube-controller-manager's command line: every default controller, alone, serving nothing."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={pki.authority.certificate}",
        f"--service-account-private-key-file={pki.service_account_key}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def scheduler_argv(program: Path, kubeconfig: Path) -> list[str]:
    """Return kube-scheduler's command line: alone, serving nothing."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
    ]
