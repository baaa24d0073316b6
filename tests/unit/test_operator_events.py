"""Events: told once, counted after."""

import asyncio

from kubernetes.aio import client

from numavm_api.conditions import Reason
from numavm_operator.kube.client import KubeClient
from numavm_operator.kube.events import SERIES_SECONDS, EventRecorder, _Create, _Repeat
from numavm_operator.ports import EventType
from support.hands import Hands
from support.operator_worlds import WorldMaker


def recorded(*happenings: tuple[float, str]) -> list[_Create | _Repeat]:
    """Record an event with each note at its time; return what would be sent."""

    async def run() -> list[_Create | _Repeat]:
        clock = Hands()
        recorder = EventRecorder(KubeClient(client.Configuration()), clock, "one")
        vm = WorldMaker().make().vm
        for at, note in happenings:
            clock.at = at
            recorder.record(vm, EventType.WARNING, Reason.UNSCHEDULABLE, "Schedule", note)
        waiting = recorder._waiting
        return [waiting.get_nowait() for _ in range(waiting.qsize())]

    return asyncio.run(run())


def test_an_event_has_all_that_events_k8s_io_asks_for() -> None:
    (event,) = recorded((0, "0/2 hosts fit"))

    assert isinstance(event, _Create)
    assert event.body["note"] == "0/2 hosts fit"
    assert event.body["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert event.body["reportingController"] == "numavm.io/operator"
    assert event.body["reportingInstance"] == "one"
    assert event.body["regarding"]["uid"] == WorldMaker().make().vm.uid
    assert {"action", "reason", "type"} <= set(event.body)


def test_the_same_again_is_counted_and_written_now_and_then() -> None:
    sent = recorded((0, "x"), (1, "x"), (2, "x"), (SERIES_SECONDS, "x"), (SERIES_SECONDS + 1, "x"))

    first, series = sent
    assert isinstance(first, _Create)
    assert isinstance(series, _Repeat)
    assert series.name == first.body["metadata"]["name"]
    assert series.series["count"] == 4


def test_another_note_is_another_event() -> None:
    assert [type(one) for one in recorded((0, "x"), (0, "y"))] == [_Create, _Create]


def test_a_note_is_cut_to_what_the_api_takes() -> None:
    (event,) = recorded((0, "x" * 5000))

    assert isinstance(event, _Create)
    assert len(event.body["note"]) == 1024
