"""What a kubelet changes of the kernel's settings is as before once it has gone."""

from pathlib import Path

import pytest

from numavm_lab.controlplane.kernel_settings import note_kernel_settings, put_kernel_settings_back


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Settings of a kernel."""
    for name in ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"):
        setting = tmp_path / "sys" / name
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text("0\n")
    for name in ("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"):
        setting = tmp_path / "sys" / name
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text("200\n")
    return tmp_path / "sys"


def test_changed_settings_are_put_back(root: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    note_kernel_settings(note, root=root)
    (root / "vm/overcommit_memory").write_text("1\n")
    # A second start sees what the first kubelet has set: that is not to be noted.
    note_kernel_settings(note, root=root)

    put_kernel_settings_back(note, root=root)

    assert (root / "vm/overcommit_memory").read_text().strip() == "0"
    assert (root / "kernel/keys/root_maxkeys").read_text().strip() == "200"


def test_without_a_note_nothing_is_touched(root: Path, tmp_path: Path) -> None:
    (root / "vm/overcommit_memory").write_text("1\n")

    put_kernel_settings_back(tmp_path / "none.json", root=root)

    assert (root / "vm/overcommit_memory").read_text() == "1\n"
