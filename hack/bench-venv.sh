#!/usr/bin/env bash
# Makes .venv-bench, where the rivals of `make bench` live: Nova and OR-tools, with all that they need. They share nothing
# with NumaVM's own environment. Does nothing where that was done already. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-bench
lock=tests/bench/requirements.lock
stamp=$venv/.numavm-stamp

content=$(sha256sum <$lock)
[ "$(cat $stamp 2>/dev/null)" != "$content" ] || exit 0

echo "Installing the locked rivals into $venv"
rm -rf $venv
"${PYTHON:-python3}" -m venv $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $lock
echo "$content" >$stamp
