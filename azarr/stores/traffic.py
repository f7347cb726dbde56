"""The traffic between a store and its server: how many requests at once, how fast, for how long, and how often again.

One of these stands before every store behind a network. Whatever uses the store shares it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from azarr.deferred import DeferredModule
from azarr.errors import StoreError, ThrottledError, TransientStoreError
from azarr.retry import RetryPolicy, is_worth_retrying
from azarr.stores.pace import Pace
from azarr.telemetry import counts, error_type, listener

if TYPE_CHECKING:
    from azarr import events
else:  # what those do without to whom nobody listens
    events = DeferredModule("azarr.events")

T = TypeVar("T")

CONCURRENCY = 64
"""Requests in flight at once, for each loop, unless a user says otherwise: twice those of one engine."""

PRICE = 3
"""What another attempt after a failure costs of the budget. After being throttled it is free: those are held back anyway."""


@dataclass(slots=True)
class TrafficStats:
    """What a store has done so far: attempts made, attempts after the first, answers that asked to slow down, and requests given up."""

    attempts: int = 0
    retries: int = 0
    throttled: int = 0
    failed: int = 0


class Attempt:
    """One attempt at a request: the ``number``th, from 1 on."""

    __slots__ = ("_deadline", "number")

    def __init__(self, number: int, deadline: asyncio.Timeout) -> None:
        self.number, self._deadline = number, deadline

    def expect(self, nbytes: int) -> None:
        """Allow the time that ``nbytes`` more bytes take, which are on their way."""
        if (when := self._deadline.when()) is not None:
            self._deadline.reschedule(when + nbytes / 2**20)


class Lane:
    """What one loop has of the traffic."""

    __slots__ = ("now", "pace", "slots")

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: int, rate: float | None) -> None:
        self.now = loop.time
        self.slots = asyncio.Semaphore(concurrency)
        self.pace = Pace(loop.time, rate)


class Traffic:
    """Makes requests: ``concurrency`` at once for each loop, at most ``rate`` a second where that is given, repeated as ``policy`` says."""

    def __init__(self, policy: RetryPolicy, *, concurrency: int = CONCURRENCY, rate: float | None = None, seed: int | None = None) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if rate is not None and rate <= 0:
            raise ValueError(f"a rate is more than 0 requests a second, or None for no limit; not {rate}")
        self.policy, self.concurrency, self.rate = policy, concurrency, rate
        self.stats = TrafficStats()
        self._budget = policy.budget
        self._random = random.Random(seed)  # noqa: S311 - waiting times are no secret
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}

    async def run(self, operation: str, key: str, attempt: Callable[[Attempt], Awaitable[T]], nbytes: int = 0) -> T:
        """The answer to a request: ``attempt`` is called until it answers, or raises what is not worth retrying, or the policy has enough.

        ``attempt`` raises ``TransientStoreError`` or ``ThrottledError`` where another one may be successful. ``nbytes`` bytes are moved, as
        far as is known before.
        """
        lane = self._lane()
        begun = lane.now()
        try:
            return await self._once(lane, 1, attempt, nbytes)
        except StoreError as error:
            if not is_worth_retrying(error):
                raise
            failure = error
        return await self._again(lane, operation, key, begun, attempt, nbytes, failure)

    def _lane(self) -> Lane:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            for other in [each for each in self._lanes if each.is_closed()]:
                self._lanes.pop(other, None)
            lane = self._lanes[loop] = Lane(loop, self.concurrency, self.rate)
        return lane

    async def _once(self, lane: Lane, number: int, attempt: Callable[[Attempt], Awaitable[T]], nbytes: int) -> T:
        async with lane.slots:
            if lane.pace.limited:
                await lane.pace.wait()
            begun = lane.now()
            self.stats.attempts += 1
            try:
                async with asyncio.timeout(self.policy.seconds(nbytes)) as deadline:
                    answer = await attempt(Attempt(number, deadline))
            except ThrottledError:
                self.stats.throttled += 1
                lane.pace.throttled(begun)
                raise
            except TimeoutError as error:
                raise TransientStoreError(f"no answer after {lane.now() - begun:.1f} s") from error
            except StoreError as error:
                if not is_worth_retrying(error):
                    self._answered(lane)  # a refusal is an answer, too: conditional writes in a race have many
                raise
        self._answered(lane)
        return answer

    def _answered(self, lane: Lane) -> None:
        lane.pace.succeeded()
        if self._budget < self.policy.budget:
            self._budget += 1

    async def _again(
        self,
        lane: Lane,
        operation: str,
        key: str,
        begun: float,
        attempt: Callable[[Attempt], Awaitable[T]],
        nbytes: int,
        failure: StoreError,
    ) -> T:
        """The answer to a request whose first attempt has failed."""
        told, number = Told(operation, key), 1
        try:
            while True:
                delay = self._delay(number, failure, lane.now() - begun)
                told.start(number + 1, delay, failure)
                await asyncio.sleep(delay)
                number += 1
                self.stats.retries += 1
                if (count := counts.get()) is not None:
                    count.retries += 1
                try:
                    answer = await self._once(lane, number, attempt, nbytes)
                except StoreError as error:
                    if not is_worth_retrying(error):
                        raise
                    failure = error
                else:
                    told.end("stop", number)
                    return answer
        except BaseException as error:
            told.end("exception", number, error)
            raise

    def _delay(self, failures: int, failure: StoreError, elapsed: float) -> float:
        """Seconds until the next attempt; raises ``failure``, and why it is final, where there is to be none."""
        policy = self.policy
        delay = policy.delay(failures, failure, self._random)
        price = 0 if isinstance(failure, ThrottledError) else PRICE
        if failures >= policy.attempts:
            why = f"given up after {failures} attempts" if failures > 1 else ""
        elif policy.total is not None and elapsed + delay > policy.total:
            why = f"given up after {elapsed:.0f} s"
        elif self._budget < price:
            why = "not tried again, as too much fails: the store's retry budget is used up"
        else:
            self._budget -= price
            return delay
        self.stats.failed += 1
        if why:
            failure.args = (f"{failure.args[0]}; {why}", *failure.args[1:])
        raise failure


class Told:
    """Tells of a request that is made again, where somebody listens."""

    __slots__ = ("_begun", "_fields", "_number", "_telemetry")

    def __init__(self, operation: str, key: str) -> None:
        heard = listener.get()
        self._telemetry = None if heard is None else heard.telemetry
        self._number = 0 if heard is None else heard.telemetry.number()
        self._fields: dict[str, Any] = (
            {} if heard is None else {"path": heard.path, "store": heard.store, "operation": operation, "key": key}
        )
        self._begun = time.perf_counter()

    def start(self, attempt: int, delay: float, error: BaseException) -> None:
        """Attempt number ``attempt`` will be made after ``delay`` seconds, as the one before failed with ``error``."""
        self._tell("start", attempt=attempt, delay=delay, error=error_type(error))

    def end(self, phase: events.Phase, attempt: int, error: BaseException | None = None) -> None:
        """The last attempt was number ``attempt``."""
        failed = {} if error is None else {"error": error_type(error)}
        self._tell(phase, attempt=attempt, seconds=time.perf_counter() - self._begun, **failed)

    def _tell(self, phase: events.Phase, **measured: Any) -> None:
        if self._telemetry is not None and self._telemetry.wants(f"store.retry.{phase}"):
            self._telemetry.emit(events.RetryEvent(phase, self._number, **self._fields, **measured))
