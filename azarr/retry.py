"""When a request that has failed is made again, and how long to wait before."""

from __future__ import annotations

import random
from dataclasses import dataclass

from azarr.errors import ThrottledError, TransientStoreError

__all__ = ["NO_RETRIES", "RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How stores behind a network meet failures that may be gone on the next attempt; the same for all of them.

    Only what can be repeated without harm is made again: reading, storing or erasing a whole value, and conditional writes, which find
    out whether an attempt whose answer was lost had been successful.

    Args:
        attempts: How often a request is made at most; 8, which outlasts a minute of trouble. 1 turns retries off.
        first_delay, longest_delay: Seconds to wait at most before the second attempt, 0.1, and before any, 20. The longest wait doubles
            with every attempt; how long it is really is drawn from all of it ("full jitter"), so that clients get out of step.
        total: Seconds after which no further attempt is begun; 120, ``None`` for no limit.
        attempt_timeout: Seconds for one attempt to be answered; 30, ``None`` for no limit. Large values have a second more for each MiB.
        longest_retry_after: Seconds that a server may ask to wait (``Retry-After``), more are cut; 60.
        budget: What all requests of a store may spend together: an attempt after a failure costs 3, a success earns 1. 500 let a fifth of
            all requests fail for ever, and end an outage after some 170 attempts instead of eight for each request.

    """

    attempts: int = 8
    first_delay: float = 0.1
    longest_delay: float = 20.0
    total: float | None = 120.0
    attempt_timeout: float | None = 30.0
    longest_retry_after: float = 60.0
    budget: int = 500

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"a request is made at least once: attempts must not be {self.attempts}")
        if min(self.first_delay, self.longest_delay, self.longest_retry_after, self.budget) < 0:
            raise ValueError(f"waiting times and the budget must not be negative: {self}")
        if (self.total is not None and self.total <= 0) or (self.attempt_timeout is not None and self.attempt_timeout <= 0):
            raise ValueError(f"time limits must be more than 0, or None: {self}")

    def delay(self, failures: int, error: BaseException, chance: random.Random) -> float:
        """Seconds to wait after so many failures, of which ``error`` was the last."""
        jittered = chance.uniform(0, min(self.longest_delay, self.first_delay * 2.0 ** min(failures - 1, 60)))
        asked = error.retry_after if isinstance(error, ThrottledError) else None
        return jittered if asked is None else jittered + min(max(asked, 0.0), self.longest_retry_after)

    def seconds(self, nbytes: int) -> float | None:
        """Seconds for one attempt that moves ``nbytes`` bytes."""
        return None if self.attempt_timeout is None else self.attempt_timeout + nbytes / 2**20


NO_RETRIES = RetryPolicy(attempts=1)
"""Every failure comes out at once."""


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the failure may be gone on the next attempt."""
    return isinstance(error, TransientStoreError | ThrottledError)
