"""How many of a thing one VM may have, and the ids that follow from it."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

MAX_CELLS: Final = 16
MAX_VCPUS: Final = 512

CellId = Annotated[int, Field(ge=0, lt=MAX_CELLS)]
VcpuId = Annotated[int, Field(ge=0, lt=MAX_VCPUS)]
Count = Annotated[int, Field(ge=1, le=MAX_VCPUS)]
