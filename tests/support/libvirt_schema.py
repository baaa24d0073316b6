"""libvirt's own schema for domains: what `virt-xml-validate` holds XML against."""

from functools import cache
from pathlib import Path

from lxml import etree

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def schema_errors(xml: str) -> list[str]:
    """Return what libvirt's schema finds wrong with a domain."""
    schema = _schema()
    if schema.validate(etree.fromstring(xml)):
        return []
    return [str(error) for error in schema.error_log]
