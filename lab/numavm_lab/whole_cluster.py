"""A whole cluster on this machine, for the Helm chart: control plane, node, images, and the values that fit."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from numavm_lab.controlplane.helm import ensure_helm
from numavm_lab.controlplane.node import WholeNode
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.images import build_images
from numavm_lab.progress import Progress, silent


def start_node(plane: ControlPlane, progress: Progress = silent) -> Path:
    """Make this machine a node of a running control plane, with NumaVM's images; return helm.

    Raises:
        LabError: a part is missing or did not come up; the text says which and why.
    """
    helm = ensure_helm(progress)
    images = build_images(version("numavm"), progress)
    WholeNode(plane, progress=progress).start(images)
    return helm


def helm_values(plane: ControlPlane) -> list[str]:
    """Return what the chart must be told here: there is no service network, so pods use the node's."""
    node = WholeNode(plane)
    return [
        "operator.replicas=1",
        "operator.hostNetwork=true",
        "operator.image.pullPolicy=Never",
        "agent.hostNetwork=true",
        "agent.image.pullPolicy=Never",
        f"agent.kubeletPodResources={node.paths.pod_resources}",
        "apiServer.host=127.0.0.1",
        f"apiServer.port={plane.settings.api_port}",
    ]
