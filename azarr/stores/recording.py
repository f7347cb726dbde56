"""A store around a store that keeps a list of what it has been asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from azarr.stores.base import Request
from azarr.stores.observed import ObservedStore
from azarr.stores.wrapping import Wrapping
from azarr.telemetry import StoreRequestEvent, Telemetry


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that a store was asked for: ``operation`` is the name of the method, ``key`` may be a prefix.

    ``outcome`` is ``"done"``, ``"missing"`` where there was nothing at the key, ``"under way"``, or the type of the error. ``nbytes``
    bytes were received or sent, in ``seconds``.
    """

    operation: str
    key: str
    byte_range: Request = None
    nbytes: int = 0
    outcome: str = "under way"
    seconds: float = 0.0


class RecordingStore(ObservedStore):
    """``store``, but ``requests`` has the last ``limit`` requests that it was asked for, in the order in which they began.

    It can do what ``store`` can. Each of several values that are asked for together is a request; changing a value in place is a ``get``
    and a ``set``. A pickled copy has no requests.
    """

    def __init__(self, store: Any, *, limit: int = 10_000) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        telemetry = Telemetry()
        telemetry.subscribe(self._record, events=StoreRequestEvent.subject)
        super().__init__(store, telemetry)
        self._limit = limit
        self._requests: OrderedDict[int, RecordedRequest] = OrderedDict()
        self._mutex = threading.Lock()

    __repr__ = Wrapping.__repr__
    __reduce__ = Wrapping.__reduce__

    def _options(self) -> dict[str, Any]:
        return {"limit": self._limit}

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests so far, the earliest first."""
        with self._mutex:
            return tuple(self._requests.values())

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._mutex:
            self._requests.clear()

    def _record(self, event: StoreRequestEvent) -> None:
        with self._mutex:
            if event.phase == "start":
                self._requests[event.span] = RecordedRequest(event.operation, event.key, event.byte_range, event.nbytes)
                if len(self._requests) > self._limit:
                    self._requests.popitem(last=False)
            elif (begun := self._requests.get(event.span)) is not None:
                outcome = event.error or ("missing" if event.missing else "done")
                self._requests[event.span] = replace(begun, nbytes=event.nbytes, outcome=outcome, seconds=event.seconds)
