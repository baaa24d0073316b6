"""`python -m numavm_api.generate [--check]`: write the manifests, or fail where they are not what would be written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from numavm_api.generate.files import generated_files

CRDS = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what has changed, or with `--check` list it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m numavm_api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument("--directory", type=Path, default=CRDS, help="where the manifests are")
    options = parser.parse_args(arguments)
    changed = [
        (path, text)
        for name, text in generated_files().items()
        if _content(path := options.directory / name) != text
    ]
    if options.check:
        for path, _ in changed:
            sys.stderr.write(f"{path} is out of date: run python -m numavm_api.generate\n")
        return 1 if changed else 0
    for path, text in changed:
        path.write_text(text)
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _content(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
