#!/usr/bin/env bash
# Builds what the suites run and the cache lacks (ten minutes, once), then runs them in three stages:
#   unit and golden touch nothing outside themselves: on all cores, first, so that a plain mistake shows early; the sweeps
#     before the others, for each is one long test, and begun last they would keep them waiting;
#   integration waits a third of its time: three processes, file by file, each with a control plane of its own;
#   e2e shares one control plane and the lab's hosts, which fill the machine: in one process, so that these start once.
# A stage without tests is a failure (pytest's exit code 5). Arguments are passed to each stage.
set -euo pipefail
cd "$(dirname "$0")/.."
selection=${SELECTION:-not long and not bench}

.venv/bin/python -m numavm_lab.prepare

.venv/bin/pytest tests/golden/*_sweep.py tests/golden tests/unit -m "$selection" --numprocesses auto --dist worksteal "$@"
.venv/bin/pytest tests/integration -m "$selection" --numprocesses 3 --dist loadfile --durations 15 "$@"
.venv/bin/pytest tests/e2e -m "$selection" --durations 15 "$@"
