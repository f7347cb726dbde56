"""A store around a store that tells every request it is asked for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from azarr.deferred import DeferredModule
from azarr.errors import PreconditionFailedError
from azarr.stores.base import BlockingStore, ReadableStore, Request, Reserve, Stamped, Version, Versioned
from azarr.stores.wrapping import Wrapping
from azarr.telemetry import Listener, Span, Telemetry, listener
from azarr.types import Buffer, Listing

if TYPE_CHECKING:
    from azarr import events
else:  # what those do without to whom nobody listens
    events = DeferredModule("azarr.events")


def observed(store: ReadableStore, telemetry: Telemetry, path: str | None = None) -> Any:
    """``store``, but it tells ``telemetry`` of every request; ``path`` is the node that the requests are for.

    It can do what ``store`` can: it is a ``WritableStore``, a ``ListableStore``, a ``BlockingStore``, … where ``store`` is one. A pickled
    copy is ``store`` itself, since nobody listens in another process.
    """
    return ObservedStore(store, telemetry, path)


def itself(store: ReadableStore) -> ReadableStore:
    """What an observed store is unpickled as."""
    return store


class ObservedStore(Wrapping):
    """A store that tells every request it is asked for."""

    def __init__(self, store: Any, telemetry: Telemetry, path: str | None = None) -> None:
        super().__init__(store)
        self._telemetry, self._path = telemetry, path
        self._kind = type(store).__name__

    def __repr__(self) -> str:
        return repr(self._store)

    def __reduce__(self) -> tuple[Any, ...]:
        return itself, (self._store,)

    def _begin(self, operation: str, key: str, byte_range: Request = None) -> Span:
        return self._telemetry.begin(
            events.StoreRequestEvent, path=self._path, store=self._kind, operation=operation, key=key, byte_range=byte_range
        )

    @contextmanager
    def _request(self, operation: str, key: str, nbytes: int = 0) -> Iterator[None]:
        span = self._begin(operation, key)
        try:
            with self._listening():
                yield
        except BaseException as error:
            span.fail(error)
            raise
        span.stop(nbytes=nbytes)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Have the store tell the attempts that its requests take."""
        token = listener.set(Listener(self._telemetry, self._path, self._kind))
        try:
            yield
        finally:
            listener.reset(token)

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        span = self._begin("get", key, byte_range)
        try:
            with self._listening():
                value: Buffer | None = await self._store.get(key, byte_range)
        except BaseException as error:
            span.fail(error)
            raise
        received(span, value)
        return value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        span = self._begin("get", key, byte_range)
        try:
            with self._listening():
                found: Stamped = await self._store.get_stamped(key, byte_range)
        except BaseException as error:
            span.fail(error)
            raise
        received(span, found.value)
        return found

    async def set(self, key: str, value: Buffer) -> None:
        with self._request("set", key, nbytes_of(value)):
            await self._store.set(key, value)

    async def erase(self, key: str) -> None:
        with self._request("erase", key):
            await self._store.erase(key)

    async def erase_prefix(self, prefix: str) -> None:
        with self._request("erase_prefix", prefix):
            await self._store.erase_prefix(prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        """As of the store; the time that the consumer takes does not count."""
        span, seconds, begun = self._begin("list_prefix", prefix), 0.0, time.perf_counter()
        keys = self._store.list_prefix(prefix)
        try:
            while True:
                with self._listening():
                    key = await anext(keys, None)
                if key is None:
                    break
                seconds += time.perf_counter() - begun
                yield key
                begun = time.perf_counter()
        except GeneratorExit:
            if hasattr(keys, "aclose"):
                await keys.aclose()
            span.stop(seconds=seconds)
            raise
        except BaseException as error:
            span.fail(error)
            raise
        span.stop(seconds=seconds + time.perf_counter() - begun)

    async def list_dir(self, prefix: str = "") -> Listing:
        with self._request("list_dir", prefix):
            return cast("Listing", await self._store.list_dir(prefix))

    # Requests that the store is asked for together share their time equally, and fail together.

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        span = self._begin("get", key, byte_range)
        try:
            value: Buffer | None = self._store.get_blocking(key, byte_range, reserve)
        except BaseException as error:
            span.fail(error)
            raise
        received(span, value)
        return value

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        span = self._begin("get", key, byte_range)
        try:
            found: Stamped = self._store.get_stamped_blocking(key, byte_range, reserve)
        except BaseException as error:
            span.fail(error)
            raise
        received(span, found.value)
        return found

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        values = self._store.get_each(folder, names, reserve)
        for name in names:
            span = self._begin("get", folder + name)
            try:
                value: Buffer | None = next(values)
            except BaseException as error:
                span.fail(error)
                raise
            received(span, value)
            yield value

    def get_joined(self, folder: str, names: Sequence[str], out: memoryview) -> list[int | None]:
        return BlockingStore.get_joined(self, folder, names, out)  # one by one, each told as a request

    def get_into(self, key: str, out: memoryview) -> int | None:
        span = self._begin("get", key)
        try:
            size: int | None = self._store.get_into(key, out)
        except BaseException as error:
            span.fail(error)
            raise
        copied(span, size, out)
        return size

    def set_blocking(self, key: str, value: Buffer) -> None:
        with self._request("set", key, nbytes_of(value)):
            self._store.set_blocking(key, value)

    def erase_blocking(self, key: str) -> None:
        with self._request("erase", key):
            self._store.erase_blocking(key)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        """As of the store; told as a ``get`` and a ``set`` or ``erase``, without the time that the change takes between them."""
        span = self._begin("get", key)
        nbytes: int | None = None

        def told(old: Buffer | None) -> Buffer | None:
            nonlocal span, nbytes
            if nbytes is not None:  # the store found that somebody else was faster, and has read again
                span.fail(PreconditionFailedError(""))
                span = self._begin("get", key)
            received(span, old)
            new = change(old)
            span, nbytes = self._begin("erase" if new is None else "set", key), 0 if new is None else nbytes_of(new)
            return new

        try:
            self._store.update_blocking(key, told)
        except BaseException as error:
            span.fail(error)
            raise
        span.stop(nbytes=nbytes or 0)

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        span = self._begin("get", key, byte_range)
        try:
            with self._listening():
                found: Versioned = await self._store.get_versioned(key, byte_range)
        except BaseException as error:
            span.fail(error)
            raise
        received(span, found.value)
        return found

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        with self._request("set_if", key, nbytes_of(value)):
            await self._store.set_if(key, value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        with self._request("erase_if", key):
            await self._store.erase_if(key, version)


def nbytes_of(value: Buffer) -> int:
    """The size of ``value``, whose items need not be bytes."""
    return value.nbytes if isinstance(value, memoryview) else len(value)


def received(span: Span, value: Buffer | None) -> None:
    """The end of a request that was answered with ``value``."""
    span.stop(nbytes=0 if value is None else nbytes_of(value), missing=value is None)


def copied(span: Span, size: int | None, out: memoryview, **measured: float) -> None:
    """The end of a request whose value, of ``size`` bytes, was copied into ``out``."""
    span.stop(nbytes=min(size or 0, len(out)), missing=size is None, **measured)
