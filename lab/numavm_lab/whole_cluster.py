"""A whole cluster on this machine, for the Helm chart: control plane, node, libvirt, images, fitting values."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from kubernetes import client

from numavm_api.base import GROUP, VERSION
from numavm_api.numavm import PLURAL
from numavm_lab.controlplane.credentials import admin_client
from numavm_lab.controlplane.helm import ensure_helm
from numavm_lab.controlplane.node import WholeNode
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.images import build_images
from numavm_lab.local import ThisMachine
from numavm_lab.progress import Progress, silent


def start_node(plane: ControlPlane, progress: Progress = silent) -> Path:
    """Make this machine a node of a running control plane, with libvirt and NumaVM's images; return helm.

    Raises:
        LabError: a part is missing or did not come up; the text says which and why.
    """
    helm = ensure_helm(progress)
    images = build_images(version("numavm"), progress)
    _libvirt(plane, progress).prepare()
    WholeNode(plane, progress=progress).start(images)
    return helm


def stop_node(plane: ControlPlane) -> None:
    """End the node's pods and guests, and what was started for them; harmless where nothing runs."""
    node, local = WholeNode(plane), _libvirt(plane)
    uids = _uids_on(plane, node.name) if plane.status().is_ready else []
    node.stop()
    local.remove(uids)


def _libvirt(plane: ControlPlane, progress: Progress = silent) -> ThisMachine:
    return ThisMachine(plane.directory / "libvirt", progress=progress)


def _uids_on(plane: ControlPlane, node: str) -> list[str]:
    """Return the uids of NumaVMs on a node; none where the chart was never installed."""
    with admin_client(plane) as api:
        try:
            vms = client.CustomObjectsApi(api).list_cluster_custom_object(GROUP, VERSION, PLURAL)
        except client.ApiException:
            return []
    return [
        str(vm["metadata"]["uid"])
        for vm in vms["items"]
        if vm.get("status", {}).get("nodeName") == node
    ]


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
