"""Making XML elements: text and attributes are always escaped, since lxml writes them."""

from __future__ import annotations

from lxml import etree

from numavm_agent.domain.model import CannotRender

Element = etree._Element  # noqa: SLF001 - the class has no public name


def element(tag: str, *children: Element | str | None, **attributes: str | int | None) -> Element:
    """Return an element; children and attributes that are None are left out.

    Attributes stand in the order given. A trailing underscore in their name is dropped (`type_`,
    `id_`).

    Raises:
        CannotRender: a text holds what XML 1.0 cannot say (control characters, lone surrogates).
    """
    made = etree.Element(tag)
    try:
        for name, value in attributes.items():
            if value is not None:
                made.set(name.rstrip("_"), str(value))
        for child in children:
            if isinstance(child, str):
                made.text = (made.text or "") + child
            elif child is not None:
                made.append(child)
    except ValueError as error:
        raise CannotRender(
            f"<{tag}> cannot hold {(*children, *attributes.values())!r}: {error}"
        ) from error
    return made
