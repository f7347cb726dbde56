"""A recorder of events, which makes tests of what an operation costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from azarr.telemetry import Event, Telemetry


class TelemetryRecorder:
    """Keeps the events of an engine, so that a test can say what an operation costs.

    ::

        with TelemetryRecorder(engine.telemetry) as recorder:
            await array[0]
        assert recorder.count("store.request.stop", operation="get") == 3
        assert recorder.count("codec.stop", operation="decode") == 2

    ``events`` are what to subscribe to, all by default. They stand in the order in which they happened; of what happened in several
    threads at once, in some order.
    """

    def __init__(self, telemetry: Telemetry, *, events: str | Iterable[str] = ()) -> None:
        self._events: list[Event] = []
        self._subscription = telemetry.subscribe(self._events.append, events=events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Record no more; what has been recorded stays."""
        self._subscription.close()

    def clear(self) -> None:
        """Forget what has been recorded so far."""
        self._events.clear()

    def events(self, name: str = "", /, **fields: Any) -> list[Event]:
        """The events whose name begins with ``name``, compared part by part, and whose fields have these values."""
        recorded = self._events.copy()
        return [
            event
            for event in recorded
            if (not name or f"{event.name}.".startswith(f"{name}."))
            and all(getattr(event, field) == value for field, value in fields.items())
        ]

    def count(self, name: str = "", /, **fields: Any) -> int:
        """How many such events there are."""
        return len(self.events(name, **fields))

    def names(self) -> list[str]:
        """The names of all events."""
        return [event.name for event in self._events.copy()]
