"""Events, and who hears of them."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import pickle
import threading
import tracemalloc
import weakref

import pytest

from azarr import Engine
from azarr.events import KINDS, NAMES
from azarr.telemetry import ChunkReadEvent, Event, ReadEvent, StoreRequestEvent, StreamEvent, Telemetry, error_type


@pytest.fixture
def telemetry():
    return Telemetry()


def emit_one_of_each(telemetry):
    """Every event there is, once; their names."""
    given = {"coords": (0,), "operation": "get", "key": "k", "attempt": 2}
    names = []
    for kind in KINDS.values():
        fields = {field.name: given[field.name] for field in dataclasses.fields(kind)[2:] if field.default is dataclasses.MISSING}
        for phase in kind.phases:
            event = kind(phase, 1, **fields)
            telemetry.emit(event)
            names.append(event.name)
    return names


def names_heard(telemetry, **options):
    heard = []
    with telemetry.subscribe(lambda event: heard.append(event.name), **options):
        emit_one_of_each(telemetry)
    return set(heard)


@pytest.mark.parametrize("kind", KINDS.values())
def test_events_are_frozen_slotted_and_documented(kind):
    assert kind.__doc__
    assert "__dict__" not in dir(kind)
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(kind):
        described = Event.__doc__ if field.name in {each.name for each in dataclasses.fields(Event)} else kind.__doc__
        assert f"``{field.name}``" in described


def test_names_are_those_of_the_subjects_and_phases():
    assert "chunk.read.stop" in NAMES
    assert "stream.chunk" in NAMES
    assert "cache.hit" in NAMES
    assert len(NAMES) == sum(len(kind.phases) for kind in KINDS.values())


def test_events_can_be_pickled_and_compared():
    event = ChunkReadEvent("stop", 3, coords=(1, 2), nbytes=4, seconds=0.5, path="a", store="MemoryStore")
    assert pickle.loads(pickle.dumps(event)) == event
    assert event != dataclasses.replace(event, span=4)


def test_all_events_are_heard_by_default(telemetry):
    assert names_heard(telemetry) == NAMES


def test_events_are_chosen_by_parts_of_their_names(telemetry):
    assert names_heard(telemetry, events="chunk") == {f"chunk.{what}.{phase}" for what in ("read", "write") for phase in ReadEvent.phases}
    assert names_heard(telemetry, events=["read", "store.request.stop"]) == {*(f"read.{p}" for p in ReadEvent.phases), "store.request.stop"}
    assert names_heard(telemetry, events="stream.chunk") == {"stream.chunk"}


@pytest.mark.parametrize("wrong", ["strea", "chunk.re", "chunk.read.begin", "", "Chunk", "chunk.read.stop.now"])
def test_events_that_do_not_exist_are_refused(telemetry, wrong):
    with pytest.raises(ValueError, match="there are no events"):
        telemetry.subscribe(print, events=wrong)
    assert not telemetry.active


def test_is_active_as_long_as_somebody_listens(telemetry):
    assert not telemetry.active
    first = telemetry.subscribe(print, events="cache")
    second = telemetry.subscribe(print, events="cache")
    assert telemetry.active
    first.close()
    assert telemetry.active
    second.close()
    assert not telemetry.active
    assert not telemetry.unsubscribe(second)


def test_knows_what_is_wanted(telemetry):
    assert not telemetry.wants("read.stop")
    with telemetry.subscribe(print, events=["read.stop", "chunk"]):
        assert telemetry.wants("read.stop")
        assert telemetry.wants("read")
        assert telemetry.wants("chunk.write.start")
        assert not telemetry.wants("read.start")
        assert not telemetry.wants("store.request")
    assert not telemetry.wants("read.stop")


def test_handlers_hear_in_the_order_of_their_subscriptions(telemetry):
    heard = []
    telemetry.subscribe(lambda _: heard.append(1))
    telemetry.subscribe(lambda _: heard.append(2))
    telemetry.emit(ReadEvent("start", 1))
    assert heard == [1, 2]


def test_a_span_tells_start_and_stop(telemetry):
    heard = []
    telemetry.subscribe(heard.append)
    span = telemetry.begin(StoreRequestEvent, path="a", store="S", operation="get", key="a/c/0")
    span.stop(nbytes=7)
    span.stop(nbytes=8)
    span.fail(OSError())
    start, stop = heard
    assert start == StoreRequestEvent("start", span.number, path="a", store="S", operation="get", key="a/c/0")
    assert stop.seconds > 0
    assert dataclasses.replace(stop, seconds=0.0) == dataclasses.replace(start, phase="stop", nbytes=7)
    assert telemetry.begin(ReadEvent).number != span.number


def test_a_span_tells_failure_by_the_type_of_the_error(telemetry):
    heard = []
    telemetry.subscribe(heard.append, events=("read.exception", "stream.exception"))
    telemetry.begin(ReadEvent).fail(KeyError("s3cr3t"))
    telemetry.begin(StreamEvent).fail(asyncio.CancelledError("s3cr3t"))
    failed, cancelled = heard
    assert (failed.error, failed.cancelled) == ("KeyError", False)
    assert (cancelled.error, cancelled.cancelled) == ("asyncio.exceptions.CancelledError", True)
    assert "s3cr3t" not in repr(heard)


def test_error_types_have_their_full_names():
    class OwnError(Exception):
        pass

    assert error_type(OwnError()) == f"{__name__}.test_error_types_have_their_full_names.<locals>.OwnError"
    assert error_type(ValueError()) == "ValueError"


def test_an_event_that_nobody_wants_is_not_made(telemetry):
    made = []

    class Counted(ReadEvent):
        def __init__(self, *args, **fields):
            made.append(args[0])
            super().__init__(*args, **fields)

    telemetry.subscribe(lambda _: None, events="read.stop")
    telemetry.begin(Counted).stop()
    assert made == ["stop"]


def test_nothing_is_allocated_when_nobody_listens(telemetry):
    def site():
        if telemetry.active:
            raise AssertionError

    site()
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(1000):
            site()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    here = [tracemalloc.Filter(True, __file__)]
    grown = [each for each in after.filter_traces(here).compare_to(before.filter_traces(here), "lineno") if each.size_diff > 1000]
    assert grown == []


@pytest.mark.parametrize("error", [ValueError("broken\nin two"), asyncio.CancelledError(), GeneratorExit(), StopIteration()])
def test_a_handler_that_fails_is_dropped_with_one_line(telemetry, error, caplog):
    def fail(_):
        raise error

    heard = []
    telemetry.subscribe(fail)
    telemetry.subscribe(heard.append)
    with caplog.at_level(logging.DEBUG, logger="azarr"):
        telemetry.emit(ReadEvent("start", 1))
        telemetry.emit(ReadEvent("stop", 1))
    assert len(heard) == 2
    (record,) = caplog.records
    assert record.name == "azarr"
    assert record.levelno == logging.ERROR
    assert "\n" not in record.getMessage()
    assert "read.start" in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_who_interrupts_the_process_is_not_held_up_by_a_handler(telemetry, interruption, caplog):
    def interrupted(_):
        raise interruption

    telemetry.subscribe(interrupted)
    with pytest.raises(interruption):
        telemetry.emit(ReadEvent("start", 1))
    assert telemetry.active
    assert caplog.records == []


def test_a_handler_that_fails_in_many_threads_is_reported_once(telemetry, caplog):
    together = threading.Barrier(8)

    def fail(_):
        together.wait(30)
        raise ValueError

    telemetry.subscribe(fail)
    threads = [threading.Thread(target=telemetry.emit, args=(ReadEvent("start", 1),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(caplog.records) == 1
    assert not telemetry.active


def test_an_error_of_a_handler_is_not_kept(telemetry):
    made = []

    class OwnError(Exception):
        def __init__(self):
            made.append(weakref.ref(self))

    def fail(_):
        raise OwnError

    telemetry.subscribe(fail)
    gc.disable()
    try:
        telemetry.emit(ReadEvent("start", 1))
        assert made[0]() is None
    finally:
        gc.enable()


def test_a_handler_may_unsubscribe_itself_and_subscribe_others(telemetry):
    heard = []

    def once(event):
        heard.append(("once", event.phase))
        subscription.close()
        telemetry.subscribe(lambda event: heard.append(("later", event.phase)))

    subscription = telemetry.subscribe(once)
    telemetry.emit(ReadEvent("start", 1))
    telemetry.emit(ReadEvent("stop", 1))
    assert heard == [("once", "start"), ("later", "stop")]


def test_subscribing_from_many_threads_loses_nobody(telemetry):
    together = threading.Barrier(8)
    heard = []

    def subscribe():
        together.wait(30)
        for _ in range(50):
            telemetry.subscribe(heard.append)

    threads = [threading.Thread(target=subscribe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    telemetry.emit(ReadEvent("start", 1))
    assert len(heard) == 400


async def test_each_engine_has_its_own_and_may_share_one():
    shared = Telemetry()
    async with Engine() as one, Engine() as another, Engine(telemetry=shared) as third, Engine(telemetry=shared) as fourth:
        assert one.telemetry is not another.telemetry
        assert third.telemetry is fourth.telemetry is shared
