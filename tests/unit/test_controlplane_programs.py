"""Which kube-apiserver, etcd and Go are taken; the stand-ins only say a version."""

from pathlib import Path

import pytest

from numavm_lab.controlplane.binaries import (
    KubernetesProgram,
    ensure_binaries,
    ensure_kubernetes_program,
    pinned_version,
)
from numavm_lab.controlplane.golang import ensure_go
from numavm_lab.errors import MissingPrerequisiteError
from numavm_lab.progress import silent


def program(directory: Path, name: str, says: str) -> Path:
    """Write a program that prints one line whatever it is asked."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("NUMAVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def test_the_users_assets_come_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    for place in ("assets", "path"):
        program(tmp_path / place, "kube-apiserver", "Kubernetes v1.35.0")
        program(tmp_path / place, "etcd", "etcd Version: 3.5.0")
    found = ensure_binaries()

    assert found.kube_apiserver == tmp_path / "assets" / "kube-apiserver"
    assert found.etcd == tmp_path / "assets" / "etcd"


def test_path_comes_before_the_cache(tmp_path: Path) -> None:
    own = program(tmp_path / "path", "kube-apiserver", "Kubernetes v1.33.1")
    program(cached_place(tmp_path), "kube-apiserver", "Kubernetes v1.37.2")

    assert own == ensure_kubernetes_program(KubernetesProgram.API_SERVER)


def test_what_was_built_once_is_taken_from_the_cache(tmp_path: Path) -> None:
    cached = program(cached_place(tmp_path), "kube-apiserver", "Kubernetes v1.37.2")

    assert cached == ensure_kubernetes_program(KubernetesProgram.API_SERVER)


@pytest.mark.parametrize("says", ["Kubernetes v1.32.9", "Kubernetes v0.40.0", "hello"])
def test_an_api_server_too_old_is_refused_with_its_version(tmp_path: Path, says: str) -> None:
    program(tmp_path / "path", "kube-apiserver", says)
    with pytest.raises(MissingPrerequisiteError, match=rf"'{says}'; Kubernetes 1\.33 or newer"):
        ensure_kubernetes_program(KubernetesProgram.API_SERVER)


def test_without_etcd_the_package_is_named() -> None:
    with pytest.raises(MissingPrerequisiteError, match="etcd-server"):
        ensure_binaries()


@pytest.mark.parametrize("says", ["go1.26.0", "go1.27.3", "go2.0"])
def test_a_new_enough_go_on_path_is_used(tmp_path: Path, says: str) -> None:
    own = program(tmp_path / "path", "go", says)

    assert own == ensure_go(silent).program


def test_a_go_too_old_is_passed_over_for_the_cached_one(tmp_path: Path) -> None:
    program(tmp_path / "path", "go", "go1.25.9")
    cached = program(tmp_path / "cache" / "go" / "1.26.6" / "go" / "bin", "go", "go1.26.6")
    found = ensure_go(silent)

    assert cached == found.program
    assert found.environment["GOPATH"] == str(tmp_path / "cache" / "go" / "path")


def cached_place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kubernetes" / pinned_version() / "linux-amd64"
