"""Which nodes a VM may go to, in Kubernetes' own words: `spec.affinity` and `spec.tolerations` of a pod.

Names and meaning are those of core/v1 (k8s.io/component-helpers, scheduling/corev1), so that what people know of pods
holds for VMs. What is left out of pods' fields has no meaning here: a running VM is not evicted by a taint.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from numavm_api.base import SpecModel

NODE_NAME_FIELD: Final = "metadata.name"
"""The one field of a node that `matchFields` knows."""
MAX_SPREADS: Final = 4
MAX_SPREAD_LABELS: Final = 8
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class SelectorOperator(StrEnum):
    """What a label has to do with the values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class SpreadOver(StrEnum):
    """What VMs that spread do not share."""

    HOST = "Host"
    CELL = "Cell"


class LabelSelector(SpecModel):
    """NumaVMs of the VM's own namespace."""

    match_labels: dict[LabelKey, LabelValue] = Field(min_length=1, max_length=MAX_SPREAD_LABELS)
    """Labels that all of them have."""


class Spread(SpecModel):
    """Other VMs that this one keeps away from."""

    label_selector: LabelSelector
    """Which VMs, by the labels of their NumaVM; the VM itself does not count."""
    over: SpreadOver = SpreadOver.HOST
    """Host: not on a host that one of them holds anything on. Cell: not on a host cell that one of them holds anything on."""


class NodeSelectorRequirement(SpecModel):
    """One thing asked of a node's labels."""

    key: LabelKey
    """The label."""
    operator: SelectorOperator
    """In, NotIn (also without the label), Exists, DoesNotExist; Gt and Lt compare with one whole number."""
    values: list[LabelValue] = Field(default=[], max_length=16)
    """What it is compared with."""


class NodeFieldRequirement(SpecModel):
    """One thing asked of a node's name."""

    key: Annotated[str, Field(pattern=r"^metadata\.name$", max_length=64)]
    """`metadata.name`."""
    operator: Annotated[str, Field(pattern="^(In|NotIn)$", max_length=8)]
    """In or NotIn."""
    values: list[Annotated[str, Field(max_length=253)]] = Field(min_length=1, max_length=1)
    """One name."""


class NodeSelectorTerm(SpecModel):
    """Things asked of a node, all at once; an empty term suits no node."""

    match_expressions: list[NodeSelectorRequirement] = Field(default=[], max_length=16)
    """Of its labels."""
    match_fields: list[NodeFieldRequirement] = Field(default=[], max_length=4)
    """Of its name."""


class NodeSelector(SpecModel):
    """Terms one of which has to suit."""

    node_selector_terms: list[NodeSelectorTerm] = Field(min_length=1, max_length=8)
    """The terms."""


class PreferredSchedulingTerm(SpecModel):
    """A term that is better kept than not."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """How much it counts, 1 to 100."""
    preference: NodeSelectorTerm
    """The term."""


class NodeAffinity(SpecModel):
    """Which nodes the VM may, and would rather, go to."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Only nodes that one of the terms suits."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = Field(
        default=[], max_length=8
    )
    """Among hosts of equal distance the one with the largest sum of weights is taken."""


class Affinity(SpecModel):
    """Where the VM may go."""

    node_affinity: NodeAffinity | None = None
    """By the nodes' labels."""


class TolerationOperator(StrEnum):
    """How a toleration looks at a taint's value."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(SpecModel):
    """A taint that does not keep the VM away."""

    key: LabelKey | None = None
    """The taint's key; left out, with operator Exists: every key."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Equal: the value has to be the taint's. Exists: any value."""
    value: LabelValue | None = None
    """The taint's value, with Equal; left out: the empty one."""
    effect: TaintEffect | None = None
    """The taint's effect; left out: every effect."""
