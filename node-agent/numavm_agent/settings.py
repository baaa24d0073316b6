"""The agent's settings: one frozen object, parsed once at start from arguments and environment, passed down."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class AgentSettings(BaseSettings):
    """NumaVM's node agent: runs the NumaVMs of one Kubernetes node by this host's libvirt.

    Each option is also read from the environment: `--node-name` from NUMAVM_AGENT_NODE_NAME, and so on.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="NUMAVM_AGENT_",
        cli_prog_name="numavm-agent",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Kubernetes node, and of its NumaHost."""
    kubeconfig: Path | None = None
    """Kubeconfig file; its `tokenFile` is followed. Left out: --server, or the pod's service account."""
    server: str | None = None
    """URL of the API server, where there is no kubeconfig; needs --token-file and --ca-file."""
    token_file: Path | None = None
    """File with the bearer token; read again whenever it changes."""
    ca_file: Path | None = None
    """File with the CA certificates that vouch for --server."""
    libvirt_uri: str = "qemu:///system"
    """libvirt's connection URI."""
    period_seconds: Annotated[float, Field(gt=0, le=10)] = 5.0
    """How often everything is looked at, if nothing wakes the agent earlier. The Lease is renewed as often."""
    parallel_starts: Annotated[int, Field(ge=1, le=16)] = 4
    """How many domains are started, settled or stopped at once."""
    rehome_mebibytes_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 2048.0
    """How much guest memory is moved per second, at most, where a running VM changes its host cells."""
    kvm_probe_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    """How long a guest may take to show that KVM works; usually a fraction of a second, on emulated hosts several."""
    run_directory: Path = Path("/run/numavm")
    """Where the agent keeps its lock: one agent per host."""
    guest_log_directory: Path = Path("/var/log/libvirt/qemu")
    """Where the guests' serial consoles are logged; virtlogd writes them."""
    sysroot: Path = Path("/")
    """Where the host's /sys and /proc are found, inside a container for example /host."""
    listen_address: str = "127.0.0.1"
    """Where probes and metrics are served."""
    listen_port: Annotated[int, Field(ge=-1, le=65535)] = -1
    """Port of probes and metrics; 0: any free one (logged), -1: none."""
    log_format: LogFormat = LogFormat.TEXT
    """How log lines look."""
    log_level: LogLevel = LogLevel.INFO
    """The least important line that is written."""

    @model_validator(mode="after")
    def _one_way_to_the_server(self) -> AgentSettings:
        if self.server is None:
            return self
        if self.kubeconfig is not None:
            raise ValueError("--server and --kubeconfig both name an API server: give one of them")
        if self.token_file is None or self.ca_file is None:
            raise ValueError("--server needs --token-file and --ca-file")
        return self
