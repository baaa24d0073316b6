"""The shape of a ValidatingAdmissionPolicy with its binding.

Every policy has failurePolicy Fail: what cannot be judged is refused. Deleting a binding is the administrator's way past
its policy in an emergency; applying `crds/policies.yaml` again puts it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from numavm_api.base import GROUP

Manifest = dict[str, Any]

OPERATOR: Final = "system:serviceaccount:numavm-system:numavm-operator"
AGENT: Final = "system:serviceaccount:numavm-system:numavm-agent"

CALLERS: Final[Mapping[str, str]] = {
    "isOperator": f"request.userInfo.username == '{OPERATOR}'",
    "isAgent": f"request.userInfo.username == '{AGENT}'",
    # Set by the API server for a token that is bound to a Node, or to a Pod on one (KEP-4193); nobody can ask for it.
    "boundNode": (
        "'authentication.kubernetes.io/node-name' in request.userInfo.?extra.orValue({})"
        " ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''"
    ),
}
"""Variables that say who asks."""


class Action(StrEnum):
    """What happens where a validation fails."""

    DENY = "Deny"
    WARN = "Warn"


@dataclass(frozen=True, slots=True)
class Validation:
    """An expression that must hold, and an expression that gives the text where it does not."""

    expression: str
    message: str
    reason: str | None = None
    """`Forbidden` where the caller is the fault, not the object."""

    def to_api(self) -> Manifest:
        """Return the JSON form."""
        entry = {"expression": self.expression, "messageExpression": self.message}
        return {**entry, "reason": self.reason} if self.reason else entry


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy and its binding, of one name."""

    name: str
    description: str
    resources: Sequence[str]
    validations: Sequence[Validation]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Names to expressions; one may use those before it."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Names to expressions that must all hold for the policy to look at a request."""
    group: str = GROUP
    namespace: str | None = None
    """The one namespace it looks at; None: all."""
    action: Action = Action.DENY

    def to_api(self) -> tuple[Manifest, Manifest]:
        """Return the policy and its binding."""
        return self._policy(), self._binding()

    def _policy(self) -> Manifest:
        match: Manifest = {
            "resourceRules": [
                {
                    "apiGroups": [self.group],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": list(self.resources),
                }
            ]
        }
        if self.namespace:
            label = {"kubernetes.io/metadata.name": self.namespace}
            match["namespaceSelector"] = {"matchLabels": label}
        spec: Manifest = {"failurePolicy": "Fail", "matchConstraints": match}
        if self.conditions:
            spec["matchConditions"] = _named(self.conditions)
        if self.variables:
            spec["variables"] = _named(self.variables)
        spec["validations"] = [validation.to_api() for validation in self.validations]
        return self._manifest("ValidatingAdmissionPolicy", spec)

    def _binding(self) -> Manifest:
        spec = {"policyName": self.name, "validationActions": [self.action.value]}
        return self._manifest("ValidatingAdmissionPolicyBinding", spec)

    def _manifest(self, kind: str, spec: Manifest) -> Manifest:
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {
                "name": self.name,
                "labels": {"app.kubernetes.io/part-of": "numavm"},
                "annotations": {"kubernetes.io/description": self.description},
            },
            "spec": spec,
        }


def _named(expressions: Mapping[str, str]) -> list[Manifest]:
    return [{"name": name, "expression": text} for name, text in expressions.items()]
