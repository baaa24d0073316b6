#!/usr/bin/env bash
# Makes .venv what requirements.lock says (every package with its hash), and the project editable in it.
# Does nothing where that was done already. PYTHON chooses the interpreter; PIP_* variables are pip's own.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
stamp=$venv/.numavm-stamp

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "hack/venv.sh: $python is $("$python" --version 2>&1); NumaVM needs Python 3.11 or newer (set PYTHON)" >&2
    exit 1
fi

content=$(cat requirements.lock pyproject.toml hack/venv.sh | sha256sum | cut -d' ' -f1)
[ "$(cat $stamp 2>/dev/null)" != "$content" ] || { $venv/bin/python -c '' 2>/dev/null && exit 0; }

if ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Creating $venv with $("$python" --version)"
    rm -rf $venv
    "$python" -m venv $venv
fi
echo "Installing the locked Python packages into $venv"
$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
# Its build tools are in the lock too: nothing is fetched here.
$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
# Compiled once by whoever owns the checkout: lab hosts and root import it, and should not have to write here.
$venv/bin/python -m compileall -q crds operator node-agent cli lab
echo "$content" > $stamp
