"""How many requests a second: as many as the server takes, which shows when it asks to slow down.

The rate follows a cubic curve (CUBIC, RFC 9438): after being throttled it falls to a part of what got through, is soon back near the
rate at which that happened, stays there for a while, and then tries for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BACK = 0.85
"""What of the rate is left after being throttled."""

STEEPNESS = 0.4
"""How fast the rate grows: requests a second, by the third power of seconds."""

TOLERATED, REMEMBERED = 0.05, 200
"""What part of the latest answers, so many, may ask to slow down before that is taken for a limit: busy servers do so now and then."""

BUCKET = 0.5
"""Seconds over which successes are counted at least before they make a rate."""

UNLIMITED = 20_000.0
"""A rate that no client of one process reaches: from here on nothing is held back any more."""

SLOWEST, FIRST = 0.5, 10.0
"""Requests a second that are always allowed, and those to begin with where the server throttles before anything got through; they then
double every second."""


class Pace:
    """Holds requests back: ``fixed`` requests a second at most, where that is given, and fewer where the server throttles.

    ``clock`` is that of the loop: seconds.
    """

    __slots__ = (
        "_answers",
        "_begun",
        "_clock",
        "_cut_at",
        "_fixed",
        "_measured",
        "_next",
        "_peak",
        "_recovery",
        "_succeeded",
        "_throttled",
        "_turn",
        "limited",
    )

    def __init__(self, clock: Callable[[], float], fixed: float | None = None) -> None:
        self._clock = clock
        self.limited = fixed is not None
        """Whether requests have to ``wait``."""
        self._fixed = fixed
        self._answers = self._throttled = 0.0
        self._begun, self._succeeded, self._measured = self._clock(), 0, 0.0
        self._cut_at: float | None = None
        self._peak = 0.0
        self._recovery: float | None = None
        self._next = 0.0
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float | None:
        """Requests a second now; ``None`` where there is no limit."""
        if self._cut_at is None:
            return self._fixed
        elapsed = self._clock() - self._cut_at
        if self._recovery is None:  # nothing is known of the server yet
            grown = FIRST * 2 ** min(elapsed, 60.0)
        else:
            grown = max(SLOWEST, STEEPNESS * (elapsed - self._recovery) ** 3 + self._peak)
        return grown if self._fixed is None else min(grown, self._fixed)

    async def wait(self) -> None:
        """Wait for the turn of one request."""
        async with self._turn:  # one after the other, so that each goes by the rate of its time
            if (delay := self._next - self._clock()) > 0:
                await asyncio.sleep(delay)
            rate = self.rate
            if rate is None or rate >= UNLIMITED:
                self._cut_at, self.limited = None, self._fixed is not None
            else:
                self._next = max(self._next, self._clock() - 1 / rate) + 1 / rate

    def succeeded(self) -> None:
        """A request was answered."""
        self._succeeded += 1
        self._answers += 1
        if self._succeeded % 16 == 0:
            self._measure(self._clock())

    def _measure(self, now: float) -> None:
        elapsed = now - self._begun
        if elapsed >= BUCKET:
            current = self._succeeded / elapsed
            self._measured = current if not self._measured else 0.2 * self._measured + 0.8 * current
            self._begun, self._succeeded = now, 0

    def throttled(self, asked_at: float) -> None:
        """The server asked to slow down, in answer to a request made at ``asked_at``."""
        if self._cut_at is not None and asked_at <= self._cut_at:
            return  # one of those that were under way when the rate was cut
        if self._answers > REMEMBERED:
            self._answers, self._throttled = self._answers / 2, self._throttled / 2
        self._answers += 1
        self._throttled += 1
        if self._throttled <= 1 + TOLERATED * self._answers:
            return
        self._answers = self._throttled = 0.0
        now = self._clock()
        self._measure(now)
        through, rate = self._measured, self.rate
        self._recovery = None
        if rate is not None or through:
            peak = through if rate is None else min(rate, 2 * through) if through else rate
            self._peak = max(SLOWEST, peak)
            self._recovery = (self._peak * (1 - BACK) / STEEPNESS) ** (1 / 3)
        self._cut_at, self.limited = now, True
        self._next = max(self._next, now)
