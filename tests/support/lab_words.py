"""What a lab says of itself when a test has failed: agents' last words, and what each guest last said and does."""

from __future__ import annotations

import subprocess

from numavm_lab.demo.proof import SERIAL_LOGS
from numavm_lab.errors import LabError
from numavm_lab.hosts import LabHost
from numavm_lab.stack import AGENT_SERVICE, Stack

_LINES = 8
_ASK_SECONDS = 60
_GUESTS = f"""
for domain in $(virsh list --all --name); do
  echo "guest $domain: $(virsh domstate "$domain" --reason)"
  virsh domstats --vcpu --balloon "$domain" | grep -E 'vcpu.*(state|time)|balloon' | xargs
  virsh qemu-monitor-command "$domain" --hmp 'info registers -a' | grep -oE '^CPU#[0-9]+|[RE]IP=[0-9a-f]+|HLT=.' | xargs
done
for log in {SERIAL_LOGS}/*; do echo "$log:"; tail -n {_LINES} "$log"; done
"""


def lab_words(stack: Stack) -> str:
    """Return what every host says; of one that does not answer, that it does not."""
    return "\n".join(words_of_host(host) for host in stack.lab.hosts())


def words_of_host(host: LabHost) -> str:
    """Return the last words of a host's agent, and of each guest what it last said and where its vCPUs are."""
    log = host.service_log(AGENT_SERVICE)
    agent = log.read_text(errors="replace").splitlines()[-_LINES:] if log.exists() else []
    try:
        guests = host.exec(["sh", "-c", _GUESTS], check=False, timeout=_ASK_SECONDS)
    except (LabError, subprocess.TimeoutExpired) as error:
        said = f"does not answer: {error}"
    else:
        said = guests.stdout + guests.stderr
    return "\n".join([f"== {host.name}", *agent, said])
