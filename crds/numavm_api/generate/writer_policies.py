"""Who writes what: only the operator its fields, only a node's agent the rest, and only about its own node.

RBAC cannot tell fields or nodes apart. The policies on a status look at every caller, administrators included: whoever may
write any status could otherwise forge a claim.
"""

from __future__ import annotations

from typing import Final

from numavm_api.conditions import OPERATOR_CONDITIONS
from numavm_api.generate.policy import AGENT, CALLERS, OPERATOR, Policy, Validation
from numavm_api.numahost import LEASE_NAMESPACE, LEASE_PREFIX
from numavm_api.numavm import FINALIZER

OPERATOR_FIELDS: Final = (
    "observedGeneration",
    "printableStatus",
    "nodeName",
    "placement",
    "derivedCells",
    "refusals",
    "reservedNodeName",
)
OPERATOR_LEASE: Final = "numavm-operator"

_FORBIDDEN: Final = "Forbidden"
_WHO: Final = "request.userInfo.username"


def _quoted(words: tuple[str, ...] | list[str]) -> str:
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"


def _same(field: str) -> str:
    return f"object.?{field} == oldObject.?{field}"


def _same_set(left: str, right: str) -> str:
    return f"variables.{left}.all(c, c in variables.{right}) && variables.{right}.all(c, c in variables.{left})"


_SAME_OPERATOR_CONDITIONS: Final = _same_set("operatorConditions", "oldOperatorConditions")
_SAME_AGENT_CONDITIONS: Final = _same_set("agentConditions", "oldAgentConditions")

_STATUS_VARIABLES: Final = {
    **CALLERS,
    "node": "oldObject.?status.?nodeName.orValue('')",
    "status": "object.?status.orValue({})",
    "oldStatus": "oldObject.?status.orValue({})",
    "operatorTypes": _quoted(sorted(OPERATOR_CONDITIONS)),
    "operatorFields": _quoted(OPERATOR_FIELDS),
    "conditions": "variables.status.?conditions.orValue([])",
    "oldConditions": "variables.oldStatus.?conditions.orValue([])",
    "operatorConditions": "variables.conditions.filter(c, c.type in variables.operatorTypes)",
    "oldOperatorConditions": "variables.oldConditions.filter(c, c.type in variables.operatorTypes)",
    "agentConditions": "variables.conditions.filter(c, !(c.type in variables.operatorTypes))",
    "oldAgentConditions": "variables.oldConditions.filter(c, !(c.type in variables.operatorTypes))",
    # Keys whose values differ, in either direction.
    "changed": (
        "variables.status.map(k, k).filter(k, variables.status[?k] != variables.oldStatus[?k])"
        " + variables.oldStatus.map(k, k).filter(k, !(k in variables.status))"
    ),
    "operatorPart": "variables.operatorFields.filter(k, k in variables.changed)",
    "agentPart": "variables.changed.filter(k, k != 'conditions' && !(k in variables.operatorFields))",
}

VM_STATUS: Final = Policy(
    name="numavm-vm-status",
    description="Only the operator writes a NumaVM's claim, and only the agent of the claimed node reports on it.",
    resources=["numavms/status"],
    variables=_STATUS_VARIABLES,
    validations=[
        Validation(
            "variables.isOperator || variables.operatorPart.size() == 0",
            f"'status.' + variables.operatorPart.join(', status.') + ' is written only by {OPERATOR}, not by ' + {_WHO}",
            _FORBIDDEN,
        ),
        Validation(
            f"variables.isOperator || ({_SAME_OPERATOR_CONDITIONS})",
            f"'status.conditions of types ' + variables.operatorTypes.join(', ') + ' are written only by {OPERATOR}, not by ' + {_WHO}",
            _FORBIDDEN,
        ),
        Validation(
            "variables.isAgent || variables.agentPart.size() == 0",
            f"'status.' + variables.agentPart.join(', status.') + ' is written only by {AGENT} on the VM\\'s node, not by ' + {_WHO}",
            _FORBIDDEN,
        ),
        Validation(
            f"variables.isAgent || ({_SAME_AGENT_CONDITIONS})",
            f"'status.conditions other than ' + variables.operatorTypes.join(', ') + ' are written only by {AGENT} on the VM\\'s node, not by '"
            f" + {_WHO}",
            _FORBIDDEN,
        ),
        Validation(
            "!variables.isAgent || variables.changed.size() == 0"
            " || (variables.node != '' && variables.node == variables.boundNode)",
            "'status.nodeName is \\'' + variables.node + '\\', but your token is bound to node \\'' + variables.boundNode"
            " + '\\': an agent reports only on VMs of its own node'",
            _FORBIDDEN,
        ),
    ],
)

MAIN: Final = Policy(
    name="numavm-main",
    description="The operator changes nothing of a NumaVM but its finalizer; agents change nothing.",
    resources=["numavms"],
    conditions={
        "is-ours": f"{_WHO} in {_quoted([OPERATOR, AGENT])}",
    },
    variables={
        "others": f"object.metadata.?finalizers.orValue([]).filter(f, f != '{FINALIZER}')",
        "oldOthers": f"oldObject.?metadata.?finalizers.orValue([]).filter(f, f != '{FINALIZER}')",
    },
    validations=[
        Validation(
            f"{_WHO} == '{OPERATOR}' && request.operation == 'UPDATE'",
            f"{_WHO} + ' neither creates nor changes NumaVMs'",
            _FORBIDDEN,
        ),
        Validation(
            "oldObject == null || ("
            + " && ".join(
                _same(field)
                for field in (
                    "spec",
                    "metadata.?labels",
                    "metadata.?annotations",
                    "metadata.?ownerReferences",
                )
            )
            + " && variables.others == variables.oldOthers)",
            f"'{OPERATOR} may change the finalizer {FINALIZER}, and nothing else of a NumaVM'",
            _FORBIDDEN,
        ),
    ],
)

HOSTS: Final = Policy(
    name="numavm-hosts",
    description="An agent creates the NumaHost of its own node, without a spec, and never changes one.",
    resources=["numahosts"],
    conditions={
        "is-ours": f"{_WHO} in {_quoted([OPERATOR, AGENT])}",
    },
    variables=CALLERS,
    validations=[
        Validation(
            "variables.isAgent && object.metadata.name == variables.boundNode",
            f"'NumaHost ' + object.metadata.name + ' belongs to the agent of that node, not to ' + {_WHO}"
            " + ' bound to node \\'' + variables.boundNode + '\\''",
            _FORBIDDEN,
        ),
        Validation(
            f"oldObject == null ? !has(object.spec) : {_same('spec')}",
            "'spec is the administrator\\'s: an agent leaves it out at creation and does not change it'",
            _FORBIDDEN,
        ),
        Validation(
            f"{_same('metadata.?finalizers')} && {_same('metadata.?ownerReferences')}",
            "'metadata.finalizers and metadata.ownerReferences of a NumaHost are not an agent\\'s to set'",
            _FORBIDDEN,
        ),
    ],
)

HOST_STATUS: Final = Policy(
    name="numavm-host-status",
    description="Only the agent of a node says what its host has and holds.",
    resources=["numahosts/status"],
    variables=CALLERS,
    validations=[
        Validation(
            f"{_same('status')} || (variables.isAgent && object.metadata.name == variables.boundNode)",
            f"'status of NumaHost ' + object.metadata.name + ' is written only by {AGENT} with a token bound to that node, not by '"
            f" + {_WHO} + ' bound to node \\'' + variables.boundNode + '\\''",
            _FORBIDDEN,
        ),
    ],
)

LEASES: Final = Policy(
    name="numavm-leases",
    description="An agent renews the Lease of its own host, the operator that of its leadership.",
    group="coordination.k8s.io",
    resources=["leases"],
    namespace=LEASE_NAMESPACE,
    conditions={
        "is-ours": f"{_WHO} in {_quoted([OPERATOR, AGENT])}",
    },
    variables={
        **CALLERS,
        "own": (
            f"variables.isOperator ? '{OPERATOR_LEASE}'"
            f" : variables.boundNode != '' ? '{LEASE_PREFIX}' + variables.boundNode : ''"
        ),
    },
    validations=[
        Validation(
            "object.metadata.name == variables.own",
            f"'Lease ' + object.metadata.name + ' is not yours, ' + {_WHO} + ': yours is \\'' + variables.own + '\\''",
            _FORBIDDEN,
        ),
    ],
)
