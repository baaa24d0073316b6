#!/usr/bin/env bash
# Writes requirements.lock: every dependency of every extra, pinned and hashed, for Python >= 3.11.
# It names no index, so that a mirror configured for pip serves just as well.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
UV_CUSTOM_COMPILE_COMMAND=hack/lock.sh "$uv" --system-certs pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-annotate --all-extras --group dev -o requirements.lock pyproject.toml
# The rivals of `make bench`, in an environment of their own (hack/bench-venv.sh).
UV_CUSTOM_COMPILE_COMMAND=hack/lock.sh "$uv" --system-certs pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-annotate -o tests/bench/requirements.lock tests/bench/requirements.in
