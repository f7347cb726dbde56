"""Values in a Redis database, or in one of the servers that speak its protocol."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final, Unpack
from urllib.parse import parse_qs, unquote

import redis.asyncio
import redis.exceptions as failures
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.stores.base import Request
from azarr.stores.network import Condition, NetworkOptions, NetworkStore, Page
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.stores.sorted_keys import after
from azarr.stores.traffic import Attempt
from azarr.stores.url_parts import redacted, split_url
from azarr.types import Buffer, ByteRange, Suffix

__all__ = ["RedisStore", "open_url"]

VALUE_NBYTES: Final = 512 * 2**20
"""What a value may take; Redis takes no more unless its ``proto-max-bulk-len`` says so."""

# No key has two slashes in a row, so these are never the names of values.
KEYS: Final = "//azarr/keys"
STATES: Final = "//azarr/states"
MARK: Final = "//azarr/mark/"

MARKED: Final = 600
"""Seconds for which it is known of a conditional write that it was done: longer than it may be retried."""

BATCH: Final = 1000
"""Keys that a listing fetches at once, and that are erased at once."""

# KEYS: the value, the sorted set of keys, the hash of states, the mark of this write. ARGV: what the state has to be, empty where there
# must be none, the new value and state, and the seconds that the mark lives. A value that somebody else has stored is in the state "?".
_UNLESS_CHANGED: Final = """
local there = redis.call('EXISTS', KEYS[1]) == 1
local state = there and (redis.call('HGET', KEYS[3], KEYS[1]) or '?') or ''
if state ~= ARGV[1] then return 0 end
"""
SET_IF: Final = f"""{_UNLESS_CHANGED}
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, KEYS[1])
redis.call('HSET', KEYS[3], KEYS[1], ARGV[3])
redis.call('SET', KEYS[4], '', 'EX', ARGV[4])
return 1
"""
ERASE_IF: Final = f"""{_UNLESS_CHANGED}
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], KEYS[1])
redis.call('HDEL', KEYS[3], KEYS[1])
return 1
"""

# KEYS: the sorted set of keys. ARGV: the first and the last that are wanted, the bytes of the prefix, how many at most.
LIST_LEVEL: Final = """
local from, found = ARGV[1], {}
while #found < tonumber(ARGV[4]) do
    local key = redis.call('ZRANGEBYLEX', KEYS[1], from, ARGV[2], 'LIMIT', 0, 1)[1]
    if not key then return {found, ''} end
    local slash = string.find(key, '/', tonumber(ARGV[3]) + 1, true)
    table.insert(found, slash and string.sub(key, 1, slash) or key)
    from = slash and '[' .. string.sub(key, 1, slash - 1) .. '0' or '(' .. key
end
return {found, from}
"""

Client = redis.asyncio.Redis


class RedisStore(NetworkStore[Client]):
    """Values in a Redis database, each a string under its own key, ``prefix/key``.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, or ``rediss://`` for TLS.
        prefix: What all keys begin with; nothing by default.
        username: Who asks, where the URL does not say so.
        password: Their password, where the URL does not have it.
        ca_file: Certificates of authorities that the server's is checked with, besides those of the system.
        client: A client of the ``redis`` package instead of one that is made from ``url``, for use on one loop; it is not closed, and
            should not retry by itself.
        read_only, retry, concurrency, rate: As for all stores behind networks, see ``NetworkOptions``.

    The keys of a database are in a sorted set, ``//azarr/keys``, and the states that conditional writes go by in a hash,
    ``//azarr/states``; both change with a value in one transaction. So a listing costs what it lists, and two stores with different
    prefixes share it. A conditional write leaves a mark, ``//azarr/mark/…``, for ten minutes, by which a writer whose answer was lost
    learns that it was done. Values that other programs store are found, but not listed, and what they change goes unnoticed by
    conditional writes. Scripts and transactions use several keys, which a Redis Cluster does not allow.

    A value that Redis has evicted to make room is an error rather than an absent one; turn eviction off (``noeviction``). A value has
    512 MiB at most. What a finished write survives depends on how the server persists (``appendonly``).
    """

    erased_at_once = BATCH

    def __init__(
        self,
        url: str = "redis://localhost",
        *,
        prefix: str = "",
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        client: Client | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(root=prefix, **options)
        self._given = client
        parts = split_url(url)
        database = parts.path.strip("/") or "0"
        if parts.scheme not in {"redis", "rediss"} or parts.query or parts.fragment or not database.isdecimal():
            raise StoreError(f"{redacted(url)!r} is not the URL of a Redis database: redis://host:port/0, or rediss:// for TLS")
        self._tls = parts.scheme == "rediss"
        self._host, self._port, self._database = parts.hostname or "localhost", parts.port or 6379, int(database)
        self._username = username if parts.username in {None, ""} else unquote(parts.username or "")
        self._password = password if parts.password is None else unquote(parts.password)
        self._ca_file = ca_file

    def __repr__(self) -> str:
        scheme = "rediss" if self._tls else "redis"
        return f"RedisStore('{scheme}://{self._host}:{self._port}/{self._database}', prefix={self.root!r})"

    @property
    def identity(self) -> tuple[str, str, int, int, str]:
        """Equal for stores of the same values."""
        return "redis", self._host, self._port, self._database, self.root

    def _connect(self) -> AbstractAsyncContextManager[Client]:
        return self._connected() if self._given is None else nullcontext(self._given)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        client = Client(
            host=self._host,
            port=self._port,
            db=self._database,
            username=self._username,
            password=self._password,
            ssl=self._tls,
            ssl_ca_certs=self._ca_file,
            max_connections=self.traffic.concurrency,
            retry=Retry(NoBackoff(), 0),
            # the policy of retries says how long an attempt may take
            socket_timeout=None,
            socket_connect_timeout=None,
        )
        try:
            yield client
        finally:
            await client.aclose()

    async def _get(self, client: Client, key: str, request: Request, _: Attempt, *, tagged: bool) -> Fetched | None:
        if request is None and not tagged:
            value: Any = await client.get(key)
            if value is not None:
                return Fetched(value)
        async with client.pipeline(transaction=True) as pipeline:
            span = None if request is None else span_of(request)
            if request is None:
                pipeline.get(key)
            elif span is not None:
                pipeline.getrange(key, *span)
            pipeline.exists(key)
            pipeline.hget(STATES, key)
            *parts, there, state = await pipeline.execute()
        if not self._expect_there(key, there, state):
            return None
        return Fetched(parts[0] if parts else b"", tag_of(state))

    async def _find(self, client: Client, key: str) -> Found | None:
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.strlen(key)
            pipeline.exists(key)
            pipeline.hget(STATES, key)
            nbytes, there, state = await pipeline.execute()
        return Found(nbytes, tag_of(state)) if self._expect_there(key, there, state) else None

    def _expect_there(self, key: str, there: int, state: bytes | None) -> bool:
        """Whether the value is there; ``StoreError`` where it should be."""
        if not there and state is not None:
            raise StoreError(f"{self!r} has lost {key!r}, which was stored and not erased: Redis must not evict or expire values", key=key)
        return bool(there)

    async def _set(self, client: Client, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        data = value if isinstance(value, bytes) else bytes(value)
        if len(data) > VALUE_NBYTES:
            raise StoreError(f"{len(data)} bytes are too many for a value of Redis, which has {VALUE_NBYTES} at most: use smaller chunks")
        state = uuid.uuid4().hex
        if condition is not None:
            await self._only_if(client, SET_IF, condition, (key, KEYS, STATES, MARK + marks[0]), data, state, str(MARKED))
            return
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.set(key, data)
            pipeline.zadd(KEYS, {key: 0})
            pipeline.hset(STATES, key, state)
            await pipeline.execute()

    async def _erase(self, client: Client, key: str, condition: Condition | None) -> None:
        if condition is None:
            await self._erase_many(client, [key])
        else:
            await self._only_if(client, ERASE_IF, condition, (key, KEYS, STATES))

    async def _only_if(self, client: Client, script: str, condition: Condition, keys: tuple[str, ...], *args: bytes | str) -> None:
        answer: Any = client.eval(script, len(keys), *keys, "" if condition.name is None else str(condition.name), *args)
        if not await answer:
            raise PreconditionFailedError(f"{keys[0]!r} in {self!r} is not what it was", key=keys[0][len(self.root) :])

    async def _is_marked(self, client: Client, key: str, mark: str) -> bool:  # noqa: ARG002 - however many writes came after it
        return bool(await client.exists(MARK + mark))

    async def _erase_many(self, client: Client, keys: list[str]) -> None:
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.unlink(*keys)
            pipeline.zrem(KEYS, *keys)
            pipeline.hdel(STATES, *keys)
            await pipeline.execute()

    async def _page(self, client: Client, prefix: str, token: Any | None, *, deep: bool) -> Page:
        first, last = token or (f"[{prefix}" if prefix else "-"), f"({after(prefix)}" if prefix else "+"
        if deep:
            ranged: Any = await client.zrangebylex(KEYS, first, last, start=0, num=BATCH)
            keys = [key.decode() for key in ranged]
            return Page(keys, (), f"({keys[-1]}" if len(keys) == BATCH else None)
        answer: Any = client.eval(LIST_LEVEL, 1, KEYS, first, last, str(len(prefix.encode())), str(BATCH))
        found, following = await answer
        names = [each.decode() for each in found]
        return Page([each for each in names if each[-1] != "/"], [each for each in names if each[-1] == "/"], following.decode() or None)

    def _classified(self, error: Exception, key: str) -> Exception | None:
        what = f"the request for {key!r} in {self!r} failed"
        match error:
            case failures.AuthenticationError() | failures.AuthorizationError() | failures.NoPermissionError():
                return StoreError(f"{what}: the server does not allow it; look at user and password", key=key)
            case failures.OutOfMemoryError():
                return StoreError(f"{what}: the server has no memory left for it (maxmemory)", key=key)
            case failures.MaxConnectionsError():
                return ThrottledError(f"{what}: it has too many connections", key=key)
            case failures.ConnectionError() | failures.TimeoutError() | failures.ReadOnlyError() | failures.TryAgainError():
                # to be read-only is the state of a server between two that take each other's place
                return TransientStoreError(f"{what} ({type(error).__name__})", key=key)
            case failures.MovedError() | failures.ClusterCrossSlotError():
                return StoreError(
                    f"{what}: it belongs to a Redis Cluster, which cannot change a value and the list of keys together", key=key
                )
            case failures.RedisError():
                return StoreError(f"{what}: {error}", key=key)
        return None


def span_of(request: ByteRange | Suffix) -> tuple[int, int] | None:
    """The first and the last byte as Redis counts them; ``None`` where none is wanted."""
    if isinstance(request, Suffix):
        return (-request.nbytes, -1) if request.nbytes else None
    if request.stop is None:
        return request.start, -1
    return (request.start, request.stop - 1) if request.stop > request.start else None


def tag_of(state: bytes | None) -> Tag:
    """The state of a value that is there, which others may have stored."""
    return Tag((state or b"?").decode())


def open_url(url: str, **options: Any) -> RedisStore:
    """The store at ``redis://[user:password@]host[:port][/database][?prefix=…]``, or ``rediss://``.

    ``options`` are those of ``RedisStore``.
    """
    parts = split_url(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    if query.keys() - {"prefix"} or len(query.get("prefix", ())) > 1:
        raise StoreError(f"{redacted(url)!r}: the query of such a URL is '?prefix=…', and nothing else")
    return RedisStore(
        parts._replace(query="").geturl(),
        prefix=query.get("prefix", [""])[0],
        **options,
    )
