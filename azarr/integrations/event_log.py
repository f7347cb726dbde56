"""Events as lines in a log of the standard library, and so for structlog, which takes those over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import MISSING, fields

from azarr.telemetry import Event, Subscription, Telemetry

OPERATIONS = ("read", "write", "stream.start", "stream.stop", "stream.exception", "store.retry")
"""What is worth a line without having been asked for: an operation rather than a chunk."""


def log_events(
    telemetry: Telemetry,
    logger: logging.Logger | None = None,
    *,
    level: int = logging.DEBUG,
    failures: int = logging.WARNING,
    events: str | Iterable[str] = OPERATIONS,
) -> Subscription:
    """Write a line to ``logger`` for each of ``events``, until the subscription is closed.

    Args:
        telemetry: Whose events, such as ``engine.telemetry``.
        logger: Where to; the logger ``azarr`` by default.
        level: The level of a line; that of what was cancelled, too.
        failures: The level of what has failed.
        events: Which events, as ``telemetry.subscribe`` takes them; by default reads, writes, streams and retries as a whole.

    A line has the name of the event and its fields as ``field=value``; the record has the event as ``record.event``.

    """
    target = logger if logger is not None else logging.getLogger("azarr")

    def write(event: Event) -> None:
        severity = level if event.error is None or event.cancelled else failures
        if target.isEnabledFor(severity):
            target.log(severity, "%s", Line(event), extra={"event": event})

    return telemetry.subscribe(write, events=events)


class Line:
    """An event as the text of a line, made when it is written."""

    __slots__ = ("_event",)

    def __init__(self, event: Event) -> None:
        self._event = event

    def __str__(self) -> str:
        event = self._event
        values = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "phase"}
        shown = {field.name for field in fields(event) if field.default is MISSING or values.get(field.name) != field.default}
        return " ".join([event.name, *(f"{name}={text(value)}" for name, value in values.items() if name in shown)])


def text(value: object) -> str:
    """A field's value without spaces or line breaks of its own."""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) and value.isprintable() and " " not in value and value else repr(value)
