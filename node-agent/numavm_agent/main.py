"""`numavm-agent`: reads its settings, then runs the loop until a signal comes. Guests go on."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from numavm_agent.settings import AgentSettings


def main() -> None:
    """Run the agent; SIGTERM and SIGINT end it, and nothing else."""
    try:
        settings = AgentSettings(_cli_parse_args=True)
    except ValidationError as error:
        sys.exit(f"numavm-agent: {error}")

    # Imports cost seconds on a slow host: `--help` and a wrong option need none of these.
    from numavm_agent.wiring import run  # noqa: PLC0415

    run(settings)


if __name__ == "__main__":
    main()
