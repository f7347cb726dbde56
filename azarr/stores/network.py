"""What stores behind a network have in common: a client for every loop, one retry policy, limits, conditional writes that are sure.

A store of a kind of server derives from ``NetworkStore``, or from ``NetworkReader`` where there is no way to write or list, and says how
one attempt at each request is made; everything else is here.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.retry import RetryPolicy
from azarr.stores.base import (
    ConditionalStore,
    ReadableStore,
    Request,
    Stamped,
    StampingStore,
    Store,
    Version,
    Versioned,
    check_key,
    check_prefix,
)
from azarr.stores.clients import Clients
from azarr.stores.together import together
from azarr.stores.traffic import CONCURRENCY, Attempt, Traffic, TrafficStats
from azarr.types import Buffer, ByteRange, Listing

T = TypeVar("T")
ClientT = TypeVar("ClientT")

MARKS = 64
"""How many conditional writes a value remembers: as many may overtake one whose answer was lost before it takes itself for lost.

With sixteen writers of one value, nine have overtaken one; 64 marks take 1 KiB, where servers keep 2 KiB at least.
"""


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


class Condition(NamedTuple):
    """Only if the value at a key is in the state ``name``, ``None`` meaning absent."""

    name: Hashable | None


class Page(NamedTuple):
    """A part of a listing: full keys, and full prefixes that end in ``/``; ``token`` asks for the next part, ``None`` at the end."""

    keys: Iterable[str]
    prefixes: Iterable[str]
    token: Any | None


class NetworkReader(ReadableStore, StampingStore, Generic[ClientT]):
    """Values at ``root/key`` of a server, to be read. It belongs to no loop: any number of them may use it, one after the other or at once.

    Args:
        root: What all keys begin with; nothing by default.
        retry: When failed requests are made again.
        concurrency: Requests in flight at once, for each loop, for all who use this store; 64.
        rate: Requests a second at most; no limit by default. Where the server throttles, requests are slowed down in any case.

    Clients are opened on first use, and closed by ``aclose``, by ``async with``, or when the loop shuts down. A pickled copy connects anew.

    Derive from it, and write the methods that begin with ``_`` below: each is **one attempt**, without retries of its own, gets full
    keys, and may raise what the server's library raises, which ``_classified`` translates. What is not an answer is not taken for one:
    only a proven absence is ``None``, and a body that is shorter than the server has said is a ``TransientStoreError``.
    """

    def __init__(
        self,
        *,
        root: str = "",
        retry: RetryPolicy | None = None,
        concurrency: int = CONCURRENCY,
        rate: float | None = None,
        client: ClientT | None = None,
    ) -> None:
        self.root = f"{check_key(root.strip('/'))}/" if root.strip("/") else ""
        self.traffic = Traffic(retry or RetryPolicy(), concurrency=concurrency, rate=rate)
        self._given = client
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


class NetworkStore(NetworkReader[ClientT], Store, ConditionalStore):
    """As ``NetworkReader``, and values can be written, erased and listed; ``read_only`` refuses to write."""

    writes_conditionally: ClassVar[bool] = True
    erased_at_once: ClassVar[int] = 1
    """How many keys ``_erase_many`` takes."""

    def __init__(
        self,
        *,
        root: str = "",
        read_only: bool = False,
        retry: RetryPolicy | None = None,
        concurrency: int = CONCURRENCY,
        rate: float | None = None,
        client: ClientT | None = None,
    ) -> None:
        super().__init__(root=root, retry=retry, concurrency=concurrency, rate=rate, client=client)
        self.read_only = read_only

    # What a kind of store says

    @abstractmethod
    async def _set(self, client: ClientT, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        """Store the value, and with it ``marks``, if there are any; ``PreconditionFailedError`` where the condition does not hold."""

    @abstractmethod
    async def _erase(self, client: ClientT, key: str, condition: Condition | None) -> None:
        """Remove the key; fine where it is absent, unless there is a condition."""

    async def _erase_many(self, client: ClientT, keys: list[str]) -> None:
        """Remove ``erased_at_once`` keys at most; fine where they are absent."""
        for key in keys:
            await self._erase(client, key, None)

    @abstractmethod
    async def _page(self, client: ClientT, prefix: str, token: Any | None, *, deep: bool) -> Page:
        """Part ``token``, or the first, of the keys below ``prefix``; only those directly below it, and prefixes, unless ``deep``."""

    # What a store can do

    @property
    def conditional(self) -> bool:
        return self.writes_conditionally and not self.read_only

    async def set(self, key: str, value: Buffer) -> None:
        full = self.root + check_key(key)
        self._expect_writable(key)

        async def attempt(_: Attempt) -> None:
            await self._set(await self._clients.get(), full, value, None, ())

        await self._made("set", key, attempt, memoryview(value).nbytes)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        full = self.root + check_key(key)
        self._expect_writable(key)
        condition, marks = self._conditioned(key, version)

        async def attempt(_: Attempt) -> None:
            client = await self._clients.get()
            try:
                await self._set(client, full, value, condition, marks)
            except Exception as error:
                failure = self._known(error, key)
                # Perhaps it was this very write that changed the state: the answer to an earlier attempt may have been lost, and even the
                # first one may have been sent twice, by the client's library or by a proxy, when a connection broke.
                if not isinstance(failure, PreconditionFailedError) or not await self._is_marked(client, full, marks[0]):
                    raise

        await self._made("set_if", key, attempt, memoryview(value).nbytes)

    def _conditioned(self, key: str, version: Version | None) -> tuple[Condition, tuple[str, ...]]:
        """The condition of a write that replaces ``version``, and its marks: the first is its own."""
        if version is not None and not isinstance(version, Tag):
            raise StoreError(f"{version!r:.100} is no version of this store", key=key)
        return Condition(None if version is None else version.name), (new_mark(), *(() if version is None else version.marks[: MARKS - 1]))

    async def _is_marked(self, client: ClientT, key: str, mark: str) -> bool:
        found = await self._find(client, key)
        return found is not None and mark in found.tag.marks

    async def erase(self, key: str) -> None:
        full = self.root + check_key(key)
        self._expect_writable(key)

        async def attempt(_: Attempt) -> None:
            await self._erase(await self._clients.get(), full, None)

        await self._made("erase", key, attempt)

    async def erase_if(self, key: str, version: Version) -> None:
        full = self.root + check_key(key)
        self._expect_writable(key)
        if not isinstance(version, Tag):
            raise StoreError(f"{version!r:.100} is no version of this store", key=key)

        async def attempt(attempt: Attempt) -> None:
            client = await self._clients.get()
            try:
                await self._erase(client, full, Condition(version.name))
            except Exception as error:
                failure = self._known(error, key)
                if not isinstance(failure, PreconditionFailedError) or attempt.number == 1 or await self._find(client, full) is not None:
                    raise

        await self._made("erase_if", key, attempt)

    async def erase_prefix(self, prefix: str) -> None:
        full = self.root + check_prefix(prefix)
        self._expect_writable(prefix)

        async def erase(keys: list[str]) -> None:
            async def attempt(_: Attempt) -> None:
                client = await self._clients.get()
                await (self._erase(client, keys[0], None) if len(keys) == 1 else self._erase_many(client, keys))

            await self._made("erase_prefix", prefix, attempt)

        async for page in self._pages(full, deep=True):
            keys = list(page.keys)
            await together(erase, [keys[start : start + self.erased_at_once] for start in range(0, len(keys), self.erased_at_once)])

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        start = len(self.root)
        async for page in self._pages(self.root + check_prefix(prefix), deep=True):
            for key in page.keys:
                if is_key(key[start:]):
                    yield key[start:]

    async def list_dir(self, prefix: str = "") -> Listing:
        start = len(self.root)
        keys: set[str] = set()
        prefixes: set[str] = set()
        async for page in self._pages(self.root + check_prefix(prefix), deep=False):
            keys.update(key[start:] for key in page.keys if is_key(key[start:]))
            prefixes.update(each[start:] for each in page.prefixes if is_key(each[start:-1]))
        return Listing(tuple(sorted(keys)), tuple(sorted(prefixes)))

    async def _pages(self, prefix: str, *, deep: bool) -> AsyncIterator[Page]:
        token: Any = None
        while True:

            async def attempt(_: Attempt, token: Any = token) -> Page:
                return await self._page(await self._clients.get(), prefix, token, deep=deep)

            page = await self._made("list", prefix[len(self.root) :], attempt)
            # what is not below the prefix was not asked for, and must not be erased
            yield Page(
                [key for key in page.keys if key.startswith(prefix)],
                [each for each in page.prefixes if each.startswith(prefix)],
                page.token,
            )
            if page.token is None:
                return
            if page.token == token:
                raise StoreError(f"{self!r} lists the same part again and again", key=prefix[len(self.root) :])
            token = page.token

    def _expect_writable(self, key: str) -> None:
        if self.read_only:
            raise StoreError(f"{self!r} is read-only", key=key)


def new_mark() -> str:
    """The mark of a write, which no other has."""
    return f"{random.getrandbits(64):016x}"


def nbytes_of(request: Request) -> int:
    """How many bytes are asked for, as far as that is known before."""
    if isinstance(request, ByteRange):
        return 0 if request.stop is None else request.stop - request.start
    return 0 if request is None else request.nbytes


def is_key(key: str) -> bool:
    """Whether what others have put on a server is a key here: folder markers (``a/``), ``..`` and the like are not."""
    return bool(key) and not key.endswith("/") and "\\" not in key and "\0" not in key and not {"", ".", ".."} & set(key.split("/"))
