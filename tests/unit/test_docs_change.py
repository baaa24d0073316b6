"""Every example of the page "Change a running VM" is accepted, and has the effect that it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from numavm_agent.reconcile.changes import field_changes
from numavm_api.numavm import NumaVMSpec
from numavm_api.reading import read_spec
from numavm_cli.live import parse_moves, patch_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "change-a-running-vm.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
VM: dict[str, Any] = yaml.safe_load(BLOCKS[0])
CHANGES = BLOCKS[1:]


def accepted(spec: dict[str, Any]) -> NumaVMSpec:
    read = read_spec(spec)
    assert isinstance(read, NumaVMSpec), [str(one) for one in read]
    return read


def merged(base: Any, change: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386), as `kubectl patch --type=merge` does."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return {
        key: merged(base.get(key), change.get(key, base.get(key))) for key in {**base, **change}
    }


@pytest.mark.parametrize("block", CHANGES, ids=range(len(CHANGES)))
def test_an_example_changes_something_and_all_of_it_as_it_says(block: str) -> None:
    effect = block.partition("\n")[0].removeprefix("# ")
    change = yaml.safe_load(block)["spec"]
    before, after = accepted(VM["spec"]), accepted(merged(VM["spec"], change))
    effects = {one.path: str(one.effect) for one in field_changes(before, after)}
    assert effects
    assert set(effects.values()) == {effect}


def test_the_command_makes_the_same_change_as_the_manifest() -> None:
    (line,) = re.findall(r"^kubectl numavm rehome db (.*)$", PAGE.read_text(), re.MULTILINE)
    moves = parse_moves([word for word in line.split() if word != "--cell"])
    cells = {cell["id"]: cell for cell in VM["spec"]["domain"]["cpu"]["numa"]["cells"]}
    for operation in patch_of(VM, moves):
        number = int(re.findall(r"/cells/(\d+)/hostBinding", operation["path"])[0])
        cells[number] = {**cells[number], "hostBinding": operation["value"]}
    swap = next(block for block in CHANGES if "cells:" in block)
    assert list(cells.values()) == yaml.safe_load(swap)["spec"]["domain"]["cpu"]["numa"]["cells"]
