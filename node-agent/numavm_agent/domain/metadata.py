"""What a domain remembers in `<metadata>`: whose it is, what it holds, what it was built from.

After a restart of the agent, or with the API server gone, this is the truth about a running domain.
Values that people choose are JSON texts in ASCII: whatever they hold, XML can carry them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree
from pydantic import ValidationError

from numavm_agent.domain.xml import Element
from numavm_api.errors import NumaVMError
from numavm_api.numavm import NumaVMSpec
from numavm_api.placement import Placement

METADATA_NAMESPACE: Final = "https://numavm.io/domain/1"
METADATA_PREFIX: Final = "numavm"
_ROOT: Final = "vm"


class UnreadableMetadata(NumaVMError):  # noqa: N818 - reads as a sentence after `raises`
    """A domain carries NumaVM's metadata, but not whole; the message says which part."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A change under way on a domain, recorded before it begins."""

    kind: str
    before: str
    after: str
    step: str


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """What a domain remembers."""

    uid: str
    namespace: str
    name: str
    generation: int
    """Generation of the spec it was built from."""
    restart_token: str | None
    placement: Placement
    """The claim it holds."""
    spec: NumaVMSpec | None
    """The spec it was built from; None where this version cannot read it any more."""
    operation: Operation | None = None
    target: Placement | None = None
    """While it is moved to another claim: that claim, held beside `placement`."""
    moved: bool = False
    """Its memory was moved while it ran: the kernel's policies may still name other host cells than the claim."""

    @property
    def held(self) -> Placement:
        """All that it holds: its claim, and beside it the one it is being moved to."""
        return self.target.replacing(self.placement) if self.target else self.placement


def metadata_element(record: DomainRecord) -> Element:
    """Return the element that `<metadata>` holds."""
    root = etree.Element(_tag(_ROOT), nsmap={METADATA_PREFIX: METADATA_NAMESPACE})
    for name, text in _fields(record).items():
        etree.SubElement(root, _tag(name)).text = text
    return root


def metadata_xml(record: DomainRecord) -> str:
    """Return the element as text, for virDomainSetMetadata.

    Without a namespace: libvirt adds the one it is given, and refuses a text that declares it already
    (libvirt 9.0: "failed to create a new XML namespace").
    """
    root = etree.Element(_ROOT)
    for name, text in _fields(record).items():
        etree.SubElement(root, name).text = text
    return etree.tostring(root, encoding="unicode")


def read_metadata(domain_xml: str) -> DomainRecord | None:
    """Return what a domain's XML says of itself; None: NumaVM did not start it.

    Raises:
        UnreadableMetadata: NumaVM's element is there, but a part is missing or broken.
    """
    try:
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        root = etree.fromstring(domain_xml.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableMetadata(f"no XML: {error}") from error
    ours = root.find(f"metadata/{_tag(_ROOT)}")
    if ours is None:
        return None
    texts = {
        etree.QName(child).localname: child.text or ""
        for child in ours
        if isinstance(child.tag, str)
    }
    return _record(texts)


def _fields(record: DomainRecord) -> dict[str, str]:
    fields = {
        "uid": record.uid,
        "namespace": record.namespace,
        "name": record.name,
        "generation": str(record.generation),
        "placement": _json(record.placement.to_api()),
        "spec": _json(record.spec.to_api() if record.spec else None),
    }
    if record.target is not None:
        fields["target"] = _json(record.target.to_api())
    if record.moved:
        fields["moved"] = _json(record.moved)
    if record.restart_token is not None:
        fields["restartToken"] = _json(record.restart_token)
    if record.operation is not None:
        operation = record.operation
        fields["operation"] = _json(
            {
                "kind": operation.kind,
                "from": operation.before,
                "to": operation.after,
                "step": operation.step,
            }
        )
    return fields


def _record(texts: dict[str, str]) -> DomainRecord:
    try:
        return DomainRecord(
            uid=texts["uid"],
            namespace=texts["namespace"],
            name=texts["name"],
            generation=int(texts["generation"]),
            restart_token=json.loads(texts["restartToken"]) if "restartToken" in texts else None,
            placement=Placement.model_validate(json.loads(texts["placement"])),
            spec=_spec(texts["spec"]),
            operation=_operation(texts.get("operation")),
            target=_target(texts.get("target")),
            moved=bool(json.loads(texts.get("moved", "false"))),
        )
    except KeyError as error:
        raise UnreadableMetadata(f"metadata of the domain has no {error}") from error
    except ValueError as error:  # of int, json and pydantic alike
        raise UnreadableMetadata(f"metadata of the domain: {error}") from error


def _spec(text: str) -> NumaVMSpec | None:
    document = json.loads(text)
    try:
        return NumaVMSpec.model_validate(document)
    except ValidationError:
        return None


def _target(text: str | None) -> Placement | None:
    return Placement.model_validate(json.loads(text)) if text is not None else None


def _operation(text: str | None) -> Operation | None:
    if text is None:
        return None
    document: dict[str, str] = json.loads(text)
    return Operation(
        kind=document["kind"],
        before=document["from"],
        after=document["to"],
        step=document["step"],
    )


def _json(value: Any) -> str:  # noqa: ANN401 - JSON is any value
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def _tag(name: str) -> str:
    return f"{{{METADATA_NAMESPACE}}}{name}"
