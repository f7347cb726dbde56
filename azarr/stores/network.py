"""What stores behind a network have in common besides reading: writes and erasures, conditional ones that are sure, listing part by part.

A store of a kind of server derives from ``NetworkStore``, or from ``NetworkReader`` where there is no way to write or list, and says how
one attempt at each request is made; everything else is here.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable, Iterable
from typing import Any, ClassVar, NamedTuple, Unpack

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.base import ConditionalStore, Store, Version, check_key, check_prefix
from azarr.stores.network_reader import ClientT, NetworkReader, ReadingOptions, Tag
from azarr.stores.together import together
from azarr.stores.traffic import Attempt
from azarr.types import Buffer, Listing

MARKS = 64
"""How many conditional writes a value remembers: as many may overtake one whose answer was lost before it takes itself for lost.

With sixteen writers of one value, nine have overtaken one; 64 marks take 1 KiB, where servers keep 2 KiB at least.
"""


class Condition(NamedTuple):
    """Only if the value at a key is in the state ``name``, ``None`` meaning absent."""

    name: Hashable | None


class Page(NamedTuple):
    """A part of a listing: full keys, and full prefixes that end in ``/``; ``token`` asks for the next part, ``None`` at the end."""

    keys: Iterable[str]
    prefixes: Iterable[str]
    token: Any | None


class NetworkOptions(ReadingOptions, total=False):
    """What all stores behind networks that can be written to take by name: ``read_only`` refuses to write."""

    read_only: bool


class NetworkStore(NetworkReader[ClientT], Store, ConditionalStore):
    """As ``NetworkReader``, and values can be written, erased and listed."""

    writes_conditionally: ClassVar[bool] = True
    erased_at_once: ClassVar[int] = 1
    """How many keys ``_erase_many`` takes."""

    def __init__(self, *, root: str = "", read_only: bool = False, **options: Unpack[ReadingOptions]) -> None:
        super().__init__(root=root, **options)
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


def is_key(key: str) -> bool:
    """Whether what others have put on a server is a key here: folder markers (``a/``), ``..`` and the like are not."""
    return bool(key) and not key.endswith("/") and "\\" not in key and "\0" not in key and not {"", ".", ".."} & set(key.split("/"))
