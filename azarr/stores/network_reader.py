"""Reading from a server: what answers say, a client for every loop, one retry policy, limits.

A store of a kind of server that can only be read derives from ``NetworkReader``, and says how one attempt at each request is made;
everything else is here. One that can be written derives from ``NetworkStore`` in ``network.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, NamedTuple, Self, TypedDict, TypeVar

from azarr.errors import StoreError, TransientStoreError
from azarr.retry import RetryPolicy
from azarr.stores.base import ReadableStore, Request, Stamped, StampingStore, Versioned, check_key
from azarr.stores.clients import Clients
from azarr.stores.traffic import CONCURRENCY, Attempt, Traffic, TrafficStats
from azarr.types import Buffer, ByteRange

T = TypeVar("T")
ClientT = TypeVar("ClientT")


class Tag(NamedTuple):
    """The state of a value: what the server calls it (an ETag, a generation), and the ``marks`` of conditional writes that led to it."""

    name: Hashable
    marks: tuple[str, ...] = ()


class Found(NamedTuple):
    """What is at a key: its size in bytes and its state."""

    nbytes: int
    tag: Tag


class Fetched(NamedTuple):
    """A value, or a part of one, and its state; ``tag`` may be ``None`` where it was not asked for."""

    value: Buffer
    tag: Tag | None = None


class ReadingOptions(TypedDict, total=False):
    """What all stores behind networks take by name.

    ``retry`` says when failed requests are made again. ``concurrency`` is how many requests are in flight at once, for each loop, for all
    who use the store; 64. ``rate`` is how many are made a second at most; no limit by default. Where the server throttles, requests are
    slowed down in any case.
    """

    retry: RetryPolicy | None
    concurrency: int
    rate: float | None


class NetworkReader(ReadableStore, StampingStore, Generic[ClientT]):
    """Values at ``root/key`` of a server, to be read. It belongs to no loop: any number of them may use it, one after the other or at once.

    Args:
        root: What all keys begin with; nothing by default.
        retry, concurrency, rate: See ``ReadingOptions``.

    Clients are opened on first use, and closed by ``aclose``, by ``async with``, or when the loop shuts down. A pickled copy connects anew.

    Derive from it, and write the methods that begin with ``_`` below: each is **one attempt**, without retries of its own, gets full
    keys, and may raise what the server's library raises, which ``_classified`` translates. What is not an answer is not taken for one:
    only a proven absence is ``None``, and a body that is shorter than the server has said is a ``TransientStoreError``.
    """

    _given: Any = None
    """A client that was passed in; it is not closed."""

    def __init__(
        self, *, root: str = "", retry: RetryPolicy | None = None, concurrency: int = CONCURRENCY, rate: float | None = None
    ) -> None:
        self.root = f"{check_key(root.strip('/'))}/" if root.strip("/") else ""
        self.traffic = Traffic(retry or RetryPolicy(), concurrency=concurrency, rate=rate)
        self._clients: Clients[ClientT] = Clients(self._connect, self)

    # What a kind of store says

    @abstractmethod
    def _connect(self) -> AbstractAsyncContextManager[ClientT]:
        """Opens a client for the running loop and closes it; with the library's own retries turned off.

        Clients that complain when they are garbage, as those of aiohttp do, want a context that is a class and does not refer to the store:
        they are then closed first, also where the store is forgotten.
        """

    @abstractmethod
    async def _get(self, client: ClientT, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:
        """The value or part of it, ``None`` where it is proven absent; its state as well where it is to be ``tagged``.

        A range beyond the end is empty, as ``get`` has it. ``attempt.expect`` is told the size of large bodies as soon as it is known.
        """

    @abstractmethod
    async def _find(self, client: ClientT, key: str) -> Found | None:
        """Size and state of the value, without the value; ``None`` where it is proven absent."""

    @abstractmethod
    def _classified(self, error: Exception, key: str) -> Exception | None:
        """What an exception of the server's library means: a ``StoreError`` that says what to do, ``None`` where that is unknown.

        ``OSError``, ``TimeoutError`` and ``EOFError`` are known already: they are transient.
        """

    # What a store can do

    @property
    def stats(self) -> TrafficStats:
        """What has been done so far."""
        return self.traffic.stats

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        found = await self._fetched(key, byte_range, tagged=False)
        return None if found is None else found.value

    @property
    def versioned(self) -> bool:
        """Whether it tells versions, also where it cannot be written to."""
        return True

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        found = await self._fetched(key, byte_range, tagged=True)
        return Versioned(None, None) if found is None else Versioned(found.value, found.tag)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        value, version = await self.get_versioned(key, byte_range)
        return Stamped(value, version.name if isinstance(version, Tag) else None)

    async def _fetched(self, key: str, byte_range: Request, *, tagged: bool) -> Fetched | None:
        full = self.root + check_key(key)

        async def attempt(attempt: Attempt) -> Fetched | None:
            return await self._get(await self._clients.get(), full, byte_range, attempt, tagged=tagged)

        return await self._made("get", key, attempt, nbytes_of(byte_range))

    async def size(self, key: str) -> int | None:
        """The size of the value in bytes; ``None`` where ``key`` is absent."""
        full = self.root + check_key(key)

        async def attempt(_: Attempt) -> Found | None:
            return await self._find(await self._clients.get(), full)

        found = await self._made("size", key, attempt)
        return None if found is None else found.nbytes

    # How it is done

    async def _made(self, operation: str, key: str, attempt: Callable[[Attempt], Awaitable[T]], nbytes: int = 0) -> T:
        """The answer to a request, after as many attempts as it takes."""

        async def known(number: Attempt) -> T:
            try:
                return await attempt(number)
            except Exception as error:
                failure = self._known(error, key)
                if failure is error:
                    raise
                raise failure from error

        return await self.traffic.run(operation, key, known, nbytes)

    def _known(self, error: Exception, key: str) -> Exception:
        """``error`` as one of azarr's, where it says something about the store rather than about a program."""
        classified = error if isinstance(error, StoreError) else self._classified(error, key)
        if isinstance(classified, StoreError):
            classified.key = classified.key or key
        if classified is not None:
            return classified
        if isinstance(error, OSError | EOFError):  # TimeoutError is an OSError
            return TransientStoreError(f"the request for {key!r} in {self!r} failed ({type(error).__name__})", key=key)
        # labels of hosts have 1 to 63 characters, and half a surrogate pair is no character; decoding is about answers
        if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):
            return StoreError(
                f"the request for {key!r} in {self!r} cannot be sent: the name of its host is none, or its key is no text", key=key
            )
        return error

    async def aclose(self) -> None:
        """Close all connections; the store cannot be used any more. Fine where that has been done."""
        await self._clients.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __getstate__(self) -> dict[str, Any]:
        """All that the store was made with; a copy has connections, limits and statistics of its own."""
        if self._given is not None:
            raise TypeError(f"{self!r} cannot be pickled, because its client was passed in; pass what the client is made from")
        traffic = self.traffic
        state = {name: value for name, value in self.__dict__.items() if name not in {"_clients", "traffic"}}
        return {**state, "_limits": (traffic.policy, traffic.concurrency, traffic.rate)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        policy, concurrency, rate = state.pop("_limits")
        self.__dict__.update(state)
        self.traffic = Traffic(policy, concurrency=concurrency, rate=rate)
        self._clients = Clients(self._connect, self)


def nbytes_of(request: Request) -> int:
    """How many bytes are asked for, as far as that is known before."""
    if isinstance(request, ByteRange):
        return 0 if request.stop is None else request.stop - request.start
    return 0 if request is None else request.nbytes
