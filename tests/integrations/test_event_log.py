from __future__ import annotations

import logging

import pytest

from azarr.integrations.event_log import log_events
from azarr.telemetry import ChunkReadEvent, ReadEvent, StoreRequestEvent, Telemetry


@pytest.fixture
def telemetry():
    return Telemetry()


def test_operations_are_lines(telemetry, caplog):
    with caplog.at_level(logging.DEBUG, logger="azarr"), log_events(telemetry):
        telemetry.emit(ReadEvent("start", 7, path="t2m", store="LocalStore"))
        telemetry.emit(ChunkReadEvent("stop", 8, coords=(0, 1)))
        telemetry.emit(ReadEvent("stop", 7, path="t2m", store="LocalStore", seconds=0.25, nbytes=1024))
    telemetry.emit(ReadEvent("start", 9))
    assert [record.getMessage() for record in caplog.records] == [
        "read.start span=7 path=t2m store=LocalStore",
        "read.stop span=7 seconds=0.250000 path=t2m store=LocalStore nbytes=1024",
    ]
    assert {(record.levelno, record.name) for record in caplog.records} == {(logging.DEBUG, "azarr")}
    assert caplog.records[0].event == ReadEvent("start", 7, path="t2m", store="LocalStore")


def test_failures_have_a_level_of_their_own_and_cancellations_are_none(telemetry, caplog):
    own = logging.getLogger("own")
    with caplog.at_level(logging.INFO, logger="own"), log_events(telemetry, own, level=logging.INFO, failures=logging.ERROR, events="read"):
        telemetry.emit(ReadEvent("exception", 1, error="azarr.errors.CodecError"))
        telemetry.emit(ReadEvent("exception", 2, error="asyncio.exceptions.CancelledError"))
    assert [(record.name, record.levelno) for record in caplog.records] == [("own", logging.ERROR), ("own", logging.INFO)]


def test_a_level_that_is_off_costs_no_line(telemetry, caplog):
    with caplog.at_level(logging.WARNING, logger="azarr"), log_events(telemetry):
        telemetry.emit(ReadEvent("start", 1))
    assert caplog.records == []


def test_what_comes_from_outside_cannot_break_a_line(telemetry, caplog):
    with caplog.at_level(logging.DEBUG, logger="azarr"), log_events(telemetry, events=["store", "chunk"]):
        telemetry.emit(StoreRequestEvent("start", 1, operation="get", key="a b\nread.stop"))
        telemetry.emit(ChunkReadEvent("start", 2, coords=(3, 4), path=""))
    assert [record.getMessage() for record in caplog.records] == [
        "store.request.start span=1 operation=get key='a b\\nread.stop'",
        "chunk.read.start span=2 path='' coords=3,4",
    ]
