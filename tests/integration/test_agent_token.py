"""The token of an agent outside pods: made by the shipped script, bound to a node, replaced whole."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from kubernetes import client

from numavm_lab.controlplane.accounts import ensure_node
from numavm_lab.controlplane.kubeconfig import BearerToken, render_kubeconfig
from numavm_lab.controlplane.manifests import kubectl_program
from numavm_lab.controlplane.plane import ControlPlane
from support.cluster import Callers, client_from
from support.custom_objects import NumaHosts

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy" / "systemd"


def mint(plane: ControlPlane, *words: str) -> "subprocess.CompletedProcess[str]":
    path = f"{kubectl_program().parent}:{os.environ['PATH']}"
    return subprocess.run(
        [SYSTEMD / "numavm-agent-token", *words],
        env={**os.environ, "PATH": path, "KUBECONFIG": str(plane.admin_kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_minted_token_is_the_agents_of_its_node_only(
    control_plane: ControlPlane, callers: Callers, tmp_path: Path
) -> None:
    uid = ensure_node(callers.admin(), "token-host")
    file = tmp_path / "token"
    file.write_text("old")
    done = mint(control_plane, "token-host", str(file))

    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["token"]
    payload = file.read_text().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["kubernetes.io"]["node"] == {"name": "token-host", "uid": uid}
    document = render_kubeconfig(
        server_url=control_plane.server_url(),
        authority_pem=control_plane.pki.authority.certificate.read_bytes(),
        credential=BearerToken(file.read_text()),
    )
    with client_from(document) as api:
        hosts = NumaHosts(api)
        hosts.create("token-host")
        with pytest.raises(client.ApiException) as refused:
            hosts.create("another-host")
        assert refused.value.status == 403


def test_a_failed_renewal_leaves_the_old_token(control_plane: ControlPlane, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    done = mint(control_plane, "no-such-node", str(file))

    assert done.returncode != 0
    assert file.read_text() == "old"


def test_the_destination_is_a_path_or_a_host(control_plane: ControlPlane, callers: Callers) -> None:
    ensure_node(callers.admin(), "token-host")
    assert "neither an absolute path" in mint(control_plane, "token-host", "relative").stderr
