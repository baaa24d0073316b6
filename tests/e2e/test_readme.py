"""README tried as a new user would: its own code blocks, read from it, run in their order.

Only what a test cannot do as it stands is said differently, in `OTHERWISE`, each with its reason.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from numavm_lab.controlplane.helm import ensure_helm

pytestmark = [pytest.mark.long, pytest.mark.lab]

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
_SECONDS = 1500
OTHERWISE = {
    "make test": "make --dry-run test",  # this very suite
    # It says what this machine lacks, and by its exit status that it lacks something.
    "kubectl numavm doctor": "kubectl numavm doctor || test $? = 1",
}
_PRINTED_HELM = re.compile(r"^\S+ install numavm .*? (--set .*)$", re.MULTILINE)
"""What `numavm cluster up --full` says helm must be told on this machine."""


def blocks(text: str) -> list[list[str]]:
    """Return the commands of each `sh` block, without the words for people behind them."""
    found = re.findall(r"(?ms)^```sh\n(.*?)^```$", text)
    return [
        [line.partition("  #")[0].strip() for line in block.splitlines() if line.strip()]
        for block in found
    ]


def plugin_commands(text: str) -> list[str]:
    """Return the commands of the table under `kubectl numavm` that look at things, with the demo's names."""
    rows = re.findall(r"(?m)^\| `(kubectl numavm [^`]+)` \|", text)
    looks = [row for row in rows if not row.startswith("kubectl numavm start")]
    return [
        row.replace("[HOST]", "host-a")
        .replace("VM", "two-cells")
        .replace("numavm doctor host-a", "numavm doctor")
        for row in looks
    ]


@dataclass
class Shell:
    """A new user's shell in the checkout."""

    state: Path
    helm_values: str = ""
    said: dict[str, str] = field(default_factory=dict)

    def type(self, command: str) -> str:
        """Run a command line; return what it says on both streams."""
        programs = self.state / "bin"
        path = f"{programs}:{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "NUMAVM_STATE": str(self.state / "s"), "PATH": path}
        kubeconfig = re.findall(r"export KUBECONFIG=(\S+)", "\n".join(self.said.values()))
        if kubeconfig:
            environment["KUBECONFIG"] = kubeconfig[-1]
        line = OTHERWISE.get(command, command)
        if line.startswith("helm install"):
            line = f"{line} {self.helm_values}"
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout[-4000:]}"
        self.said[command] = done.stdout
        printed = _PRINTED_HELM.search(done.stdout)
        if printed:
            self.helm_values = printed[1]
        return done.stdout


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    directory = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    (directory / "bin").mkdir()
    (directory / "bin" / "helm").symlink_to(ensure_helm(print))
    made = Shell(directory)
    try:
        yield made
    finally:
        for command in ("make down", "numavm lab down", "numavm cluster down"):
            made.type(command)
        shutil.rmtree(directory, ignore_errors=True)


def test_the_readme_has_the_commands_that_this_reads() -> None:
    assert [block[0].split()[:2] for block in blocks(README)] == [
        ["make", "demo"],
        ["numavm", "cluster"],
        ["numavm", "lab"],
    ]
    assert len(plugin_commands(README)) >= 6


@pytest.mark.timeout(3 * _SECONDS)
def test_its_commands_work_in_their_order(shell: Shell) -> None:
    demo, cluster, lab = blocks(README)
    for command in demo:
        shell.type(command)
    assert re.search(r"two-cells\s+Running\s+True\s", shell.said["make demo"])
    for command in plugin_commands(README):
        assert shell.type(command).strip(), command

    shell.type("make down")
    for command in cluster:
        shell.type(command)
    assert "STATUS: deployed" in shell.said[cluster[-1]]
    assert shlex.split(cluster[-1])[:2] == ["helm", "install"]

    for command in lab:
        shell.type(command)
    nodes = shell.said["numavm lab exec host-b -- numactl --hardware"]
    assert re.search(r"available: [2-9] nodes", nodes)
