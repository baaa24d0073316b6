"""The command `numavm-operator`."""

from __future__ import annotations

import asyncio
import sys

from numavm_operator.app import Operator
from numavm_operator.logs import configure_logging
from numavm_operator.settings import read_settings


def main() -> None:
    """Run the operator until it is told to stop."""
    settings = read_settings(sys.argv[1:])
    configure_logging(settings.log_format, settings.log_level)
    asyncio.run(Operator(settings).run())


if __name__ == "__main__":
    main()
