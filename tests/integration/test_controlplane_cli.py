"""`numavm cluster` as a person types it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from numavm_lab.controlplane.manifests import kubectl_program
from numavm_lab.state import processes_owned_by

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "state"


@pytest.fixture(scope="module")
def numavm(state: Path) -> Iterator[Run]:
    program = Path(sys.prefix) / "bin" / "numavm"

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program, *arguments],
            env={**os.environ, "NUMAVM_STATE": str(state)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    yield run
    run("cluster", "down")


def test_the_control_plane_goes_up_and_down_by_command(
    numavm: Run, state: Path, tmp_path: Path
) -> None:
    before = numavm("cluster", "status", "-o", "json")
    assert before.returncode == 1
    assert json.loads(before.stdout)["ready"] is False

    first, second = numavm("cluster", "up"), numavm("cluster", "up")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout

    seen = json.loads(numavm("cluster", "status", "-o", "json").stdout)
    assert seen["ready"] is True
    assert {"etcd", "kube-apiserver"} == {part["name"] for part in seen["components"]}

    kubeconfig = first.stdout.strip().removeprefix("export KUBECONFIG=")
    command = [kubectl_program(), "--kubeconfig", kubeconfig, "get", "--raw", "/readyz"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ok"
    assert numavm("cluster", "kubeconfig").stdout == Path(kubeconfig).read_text()
    assert "https://10.0.2.2:" in numavm("cluster", "kubeconfig", "--lab-host").stdout

    token = tmp_path / "token"
    made = numavm("cluster", "token", "host-a", "--output", str(token))
    assert made.returncode == 0, made.stderr
    assert token.stat().st_mode & 0o777 == 0o600

    first, second = numavm("cluster", "down"), numavm("cluster", "down")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert list(processes_owned_by(state)) == []
    assert [path for path in state.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cluster", "kubeconfig"), "no control plane in"),
        (("cluster", "token", "host-a"), "no control plane in"),
    ],
)
def test_an_expected_error_is_one_line_and_no_traceback(
    numavm: Run, arguments: tuple[str, ...], says: str
) -> None:
    done = numavm(*arguments)

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {says}")
    assert len(done.stderr.splitlines()) == 1


def test_version_is_the_distributions(numavm: Run) -> None:
    assert numavm("--version").stdout.startswith("numavm 0.")
