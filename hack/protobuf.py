"""Write the Python of the protocols that NumaVM speaks; with --check, only tell whether it is up to date."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = ROOT / "node-agent/numavm_agent/kubelet/podresources.proto"


def main() -> int:
    """Make `podresources_pb2.py` and its stub beside the protocol."""
    with tempfile.TemporaryDirectory() as made:
        words = [f"-I{PROTOCOL.parent}", f"--python_out={made}", f"--pyi_out={made}"]
        if protoc.main(["protoc", *words, str(PROTOCOL)]) != 0:
            return 1
        stale = []
        for file in sorted(Path(made).iterdir()):
            kept = PROTOCOL.parent / file.name
            if kept.exists() and kept.read_text() == file.read_text():
                continue
            stale.append(kept)
            if "--check" not in sys.argv:
                kept.write_text(file.read_text())
    if "--check" not in sys.argv:
        return 0
    for kept in stale:
        sys.stderr.write(f"{kept.relative_to(ROOT)} is out of date: run hack/protobuf.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
