"""What can go wrong between a client and a server, as values, and which request it happens to."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

__all__ = [
    "Answer",
    "BrokenBody",
    "Delay",
    "LostResponse",
    "NoAnswer",
    "ProxiedRequest",
    "Reset",
    "StalledBody",
    "TruncatedBody",
]


@dataclass(frozen=True, slots=True)
class Delay:
    """The request waits ``seconds`` before it is forwarded; then all is well."""

    seconds: float
    kind: ClassVar[str] = "delay"


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset before the request reaches the server."""

    kind: ClassVar[str] = "reset"


@dataclass(frozen=True, slots=True)
class LostResponse:
    """The server does what it is asked to, its response is dropped, and the connection reset: the outcome is unknown to the client."""

    kind: ClassVar[str] = "lost_response"


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request does not reach the server, and the connection stays open in silence."""

    kind: ClassVar[str] = "no_answer"


@dataclass(frozen=True, slots=True)
class BrokenBody:
    """The connection is reset after ``after`` bytes of the response's body; after any number of them where that is ``None``.

    Where there is no body, half of the response's head is sent.
    """

    after: int | None = None
    kind: ClassVar[str] = "broken_body"


@dataclass(frozen=True, slots=True)
class TruncatedBody:
    """As ``BrokenBody``, but the connection is closed in order: only the ``Content-Length`` tells that something is missing."""

    after: int | None = None
    kind: ClassVar[str] = "truncated_body"


@dataclass(frozen=True, slots=True)
class StalledBody:
    """As ``BrokenBody``, but the connection stays open in silence."""

    after: int | None = None
    kind: ClassVar[str] = "stalled_body"


@dataclass(frozen=True, slots=True)
class Answer:
    """The request does not reach the server; the client is answered with ``status``.

    ``retry_after`` is what the header of that name says, a number of seconds or a date; there is none by default. ``code`` makes the
    body an error of S3 in XML, as ``SlowDown``.
    """

    status: int
    retry_after: float | str | None = None
    code: str | None = None

    @property
    def kind(self) -> str:
        """The status."""
        return str(self.status)


Fault: TypeAlias = Delay | Reset | LostResponse | NoAnswer | BrokenBody | TruncatedBody | StalledBody | Answer


@dataclass(frozen=True, slots=True)
class ProxiedRequest:
    """A request as a script of faults sees it.

    ``number`` counts the requests from 0 on. ``method`` and ``path`` (with its query) are empty where the protocol is not HTTP; ``head``
    is the raw head of an HTTP request, and elsewhere what the client has sent.
    """

    number: int
    method: str
    path: str
    head: bytes


Script: TypeAlias = Callable[[ProxiedRequest], Fault | None]
"""Says what happens to a request, ``None`` if nothing does."""


class Dice:
    """A script that draws faults with given probabilities, the same ones in every run with the same ``seed``."""

    def __init__(self, probabilities: Mapping[Fault, float], seed: int) -> None:
        if any(not 0 <= each <= 1 for each in probabilities.values()) or math.fsum(probabilities.values()) > 1 + 1e-9:
            raise ValueError(f"probabilities lie between 0 and 1, and so does their sum, not {list(probabilities.values())}")
        self._probabilities = dict(probabilities)
        self._random = random.Random(seed)  # noqa: S311 - faults are no secret

    def __call__(self, _: ProxiedRequest) -> Fault | None:
        """The fault that the next number drawn stands for."""
        drawn = self._random.random()
        for fault, probability in self._probabilities.items():
            drawn -= probability
            if drawn < 0:
                return fault
        return None


class TokenBucket:
    """Grants ``rate`` requests a second on average, and as many at once after a second of rest."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"a rate limit is a positive number of requests a second, not {rate}")
        self._rate = rate
        self._tokens = self._most = max(1.0, rate)
        self._then = -math.inf

    def take(self, now: float) -> bool:
        """Whether a request at the time ``now``, in seconds, is granted."""
        self._tokens = min(self._most, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
