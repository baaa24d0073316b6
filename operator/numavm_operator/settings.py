"""The operator's settings.

Parsed once at start from command line and environment, then passed down.

Nothing else in the operator reads the environment.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSuppress, SettingsConfigDict

from numavm_api.killpoints import KILL_POINT_VARIABLE
from numavm_api.numahost import LEASE_NAMESPACE
from numavm_operator.host_choice import HostChoice
from numavm_operator.placement import POLICIES, Patience, Policy

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """The NumaVM operator: places NumaVMs on NumaHosts and keeps their status.

    Each option is also read from the environment as NUMAVM_OPERATOR_<NAME>.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="NUMAVM_OPERATOR_",
        cli_prog_name="numavm-operator",
        cli_kebab_case=True,
        use_attribute_docstrings=True,
        extra="forbid",
    )

    kubeconfig: Annotated[
        Path | None,
        Field(
            validation_alias=AliasChoices("kubeconfig", "NUMAVM_OPERATOR_KUBECONFIG", "KUBECONFIG")
        ),
    ] = None
    """Path of a kubeconfig file; left out: the service account of the pod."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = LEASE_NAMESPACE
    """Namespace of all Leases."""
    lease_name: Annotated[str, Field(min_length=1, max_length=253)] = "numavm-operator"
    """Name of the Lease of the leading operator."""
    lease_seconds: Annotated[float, Field(ge=3, le=300)] = 15.0
    """How long a Lease that does not change still counts."""
    lease_renew_seconds: Annotated[float, Field(gt=0)] = 2.5
    """How often the leader renews it."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """How many NumaVMs are looked at side by side."""
    resync_seconds: Annotated[float, Field(ge=1)] = 300.0
    """How often everything is listed anew."""
    host_choice: HostChoice = HostChoice.PACK
    """Pack: what leaves the fleet least fragmented. Spread: the emptiest host and its emptiest cells, which leaves less
    room for large NumaVMs. Either comes after all rules and the distance between cells."""
    reservation_after_seconds: Annotated[float, Field(ge=0)] = Patience().before_seconds
    """How long a NumaVM finds no room before a host is kept for it."""
    reservation_seconds: Annotated[float, Field(ge=1)] = Patience().hold_seconds
    """How long that host is kept, and how long others have their chance after it was in vain."""
    log_format: LogFormat = "json"
    """json or console."""
    log_level: LogLevel = "info"
    """debug, info, warning or error."""
    listen_address: str = "127.0.0.1"
    """Where health and metrics are served."""
    listen_port: Annotated[int, Field(ge=-1, le=65535)] = 8080
    """Port of health and metrics; 0: any free one (logged), -1: none."""
    vm_series_limit: Annotated[int, Field(ge=0, le=100_000)] = 2000
    """How many NumaVMs get metrics of their own, the first by name; of all there are counts."""
    identity: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
    )
    """Name of this operator in the Lease; no two running operators may share one."""
    start_over: CliSuppress[CliImplicitFlag[bool]] = False
    """Set by the operator itself when it starts over because its Lease was not as it had written
    it: the API server may have been restored from a backup, so that it waits for hosts it does
    not know yet.
    """
    kill_point: CliSuppress[
        Annotated[
            str | None, Field(validation_alias=AliasChoices("kill_point", KILL_POINT_VARIABLE))
        ]
    ] = None
    """For tests: kills itself at a named point."""

    @property
    def policy(self) -> Policy:
        """Return how hosts are chosen."""
        return POLICIES[self.host_choice]

    @property
    def patience(self) -> Patience:
        """The time limits of the queue."""
        hold = self.reservation_seconds
        return Patience(self.reservation_after_seconds, hold, hold)

    @model_validator(mode="after")
    def _renews_in_time(self) -> Settings:
        if self.lease_renew_seconds * 3 > self.lease_seconds:
            raise ValueError(
                f"lease_renew_seconds is {self.lease_renew_seconds:g}, but at least three renewals "
                f"must fit into lease_seconds ({self.lease_seconds:g}): lower it to "
                f"{self.lease_seconds / 3:g} or less."
            )
        return self


def read_settings(arguments: list[str]) -> Settings:
    """Return the settings that the command line's arguments and the environment give.

    Raises:
        SystemExit: `--help`, or a setting that makes no sense; the reason is printed.
    """
    options: dict[str, Any] = {"_cli_parse_args": arguments}
    try:
        return Settings(**options)
    except ValidationError as error:
        for problem in error.errors():
            where = "_".join(str(part) for part in problem["loc"])
            sys.stderr.write(
                f"numavm-operator: {where}: {problem['msg']} (given: {problem['input']!r})\n"
            )
        raise SystemExit(2) from error
