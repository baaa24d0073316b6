#!/usr/bin/env bash
# Runs the suites, in three stages:
#   unit and golden touch nothing outside themselves: on all cores, first, so that a plain mistake shows early;
#   integration waits more than it works: two processes, file by file, each with a control plane of its own;
#   e2e shares one control plane and the lab's hosts, which fill the machine: in one process, so that these start once.
# A stage without tests is a failure (pytest's exit code 5). Arguments are passed to both stages.
set -euo pipefail
cd "$(dirname "$0")/.."
selection=${SELECTION:-not long and not bench}

.venv/bin/pytest tests/unit tests/golden -m "$selection" --numprocesses auto "$@"
.venv/bin/pytest tests/integration -m "$selection" --numprocesses 2 --dist loadfile --durations 15 "$@"
.venv/bin/pytest tests/e2e -m "$selection" --durations 15 "$@"
