"""Nova's own placement code behind a pipe of JSON lines. Runs in the benches' environment, without NumaVM.

Time is CPU time of the decision, claim included; no RPC, database or API time is counted for it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from nova import objects
from nova_fleet import Nova
from nova_scheduler import Scheduler


def main() -> None:
    """Answer one line with one line until the pipe ends."""
    objects.register_all()
    placer: Nova | Scheduler | None = None
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        began = time.process_time()
        match message["do"]:
            case "begin" if message["strategy"] == "scheduler":
                placer = Scheduler(message["hosts"])
            case "begin":
                placer = Nova(message["hosts"], message["strategy"])
            case "place" if placer is not None:
                answer = placer.place(message)
            case "leave" if placer is not None:
                placer.leave(message["uid"])
        answer["seconds"] = time.process_time() - began
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
