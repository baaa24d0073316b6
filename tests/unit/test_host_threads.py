"""Affinities of threads, set for real: what the kernel then says is read from it."""

import os
import threading

from numavm_agent.host.threads import LinuxHostThreads
from numavm_api.cpuset import CpuSet


def test_a_thread_is_held_down_to_some_cpus_and_no_other_thread_is() -> None:
    here = os.sched_getaffinity(0)
    one = CpuSet.of(min(here))
    held, done = threading.Event(), threading.Event()
    worker = threading.Thread(target=lambda: (held.set(), done.wait()), daemon=True)
    worker.start()
    held.wait()
    assert worker.native_id is not None
    try:
        LinuxHostThreads().allow_cpus(worker.native_id, one)
        assert os.sched_getaffinity(worker.native_id) == set(one)
        assert os.sched_getaffinity(0) == here
    finally:
        done.set()
        worker.join()


def test_what_the_kernel_forbids_leaves_a_thread_as_it_was() -> None:
    here = os.sched_getaffinity(0)

    LinuxHostThreads().allow_cpus(threading.get_native_id(), CpuSet.of(max(here) + 4096))

    assert os.sched_getaffinity(0) == here


def test_a_thread_that_has_ended_is_nobody_to_hold() -> None:
    worker = threading.Thread(target=lambda: None)
    worker.start()
    worker.join()
    assert worker.native_id is not None

    LinuxHostThreads().allow_cpus(worker.native_id, CpuSet.of(0))
