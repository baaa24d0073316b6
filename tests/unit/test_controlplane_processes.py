"""Detached processes and their records; the processes are real."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from numavm_lab.errors import ProcessFailedError
from numavm_lab.state import (
    OWNER_VARIABLE,
    ProcessTable,
    cache_directory,
    give_to_invoking_user,
    state_directory,
    write_private,
)
from support.wait import wait_for

SLEEP = ["/bin/sleep", "600"]


def wait_for_strays(table: ProcessTable, count: int) -> None:
    """Wait until so many processes are found: the kernel shows an environment some moments after exec."""
    wait_for(
        lambda: len(table.strays()),
        until=lambda found: found == count,
        describe=f"processes by their environment: {count}",
    )


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    made = ProcessTable(tmp_path)
    yield made
    made.stop_all(grace_seconds=0)


def test_a_spawned_process_outlives_the_object_and_is_found_again(table: ProcessTable) -> None:
    record = table.spawn("sleeper", SLEEP)
    again = ProcessTable(table.directory)

    assert record == again.get("sleeper")
    assert again.is_alive("sleeper")
    assert os.getsid(record.pid) == record.pid


def test_spawning_a_name_that_runs_starts_nothing(table: ProcessTable) -> None:
    assert table.spawn("sleeper", SLEEP) == table.spawn("sleeper", SLEEP)
    wait_for_strays(table, 1)


def test_a_reused_pid_is_not_the_process(table: ProcessTable) -> None:
    record = table.spawn("sleeper", SLEEP)
    earlier = dataclasses.replace(record, start_ticks=record.start_ticks - 1)
    other_boot = dataclasses.replace(record, boot_id="another")

    assert record.is_alive()
    assert not earlier.is_alive()
    assert not other_boot.is_alive()


def test_a_stale_record_ends_nobody_else(table: ProcessTable) -> None:
    with subprocess.Popen(SLEEP) as bystander:
        try:
            stale = {"name": "old", "pid": bystander.pid, "start_ticks": 1, "boot_id": "another"}
            record = table.directory / "processes" / "old.json"
            record.parent.mkdir()
            record.write_text(json.dumps(stale))
            table.signal("old", signal.SIGKILL)
            table.stop("old")

            assert bystander.poll() is None
            assert table.get("old") is None
        finally:
            bystander.kill()


def test_a_zombie_is_not_alive(table: ProcessTable) -> None:
    record = table.spawn("short", ["/bin/true"])
    wait_for(
        lambda: psutil.Process(record.pid).status(),
        until=lambda status: status == psutil.STATUS_ZOMBIE,
        describe="it ended and waits for its parent",
    )

    assert not table.is_alive("short")


def test_a_process_whose_first_thread_has_ended_before_another_is_alive(
    table: ProcessTable,
) -> None:
    """Its files and ports stay open until the last thread is gone, though the kernel calls it a zombie."""
    script = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
    )
    script += "ctypes.CDLL(None).syscall(60, 0)"  # exit of this thread alone
    record = table.spawn("headless", [sys.executable, "-c", script])
    wait_for(
        lambda: psutil.Process(record.pid).status(),
        until=lambda status: status == psutil.STATUS_ZOMBIE,
        describe="its first thread ended",
    )

    assert table.is_alive("headless")
    table.stop("headless", grace_seconds=0.2)
    assert not record.is_alive()


def test_stop_ends_descendants_and_what_ignores_sigterm(table: ProcessTable) -> None:
    script = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    script += "child = subprocess.Popen(['/bin/sleep', '600']); print('ready', flush=True); "
    script += "child.wait()"
    table.spawn("stubborn", [sys.executable, "-c", script])
    wait_for(lambda: table.tail("stubborn"), until=lambda log: "ready" in log, describe="it began")
    wait_for_strays(table, 2)
    table.stop("stubborn", grace_seconds=0.2)

    assert table.strays() == []
    assert table.records() == []


def test_a_process_without_a_record_is_a_stray_and_is_ended(table: ProcessTable) -> None:
    table.spawn("lost", SLEEP)
    (table.directory / "processes" / "lost.json").unlink()

    wait_for_strays(table, 1)
    table.stop_all(grace_seconds=0.2)
    assert table.strays() == []


def test_a_table_does_not_see_processes_of_another_directory(
    table: ProcessTable, tmp_path: Path
) -> None:
    inner = ProcessTable(tmp_path / "inner")
    inner.spawn("sleeper", SLEEP)
    beside = ProcessTable(tmp_path.with_name(f"{tmp_path.name}-beside"))

    wait_for_strays(table, 1)
    assert beside.strays() == []


def test_output_and_environment_go_where_they_should(table: ProcessTable) -> None:
    table.spawn("printer", ["/usr/bin/env"], environment={"NUMAVM_TEST": "given"})
    wait_for(
        lambda: table.tail("printer", lines=1000),
        until=lambda log: "NUMAVM_TEST=given" in log,
        describe="the environment in the log",
    )

    assert f"{OWNER_VARIABLE}={table.directory}" in table.tail("printer", lines=1000)
    assert table.log_path("printer").stat().st_mode & 0o777 == 0o600


def test_a_program_that_cannot_be_executed_is_named(table: ProcessTable) -> None:
    with pytest.raises(ProcessFailedError, match="ghost: cannot execute /no/such/program"):
        table.spawn("ghost", ["/no/such/program"])


def test_private_files_are_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "first")
    write_private(path, "second")

    assert path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("variables", "cache", "state"),
    [
        (
            {"HOME": "/home/u"},
            "/home/u/.cache/numavm",
            "/home/u/.local/state/numavm",
        ),
        (
            {"HOME": "/home/u", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"},
            "/c/numavm",
            "/s/numavm",
        ),
        (
            {"XDG_CACHE_HOME": "/c", "NUMAVM_CACHE": "/own", "NUMAVM_STATE": "/now"},
            "/own",
            "/now",
        ),
    ],
)
def test_directories_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cache: str, state: str
) -> None:
    for name in ("NUMAVM_CACHE", "NUMAVM_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert (Path(cache), Path(state)) == (cache_directory(), state_directory())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_user_behind_sudo_gets_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "12346")
    path = tmp_path / "kubeconfig"
    write_private(path, "secret")
    give_to_invoking_user(path)

    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
