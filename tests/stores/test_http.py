"""Values of web servers, which answer what they like."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote

import pytest

import azarr
from azarr.errors import StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores import http_exchange
from azarr.stores.base import ConditionalStore, ListableStore, ReadableStore, WritableStore
from azarr.stores.http import URL, HTTPStore, open_url
from azarr.testing.values import ILLEGAL_KEYS, PARTS, UNICODE_KEYS, VALUE
from azarr.types import ByteRange, Suffix

QUICK = RetryPolicy(first_delay=0.001)


@pytest.fixture
async def store(server):
    async with HTTPStore(f"{server.url}/data", retry=NO_RETRIES) as store:
        yield store


@pytest.fixture
def web(server, reply):
    """Values by path, served as they should be."""
    values = {}

    def answer(asked):
        value = values.get(asked.path)
        if value is None:
            return reply(404, b"not here", head=asked.method == "HEAD")
        wanted = asked.headers.get("range", "").removeprefix("bytes=")
        first, _, last = wanted.partition("-")
        if wanted and first:
            start, stop = int(first), int(last or len(value)) + 1
        elif wanted:
            start, stop = max(0, len(value) - int(last)), len(value)
        else:
            return reply(200, value, head=asked.method == "HEAD", ETag='"1"')
        if start >= len(value):
            return reply(416, Content_Range=f"bytes */{len(value)}")
        part = value[start:stop]
        return reply(206, part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(value)}", ETag='"1"')

    server.answer = answer
    return values


def test_it_says_what_it_can_do():
    store = HTTPStore("http://host/x")
    assert isinstance(store, ReadableStore)
    assert not isinstance(store, WritableStore)
    assert not isinstance(store, ListableStore)
    assert not isinstance(store, ConditionalStore)
    assert store.read_only


@pytest.mark.parametrize(("byte_range", "part"), PARTS)
@pytest.mark.parametrize("value", [VALUE, b""], ids=["full", "empty"])
async def test_part_of_a_value(store, web, byte_range, part, value):
    web["/data/a/b"] = value
    assert await store.get("a/b", byte_range) == (part if value else b"")
    found = await store.get_versioned("a/b", byte_range)
    assert found.value == (part if value else b"")
    assert found.version.name == '"1"'


async def test_missing_keys(store, web, server, reply):
    for request in (None, ByteRange(0, 1), ByteRange(1, 1), Suffix(0), Suffix(3)):
        assert await store.get("x", request) is None
    assert await store.size("x") is None
    server.script = [reply(410)]
    assert await store.get("x") is None
    assert server.connections == 2  # one for values, one for all else


async def test_size(store, web):
    web["/data/k"] = VALUE
    assert await store.size("k") == 256


@pytest.mark.parametrize(
    "answers",
    [
        [{"status": 405}, {"status": 206, "body": b"x", "Content_Range": "bytes 0-0/256"}],
        [{"status": 501}, {"status": 200, "body": VALUE}],
        [{"length": False}, {"status": 206, "body": b"x", "Content_Range": "bytes 0-0/256"}],
    ],
    ids=["no head", "no head, no ranges", "no length"],
)
async def test_size_where_head_does_not_tell_it(store, server, reply, answers):
    server.script = [reply(**answers[0]) + (server.CLOSE if "length" in answers[0] else b""), reply(**answers[1])]
    assert await store.size("k") == 256
    server.script = [reply(405), reply(416)]
    assert await store.size("k") == 0
    server.script = [reply(405), reply(206, b"x", Content_Range="bytes 0-0/*")]
    with pytest.raises(StoreError, match="how large"):
        await store.size("k")
    server.script = [reply(405), reply(200, VALUE, length=False) + server.CLOSE]
    assert await store.size("k") == 256


# --- servers that ignore ranges


@pytest.mark.parametrize(("byte_range", "part"), PARTS)
@pytest.mark.parametrize("length", [True, False])
async def test_a_server_that_ignores_ranges(store, server, reply, byte_range, part, length):
    server.answer = lambda asked: (
        reply(200, VALUE, head=asked.method == "HEAD", length=length or asked.method == "HEAD") + (b"" if length else server.CLOSE)
    )
    assert await store.get("k", byte_range) == part


async def test_what_is_not_wanted_is_not_waited_for(store, server, reply):
    server.answer = lambda asked: reply(200, VALUE, length=10**12)
    assert await store.get("k", ByteRange(3, 7)) == VALUE[3:7]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("request_", [ByteRange(20_000, 20_001), Suffix(3)], ids=repr)
async def test_little_is_read_in_vain(store, server, reply, monkeypatch, request_, length):
    monkeypatch.setattr(http_exchange, "IGNORED_RANGE_NBYTES", 10_000)
    server.answer = lambda asked: reply(200, bytes(200_000), length=length) + (b"" if length else server.CLOSE)
    with pytest.raises(StoreError, match="ignores ranges"):
        await store.get("k", request_)


# --- answers that are none


@pytest.mark.parametrize(
    "content_range",
    ["bytes 4-7/256", "bytes 3-7/256", "bytes 3-6/*x", "", "items 3-6/256", "bytes 3-5/256", "bytes 3-6/6"],
)
async def test_another_range_than_the_one_that_was_asked_for(store, server, reply, content_range):
    server.script = [reply(206, b"abcd", Content_Range=content_range)]
    with pytest.raises(TransientStoreError, match="another range"):
        await store.get("k", ByteRange(3, 7))


@pytest.mark.parametrize(
    ("request_", "content_range"),
    [
        (ByteRange(3), "bytes 3-6/8"),
        (ByteRange(3, 9), "bytes 3-6/*"),
        (Suffix(4), "bytes 3-6/8"),
        (Suffix(5), "bytes 4-7/*"),
        (Suffix(5), "bytes 4-7/8"),
    ],
)
async def test_a_range_that_is_too_short(store, server, reply, request_, content_range):
    server.script = [reply(206, b"abcd", Content_Range=content_range)]
    with pytest.raises(TransientStoreError, match="another range"):
        await store.get("k", request_)


async def test_ranges_of_values_whose_size_is_not_told(store, server, reply):
    for request in (ByteRange(3, 7), ByteRange(3), Suffix(4)):
        server.script = [reply(206, b"abcd", Content_Range="bytes 3-6/*")]
        assert await store.get("k", request) == b"abcd"


async def test_parts_of_empty_values_that_servers_make_up(store, server, reply):
    for request in (ByteRange(0, 7), Suffix(4)):
        server.script = [reply(206, b"", Content_Range="bytes 0--1/0")]
        assert await store.get("k", request) == b""
        server.script = [reply(206, b"", Content_Range="bytes 0--1/10")]
        with pytest.raises(TransientStoreError, match="another range"):
            await store.get("k", request)


async def test_a_part_where_the_whole_was_asked_for(store, server, reply):
    server.script = [reply(206, b"abcd", Content_Range="bytes 0-3/8")]
    with pytest.raises(TransientStoreError, match="another range"):
        await store.get("k")


async def test_a_body_that_is_too_short(store, server, reply):
    for request in (None, ByteRange(0, 4), Suffix(4), ByteRange(2)):
        for status in (200, 206):
            if request is not None or status == 200:
                short = reply(status, b"abc", length=4, Content_Range="bytes 0-3/8") + server.CLOSE
                server.answer = lambda asked, short=short: short
                with pytest.raises(TransientStoreError):
                    await store.get("k", request)


async def test_chunked_bodies(store, server, reply):
    chunked = reply(200, length=False, Transfer_Encoding="chunked") + b"3\r\nabc\r\n2\r\nde\r\n"
    server.script = [chunked + b"0\r\n\r\n"]
    assert await store.get("k") == b"abcde"
    server.script = [chunked + server.CLOSE]
    with pytest.raises(TransientStoreError):
        await store.get("k")


async def test_an_encoded_body_is_no_value(store, server, reply):
    server.script = [reply(200, b"abc", Content_Encoding="gzip")]
    with pytest.raises(StoreError, match="encoded"):
        await store.get("k")
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 nonsense\r\n\r\n\0close", b"HTTP/1.1 200 OK\r\nContent-"], ids=["reset", "nonsense", "half"]
)
async def test_connections_that_break(store, server, answer):
    server.script = [answer if answer is None or answer.endswith(server.CLOSE) else answer + server.CLOSE] * 2
    with pytest.raises(TransientStoreError):
        await store.get("k")


async def test_nobody_there(server):
    async with HTTPStore("http://127.0.0.1:9/x?sig=SECRET", retry=NO_RETRIES) as store:
        with pytest.raises(TransientStoreError, match="127.0.0.1:9") as failure:
            await store.get("k")
    assert "SECRET" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"], ids=["long", "empty"])
async def test_hosts_whose_names_are_none(host):
    async with HTTPStore(f"http://{host}/data") as store:
        for asked in (store.get, store.size):
            with pytest.raises(StoreError, match="name of its host") as refusal:
                await asked("zarr.json")
            assert not isinstance(refusal.value, TransientStoreError)
            assert refusal.value.key == "zarr.json"


async def test_a_server_that_says_nothing_times_out(server, reply):
    async with HTTPStore(f"{server.url}/?sig=SECRET", retry=RetryPolicy(attempts=1, attempt_timeout=0.05)) as store:
        server.script = [reply(200, b"abc", length=100)]
        with pytest.raises(TransientStoreError, match="no answer") as failure:
            await store.get("k")
    assert "SECRET" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504])
async def test_statuses_that_may_pass(server, reply, status):
    async with HTTPStore(server.url, retry=QUICK) as store:
        server.script = [reply(status), reply(status, b"x" * 100_000), reply(200, b"value")]
        assert await store.get("k") == b"value"
        assert store.stats.retries == 2


@pytest.mark.parametrize("status", [400, 401, 403, 405, 418, 451, 501, 505, 204])
async def test_statuses_that_stay(store, server, reply, status):
    server.script = [reply(status)]
    with pytest.raises(StoreError, match=str(status)) as failure:
        await store.get("k")
    assert type(failure.value) is StoreError
    assert failure.value.key == "k"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("1e400", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("nan", None),
    ],
)
async def test_servers_that_ask_to_slow_down(store, server, reply, status, header, seconds):
    server.script = [reply(status, Retry_After=header)]
    with pytest.raises(ThrottledError) as failure:
        await store.get("k")
    assert failure.value.retry_after == seconds


async def test_servers_that_say_when_to_come_back(store, server, reply):
    server.script = [reply(503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))]
    with pytest.raises(ThrottledError) as failure:
        await store.get("k")
    assert 50 < failure.value.retry_after <= 60


async def test_403_is_not_missing_unless_one_says_so(server, reply):
    server.answer = lambda asked: reply(403)
    async with HTTPStore(server.url, missing_on_403=True, retry=NO_RETRIES) as store:
        assert await store.get("k") is None
        assert await store.size("k") is None


async def test_416_is_not_believed_blindly(store, server, reply):
    server.script = [reply(416), reply(200, VALUE, head=True)]
    with pytest.raises(TransientStoreError, match="denies"):
        await store.get("k", ByteRange(3, 7))
    server.script = [reply(416), reply(404)]
    assert await store.get("k", ByteRange(3, 7)) is None


async def test_servers_that_know_no_suffixes(store, server, reply):
    server.script = [reply(416), reply(200, VALUE, head=True), reply(206, VALUE[-16:], Content_Range="bytes 240-255/256")]
    assert await store.get("k", Suffix(16)) == VALUE[-16:]
    assert server.asked[-1].headers["range"] == "bytes=240-255"


async def test_connections_are_used_again(store, server, reply):
    for status in (404, 500, 403, 429):
        server.script = [reply(status, b"x" * 1000)]
        with contextlib.suppress(StoreError):
            await store.get("k")
    assert server.connections == 1


async def test_states_without_a_name_are_like_no_other(store, server, reply):
    server.answer = lambda asked: reply(200, b"v")
    assert (await store.get_versioned("k")).version != (await store.get_versioned("k")).version


@pytest.mark.parametrize(("tag", "stamp"), [('"1"', '"1"'), ('W/"1"', None), (None, None)])
async def test_only_strong_names_of_states_tell_that_two_parts_are_of_one(store, server, reply, tag, stamp):
    server.answer = lambda asked: reply(200, b"v", **({} if tag is None else {"ETag": tag}))
    assert await store.get_stamped("k") == (b"v", stamp)


async def test_shards_on_a_server_without_names_of_states(server, web):
    memory = azarr.MemoryStore()
    array = await azarr.create_array(memory, "x", shape=(12,), chunks=(3,), shards=(12,), dtype="i4")
    await array.write(range(12))
    web.update({f"/data/{key}": bytes(memory.get_blocking(key)) for key in [k async for k in memory.list_prefix()]})
    served = server.answer
    server.answer = lambda asked: served(asked).replace(b"ETag", b"X-Tag")
    async with HTTPStore(f"{server.url}/data", retry=NO_RETRIES) as store:
        array = await azarr.open_array(store, "x")
        assert (await array[2:5].read()).tolist() == [2, 3, 4]


# --- redirects


async def test_secrets_stay_with_their_server(server, start_server, reply):
    other = await start_server()
    other.answer = lambda asked: reply(200, b"value")
    server.script = [
        reply(302, Location=f"{server.url}/moved"),
        reply(307, Location=f"{other.url}/there?x=%2F"),
    ]
    async with HTTPStore(f"{server.url}/d?sig=S", headers={"X-Key": "S"}, auth=("user", "S"), retry=NO_RETRIES) as store:
        assert await store.get("k", ByteRange(0, 9)) == b"value"
    assert [asked.target for asked in server.asked] == ["/d/k?sig=S", "/moved"]
    assert [(a.headers["x-key"], a.headers["authorization"]) for a in server.asked] == [("S", "Basic dXNlcjpT")] * 2
    assert other.asked[0].target == "/there?x=%2F"
    assert other.asked[0].headers["range"] == "bytes=0-8"
    assert not {"x-key", "authorization"} & set(other.asked[0].headers)


async def test_secrets_do_not_come_back_by_a_detour(server, start_server, reply):
    other = await start_server()
    other.answer = lambda asked: reply(302, Location=f"{server.url}/back")
    server.script = [reply(302, Location=f"{other.url}/"), reply(200, b"value")]
    async with HTTPStore(server.url, headers={"X-Key": "S"}, retry=NO_RETRIES) as store:
        assert await store.get("k") == b"value"
    assert server.asked[0].headers["x-key"] == "S"
    assert not {"x-key"} & {*other.asked[0].headers, *server.asked[1].headers}


async def test_cookies_are_not_kept(store, server, reply):
    server.answer = lambda asked: reply(200, b"v", Set_Cookie="a=b")
    await store.get("k")
    await store.get("k")
    assert "cookie" not in server.asked[1].headers


async def test_endless_redirects(server, reply):
    server.answer = lambda asked: reply(301, Location="/x")
    async with HTTPStore(server.url, redirects=3, retry=NO_RETRIES) as store:
        with pytest.raises(StoreError, match="more than 3 times"):
            await store.get("k")
    assert len(server.asked) == 4


@pytest.mark.parametrize("headers", [{}, {"Location": "ftp://x/"}, {"Location": "file:///etc/passwd"}, {"Location": "http://[x"}], ids=str)
async def test_redirects_to_nowhere(store, server, reply, headers):
    server.script = [reply(302, **headers)]
    with pytest.raises(StoreError, match="nowhere"):
        await store.get("k")


async def test_redirects_that_give_up_encryption():
    headers = {"Location": "http://host/x"}
    store = HTTPStore("https://host/")
    with pytest.raises(StoreError, match="listen"):
        store._target(URL("https://host/k"), headers, "k")
    assert str(store._target(URL("http://host/k"), headers, "k")) == "http://host/x"


async def test_folders_are_no_values(store, server, reply):
    server.script = [reply(301, Location=f"{server.url}/data/a/")]
    with pytest.raises(StoreError, match="folder"):
        await store.get("a")


# --- URLs


@pytest.mark.parametrize("key", UNICODE_KEYS)
async def test_unusual_keys(server, web, key):
    async with HTTPStore(f"{server.url}/a%20b/c d?x=%2F&y=ä", retry=NO_RETRIES) as store:
        assert await store.get(key) is None
    path, _, query = server.asked[0].target.partition("?")
    assert unquote(path) == f"/a b/c d/{key}"
    assert unquote(query) == "x=/&y=ä"


@pytest.mark.parametrize("key", ILLEGAL_KEYS)
async def test_illegal_keys(store, server, key):
    for request in (store.get(key), store.size(key), store.get_versioned(key)):
        with pytest.raises(StoreError):
            await request
    assert not server.asked


@pytest.mark.parametrize("url", ["http://", "ftp://h/x", "h/x", "", "http://h/x#y", "http:///x"])
def test_urls_that_are_none(url):
    with pytest.raises(StoreError):
        HTTPStore(url)


@pytest.mark.parametrize("name", ["Range", "accept-encoding", "HOST"])
def test_headers_of_the_store_itself(name):
    with pytest.raises(StoreError, match="itself"):
        HTTPStore("http://h/", headers={name: "x"})


async def test_nothing_secret_is_shown(server, reply):
    url = server.url.replace("http://", "http://user:SECRET@")
    store = HTTPStore(f"{url}/p?sig=SECRET", headers={"X-Key": "SECRET"}, retry=RetryPolicy(attempts=2, first_delay=0))
    assert "SECRET" not in repr(store)
    assert "SECRET" not in repr(store.identity)
    bad = [
        reply(403, b"SECRET"),
        reply(302, Location="ftp://SECRET"),
        reply(302, Location="http://[SECRET"),
        b"HTTP/1.1 SECRET\r\n\r\n\0close",
        None,
        reply(200, b"abc", length=4) + server.CLOSE,
    ]
    async with store:
        for answer in bad:
            server.script = [answer] * 4
            with pytest.raises(StoreError) as failure:
                await store.get("k")
            assert "SECRET" not in "".join(traceback.format_exception(failure.value))
            server.script.clear()
    assert server.asked[0].headers["authorization"] == "Basic dXNlcjpTRUNSRVQ="


def test_identity():
    one, same = HTTPStore("http://h/x/"), open_url("http://h/x")
    assert one.identity == same.identity
    others = [HTTPStore("http://h/x?a=b"), HTTPStore("http://h/y"), HTTPStore("http://h/x", auth=("a", "b")), HTTPStore("https://h/x")]
    assert len({each.identity for each in [one, *others]}) == 5


def test_in_one_loop_after_another_and_unpickled(reply):
    async def serve(reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(reply(200, b"value"))

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        store = HTTPStore(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers={"X": "y"}, concurrency=3)
        loops = [asyncio.to_thread(asyncio.run, each.get("k")) for each in (store, store, pickle.loads(pickle.dumps(store)))]
        assert await asyncio.gather(*loops) == [b"value"] * 3
        await store.aclose()
        server.close()

    asyncio.run(main())


# --- azarr on it


async def test_arrays_and_groups_are_read_without_listing(server, web):
    memory = azarr.MemoryStore()
    group = await azarr.create_group(memory, "g")
    array = await group.create_array("x", shape=(10, 10), chunks=(3, 4), dtype="i4", fill_value=7)
    await array[:6].write(1)
    await group.consolidate()
    web.update({f"/data/{key}": bytes(memory.get_blocking(key)) for key in [k async for k in memory.list_prefix()]})
    async with HTTPStore(f"{server.url}/data") as store:
        group = await azarr.open_group(store, "g")
        assert [name async for name, _ in group.members()] == ["x"]
        values = await (await azarr.open_array(store, "g/x")).read()
        assert (values[:6] == 1).all()
        assert (values[6:] == 7).all()
        with pytest.raises(StoreError):
            await azarr.create_group(store, "new")
