from __future__ import annotations

import pytest

from azarr.telemetry import ReadEvent, StoreRequestEvent, Telemetry
from azarr.testing import TelemetryRecorder


@pytest.fixture
def telemetry():
    return Telemetry()


def test_keeps_events_and_finds_them(telemetry):
    telemetry.emit(ReadEvent("start", 1))
    with TelemetryRecorder(telemetry) as recorder:
        telemetry.emit(ReadEvent("start", 2))
        for operation in ("get", "get", "set"):
            telemetry.begin(StoreRequestEvent, operation=operation, key="k").stop()
    telemetry.emit(ReadEvent("stop", 2))
    assert recorder.names() == ["read.start", *("store.request.start", "store.request.stop") * 3]
    assert recorder.count() == 7
    assert recorder.count("store") == recorder.count("store.request") == 6
    assert recorder.count("store.request.stop", operation="get") == 2
    assert recorder.count("store.req") == 0
    assert [event.operation for event in recorder.events("store.request.stop")] == ["get", "get", "set"]
    with pytest.raises(AttributeError):
        recorder.count("store", coords=(0,))
    recorder.clear()
    assert recorder.names() == []


def test_may_listen_to_some_events_only(telemetry):
    recorder = TelemetryRecorder(telemetry, events="read.stop")
    telemetry.begin(ReadEvent).stop()
    recorder.close()
    telemetry.begin(ReadEvent).stop()
    assert recorder.names() == ["read.stop"]
    assert not telemetry.active
