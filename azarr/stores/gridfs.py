"""Values as files of GridFS, in a MongoDB database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar, Unpack
from urllib.parse import parse_qsl, urlencode

from bson import ObjectId
from gridfs import AsyncGridFSBucket
from gridfs.errors import CorruptGridFile, NoFile
from pymongo import AsyncMongoClient
from pymongo import errors as failures
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.uri_parser import parse_uri

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.stores.base import Request
from azarr.stores.network import Condition, NetworkOptions, NetworkStore, Page
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.stores.sorted_keys import after
from azarr.stores.traffic import Attempt
from azarr.stores.url_parts import redacted
from azarr.types import Buffer, ByteRange

__all__ = ["GridFSStore", "open_url"]

T = TypeVar("T")

PIECE_NBYTES: Final = 255 * 1024
"""Into pieces of so many bytes GridFS cuts values, unless a user says otherwise."""

BATCH: Final = 1000
LEVEL_BATCH: Final = 200
"""Keys that a listing fetches at once; fewer where only one level is wanted, as most of them lie deeper and are passed over."""

TIDYING: Final = 5.0
"""Seconds for taking away what a write that failed has left."""

CONNECTING: Final = 0.01
"""Seconds between a request that was to have a connection when all were closed, and the same once more."""

NOT_ALLOWED: Final = frozenset({13, 18})
TOO_MANY: Final = frozenset({462, 16500})
LOST_RACE: Final = frozenset({112})


class Client(NamedTuple):
    """What a store needs of a database."""

    mongo: AsyncMongoClient[dict[str, Any]]
    bucket: AsyncGridFSBucket
    keys: AsyncCollection[dict[str, Any]]
    files: AsyncCollection[dict[str, Any]]
    pieces: AsyncCollection[dict[str, Any]]


class GridFSStore(NetworkStore[Client]):
    """Values as files of the GridFS ``bucket`` in a database, each with its key as its file name.

    Args:
        url: A connection string of MongoDB, ``mongodb://[user:password@]host[:port]/database``, or ``mongodb+srv://``; what its query says
            is MongoDB's, but ``retryReads`` and ``retryWrites``, as retrying is done here.
        database: The database, where the URL does not have it.
        bucket: What the names of the collections begin with; ``fs``.
        prefix: What all keys begin with; nothing by default.
        piece_nbytes: Into pieces of so many bytes a value is cut; 255 KiB. Parts of values are read by whole pieces.
        client: An ``AsyncMongoClient`` instead of one that is made from ``url``, for use on one loop; it is not closed.
        read_only, retry, concurrency, rate: As for all stores behind networks, see ``NetworkOptions``.

    GridFS alone cannot replace a file at once: there is the new one beside the old one, and which is newer goes by the clocks of those who
    wrote them. So there is one more collection, ``bucket.keys``, with a document for each key that names its file. A write uploads a new
    file, changes that document, and deletes the old file: readers see the one or the other, and conditional writes are changes of the
    document on condition of what it was, which MongoDB does at once.

    Files that other programs put into the bucket are therefore not seen, and must not be deleted by them. A writer that dies before it
    is done leaves a file that belongs to no key; ``sweep`` deletes those.
    """

    erased_at_once = 100

    def __init__(
        self,
        url: str = "mongodb://localhost",
        *,
        database: str | None = None,
        bucket: str = "fs",
        prefix: str = "",
        piece_nbytes: int = PIECE_NBYTES,
        client: AsyncMongoClient[dict[str, Any]] | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(root=prefix, **options)
        hosts, named = place_of(url)
        name = database or named
        if not name:
            raise StoreError(f"{redacted(url)!r} names no database: mongodb://host/database, or pass database=")
        self._url, self._hosts = url, hosts
        self._database, self._bucket = name, bucket
        self._piece_nbytes = piece_nbytes
        self._given = client

    def __repr__(self) -> str:
        return f"GridFSStore('mongodb://{self._hosts}/{self._database}', bucket={self._bucket!r}, prefix={self.root!r})"

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """Equal for stores of the same values."""
        return "gridfs", self._hosts, self._database, self._bucket, self.root

    def _connect(self) -> AbstractAsyncContextManager[Client]:
        return self._connected() if self._given is None else nullcontext(self._client(self._given))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self._url, retryReads=False, retryWrites=False, maxPoolSize=self.traffic.concurrency
        )
        try:
            yield self._client(mongo)
        finally:
            await mongo.close()

    def _client(self, mongo: AsyncMongoClient[dict[str, Any]]) -> Client:
        database, name = mongo[self._database], self._bucket
        bucket = AsyncGridFSBucket(database, name, chunk_size_bytes=self._piece_nbytes)
        return Client(mongo, bucket, database[f"{name}.keys"], database[f"{name}.files"], database[f"{name}.chunks"])

    async def _made(self, operation: str, key: str, attempt: Callable[[Attempt], Awaitable[T]], nbytes: int = 0) -> T:
        async def connected(number: Attempt) -> T:
            while True:
                try:
                    return await attempt(number)
                except failures.AutoReconnect as error:
                    if not was_waiting(error):
                        raise
                await asyncio.sleep(CONNECTING)  # the next request waits until the server answers again, if that takes longer

        return await super()._made(operation, key, connected, nbytes)

    async def _get(self, client: Client, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:  # noqa: ARG002
        before: object = None
        while (entry := await client.keys.find_one({"_id": key})) is not None:
            start, stop = span_of(request, entry["length"])
            if start >= stop:
                return Fetched(b"", tag_of(entry))
            attempt.expect(stop - start)
            try:
                async with await client.bucket.open_download_stream(entry["file"]) as file:
                    await file.seek(start)
                    value = await file.read(stop - start)
            except (NoFile, CorruptGridFile) as error:
                # it has been replaced and deleted meanwhile
                if entry["file"] == before:
                    raise StoreError(f"the file of {key!r} in {self!r} is damaged ({error}): GridFS has lost pieces of it") from error
                before = entry["file"]
                continue
            if len(value) != stop - start:
                raise TransientStoreError(f"{len(value)} of {stop - start} bytes of {key!r} in {self!r} have come")
            return Fetched(value, tag_of(entry))
        return None

    async def _find(self, client: Client, key: str) -> Found | None:
        entry = await client.keys.find_one({"_id": key})
        return None if entry is None else Found(entry["length"], tag_of(entry))

    async def _set(self, client: Client, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        data = value if isinstance(value, bytes) else bytes(value)
        file = ObjectId()
        entry = {"_id": key, "file": file, "length": len(data), "marks": list(marks)}
        try:
            await client.bucket.upload_from_stream_with_id(file, key, data)
        except BaseException:
            await self._tidy(client, [file])
            raise
        try:
            old = await self._replace(client, entry, condition)
        except (PreconditionFailedError, failures.DuplicateKeyError):
            # after any other failure the document may name the new file
            await self._tidy(client, [file])
            raise
        if old is not None:
            await self._tidy(client, [old["file"]])

    async def _replace(self, client: Client, entry: dict[str, Any], condition: Condition | None) -> dict[str, Any] | None:
        """Make ``entry`` the document of its key, and answer the one before it."""
        key = entry["_id"]
        if condition is None:
            return await client.keys.find_one_and_replace({"_id": key}, entry, upsert=True)
        if condition.name is None:
            try:
                await client.keys.insert_one(entry)
            except failures.DuplicateKeyError:
                raise self._changed(key) from None
            return None
        old = await client.keys.find_one_and_replace({"_id": key, "file": condition.name}, entry)
        if old is None:
            raise self._changed(key)
        return old

    async def _erase(self, client: Client, key: str, condition: Condition | None) -> None:
        only = {} if condition is None else {"file": condition.name}
        old = await client.keys.find_one_and_delete({"_id": key, **only})
        if old is not None:
            await self._tidy(client, [old["file"]])
        elif condition is not None:
            raise self._changed(key)

    async def _erase_many(self, client: Client, keys: list[str]) -> None:
        # with their files, so that what others write meanwhile stays
        entries = await client.keys.find({"_id": {"$in": keys}}, {"file": 1}).to_list()
        files = [entry["file"] for entry in entries]
        await client.keys.delete_many({"_id": {"$in": keys}, "file": {"$in": files}})
        await self._tidy(client, files)

    def _changed(self, key: str) -> PreconditionFailedError:
        return PreconditionFailedError(f"{key!r} in {self!r} is not what it was", key=key[len(self.root) :])

    async def _tidy(self, client: Client, files: Collection[ObjectId]) -> None:
        """Delete files that no key names; what cannot be deleted now is for ``sweep``."""
        with suppress(failures.PyMongoError, TimeoutError):
            async with asyncio.timeout(TIDYING):
                await self._delete(client, files)

    async def _delete(self, client: Client, files: Collection[ObjectId]) -> None:
        await client.files.delete_many({"_id": {"$in": list(files)}})
        await client.pieces.delete_many({"files_id": {"$in": list(files)}})

    async def sweep(self, *, older_than: float = 86400.0) -> int:
        """How many files were deleted that belong to no key, all over the bucket; younger ones may be of a write that is going on.

        Raises:
            StoreError: The store is read-only, or it did not work.

        """
        self._expect_writable("")

        async def attempt(_: Attempt) -> int:
            client = await self._clients.get()
            # the number of a file tells when it was made
            youngest = ObjectId.from_datetime(datetime.now(UTC) - timedelta(seconds=older_than))
            count = 0
            for collection, field in ((client.files, "_id"), (client.pieces, "files_id")):
                orphans = [each async for each in self._orphans(client, collection, field, youngest)]
                for start in range(0, len(orphans), BATCH):
                    await self._delete(client, orphans[start : start + BATCH])
                count += len(orphans)
            return count

        return await self._made("sweep", "", attempt)

    async def _orphans(self, client: Client, collection: AsyncCollection[dict[str, Any]], field: str, youngest: ObjectId) -> Any:
        named = {entry["file"] async for entry in client.keys.find({"file": {"$lt": youngest}}, {"file": 1})}
        last = None
        async for document in collection.find({field: {"$lt": youngest}}, {field: 1}).sort(field):
            if document[field] not in named and document[field] != last:
                last = document[field]
                yield last

    async def _page(self, client: Client, prefix: str, token: Any | None, *, deep: bool) -> Page:
        wanted = dict([token or ("$gte", prefix)]) | ({"$lt": after(prefix)} if prefix else {})
        most = BATCH if deep else LEVEL_BATCH
        entries = await client.keys.find({"_id": wanted}, {"_id": 1}).sort("_id").limit(most).to_list()
        keys = [entry["_id"] for entry in entries]
        if deep:
            return Page(keys, (), ("$gt", keys[-1]) if len(keys) == most else None)
        names = list(dict.fromkeys(level_of(key, prefix) for key in keys))
        following = None
        if len(keys) == most:
            following = ("$gte", after(names[-1])) if names[-1][-1] == "/" else ("$gt", names[-1])
        return Page([each for each in names if each[-1] != "/"], [each for each in names if each[-1] == "/"], following)

    def _classified(self, error: Exception, key: str) -> Exception | None:
        what = f"the request for {key!r} in {self!r} failed"
        match error:
            case failures.ConnectionFailure() | failures.ExecutionTimeout() | failures.DuplicateKeyError() | failures.CursorNotFound():
                # two that write a key for the first time at the same moment are duplicates
                return TransientStoreError(f"{what} ({type(error).__name__})", key=key)
            case failures.OperationFailure(code=code) if code in NOT_ALLOWED:
                return StoreError(f"{what}: the server does not allow it; look at user, password and authSource", key=key)
            case failures.OperationFailure(code=code) if code in TOO_MANY:
                return ThrottledError(f"{what}: the server asks to slow down", key=key)
            case failures.OperationFailure(code=code) if code in LOST_RACE or error.has_error_label("RetryableWriteError"):
                return TransientStoreError(f"{what} ({type(error).__name__} {code})", key=key)
            case failures.PyMongoError():
                return StoreError(f"{what}: {error}", key=key)
        return None


def place_of(url: str) -> tuple[str, str | None]:
    """The hosts and the database of a connection string; ``StoreError`` where it is none."""
    scheme, separator, rest = url.partition("://")
    if scheme not in {"mongodb", "mongodb+srv"} or not separator:
        raise StoreError(f"{redacted(url)!r} is not a connection string of MongoDB: mongodb://host/database")
    try:
        # the other scheme would be looked up in the network
        parts = parse_uri(f"mongodb://{rest}", warn=False)
    except (failures.PyMongoError, ValueError, TypeError) as error:
        # whose message may show a password
        raise StoreError(f"{redacted(url)!r} is not a connection string of MongoDB ({type(error).__name__})") from None
    if parts["collection"]:
        raise StoreError(f"{redacted(url)!r} names a collection; a bucket is named by '?bucket=…'")
    hosts = ",".join(host if port is None or scheme != "mongodb" else f"{host}:{port}" for host, port in parts["nodelist"])
    return hosts, parts["database"]


def was_waiting(error: failures.AutoReconnect) -> bool:
    """Whether a request was still to have a connection.

    When one connection breaks, the driver closes all, and refuses whoever waits for one. That is no failure of theirs: nothing has been
    sent for them. What breaks in the network has an ``OSError`` for its cause.
    """
    return isinstance(error.__cause__, failures.AutoReconnect)


def span_of(request: Request, nbytes: int) -> tuple[int, int]:
    """Where a part of a value of ``nbytes`` bytes begins and ends."""
    if request is None:
        return 0, nbytes
    if isinstance(request, ByteRange):
        return request.start, nbytes if request.stop is None else min(request.stop, nbytes)
    return max(0, nbytes - request.nbytes), nbytes


def tag_of(entry: dict[str, Any]) -> Tag:
    """The state of a value: no two writes have a file in common."""
    return Tag(entry["file"], tuple(entry["marks"]))


def level_of(key: str, prefix: str) -> str:
    """What a listing of the level below ``prefix`` shows for ``key``: the key, or the prefix that it lies below."""
    end = key.find("/", len(prefix))
    return key if end < 0 else key[: end + 1]


def open_url(url: str, **options: Any) -> GridFSStore:
    """The store at ``mongodb://[user:password@]host[:port]/database[?bucket=…&prefix=…]``; the rest of the query is MongoDB's.

    ``options`` are those of ``GridFSStore``.
    """
    query = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    own = dict(item for item in query if item[0] in {"bucket", "prefix"})
    others = urlencode([item for item in query if item[0] not in own])
    return GridFSStore(
        url.partition("?")[0] + (f"?{others}" if others else ""),
        bucket=own.get("bucket", "fs"),
        prefix=own.get("prefix", ""),
        **options,
    )
