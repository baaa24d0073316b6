"""Lab hosts: real Linux hosts with several NUMA nodes, as virtual machines on this computer.

    lab = Lab(default_run_directory())
    (host,) = lab.up(load_hosts(Path("deploy/lab/demo.yaml"))[:1])
    host.exec(["numactl", "--hardware"]).stdout

From inside a host this machine's loopback interface is ``10.0.2.2``.
"""

from numavm_lab.hosts.host import HostState, LabHost
from numavm_lab.hosts.lab import DEFAULT_LAB, Lab, default_run_directory, demo_hosts, prepare
from numavm_lab.hosts.model import HostSpec, LabCell, load_hosts, parse_hosts

__all__ = [
    "DEFAULT_LAB",
    "HostSpec",
    "HostState",
    "Lab",
    "LabCell",
    "LabHost",
    "default_run_directory",
    "demo_hosts",
    "load_hosts",
    "parse_hosts",
    "prepare",
]
