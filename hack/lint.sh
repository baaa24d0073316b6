#!/usr/bin/env bash
# Everything that is checked without running anything. All checks run; one that fails fails the whole.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=()

check() {
    local name=$1
    shift
    echo "--- $name"
    "$@" || failed+=("$name")
}

check "ruff" $bin/ruff check --quiet
check "ruff format" $bin/ruff format --check --quiet
check "mypy" $bin/mypy
check "import contracts" $bin/lint-imports --no-logo
check "generated files" $bin/python -m numavm_api.generate --check
check "protocols" $bin/python hack/protobuf.py --check
check "dashboard" $bin/python hack/dashboard.py --check
check "chart" $bin/python hack/chart.py --check
check "spelling" $bin/codespell $(git ls-files '*.md' '*.py' '*.sh' '*.yaml' '*.toml' Makefile)

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
