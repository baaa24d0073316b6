#!/usr/bin/env bash
# Runs the suites, in two stages:
#   unit and golden touch nothing outside themselves: on all cores, first, so that a plain mistake shows early;
#   integration and e2e share one control plane and the lab's hosts: in one process, so that these start once.
# A stage without tests is a failure (pytest's exit code 5). Arguments are passed to both stages.
set -euo pipefail
cd "$(dirname "$0")/.."
selection=${SELECTION:-not long and not bench}

.venv/bin/pytest tests/unit tests/golden -m "$selection" --numprocesses auto "$@"
.venv/bin/pytest tests/integration tests/e2e -m "$selection" --durations 15 "$@"
