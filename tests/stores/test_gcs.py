"""Values in Google Cloud Storage, as a server that is scripted has them."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import traceback
from urllib.parse import parse_qs, unquote

import pytest
from crc32c import crc32c

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores import gcs
from azarr.stores.gcs import GCSStore, open_url
from azarr.stores.network_reader import Tag
from azarr.types import ByteRange, Listing, Suffix


def summed(value):
    return base64.b64encode(crc32c(value).to_bytes(4, "big")).decode()


@pytest.fixture
async def store(server):
    async with GCSStore("bucket", "root", endpoint=server.url, retry=NO_RETRIES) as store:
        yield store


def told(reply, **fields):
    return reply(200, json.dumps(fields).encode(), Content_Type="application/json")


# --- reading


async def test_what_is_asked_for(store, server, reply):
    server.script = [
        reply(200, b"value", x_goog_generation="7", x_goog_hash=f"md5=x,crc32c={summed(b'value')}"),
        reply(206, b"al", Content_Range="bytes 1-2/5", x_goog_generation="7", x_goog_hash=f"crc32c={summed(b'value')}"),
    ]
    assert await store.get("ä/#?%") == b"value"
    assert await store.get("k", ByteRange(1, 3)) == b"al"
    path, _, query = server.asked[0].target.partition("?")
    assert unquote(path.removeprefix("/storage/v1/b/bucket/o/")) == "root/ä/#?%"
    assert "/" not in path.removeprefix("/storage/v1/b/bucket/o/")
    assert query == "alt=media"
    assert server.asked[1].headers["range"] == "bytes=1-2"
    assert server.asked[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in server.asked[0].headers


async def test_a_value_that_has_changed_on_its_way(store, server, reply):
    server.script = [reply(200, b"valuf", x_goog_hash=f"crc32c={summed(b'value')}")]
    with pytest.raises(TransientStoreError, match="checksum"):
        await store.get("k")
    server.script = [reply(200, b"text", x_goog_hash="crc32c=AAAAAA==", x_goog_stored_content_encoding="gzip")]
    assert await store.get("k") == b"text"


async def test_versions_are_generations_with_their_marks(store, server, reply):
    server.script = [
        reply(200, b"one", x_goog_generation="1"),
        told(reply, size="5", generation="2", metadata={"azarr-marks": "x"}),
        reply(200, b"other", x_goog_generation="2"),
        told(reply, size="5", generation="2", metadata={"azarr-marks": "b,a"}),
    ]
    assert await store.get_versioned("k") == (b"other", Tag("2", ("b", "a")))
    server.answer = lambda asked: (
        reply(200, b"x", x_goog_generation="1") if "media" in asked.target else told(reply, size="1", generation="2")
    )
    with pytest.raises(TransientStoreError, match="changes faster"):
        await store.get_versioned("k")


async def test_whether_parts_are_of_one_value_is_told_by_one_request(store, server, reply):
    server.script = [reply(200, b"v", x_goog_generation="7"), reply(404), reply(200, b"v")]
    assert await store.get_stamped("k") == (b"v", "7")
    assert await store.get_stamped("k") == (None, None)
    assert await store.get_stamped("k") == (b"v", None)
    assert len(server.asked) == 3


async def test_missing_is_not_a_missing_bucket(store, server, reply):
    for work in (lambda: store.get("k"), lambda: store.size("k"), lambda: store.erase("k"), lambda: store.get("k", Suffix(0))):
        server.script = [reply(404, b'{"error": {"message": "No such object: bucket/root/k"}}')]
        assert await work() is None
        for text in (b"The specified bucket does not exist.", b"<Code>NoSuchBucket</Code>"):
            server.script = [reply(404, text)]
            with pytest.raises(StoreError, match="no bucket 'bucket'"):
                await work()
    server.script = [reply(404)]
    with pytest.raises(StoreError, match="404"):
        await store.set("k", b"")


async def test_416_is_not_believed_blindly(store, server, reply):
    for request in (ByteRange(3, 7), Suffix(3)):
        server.script = [reply(416), told(reply, size="5", generation="1")]
        with pytest.raises(TransientStoreError, match="denies"):
            await store.get("k", request)
        server.script = [reply(416), told(reply, size="0", generation="1")]
        assert await store.get("k", request) == b""
        server.script = [reply(416), reply(404)]
        assert await store.get("k", request) is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}", b'{"size": "x", "generation": "1"}', b'{"size": "1", "generation": "1", "metadata": 7}']
)
async def test_documents_that_are_none(store, server, reply, body):
    server.script = [reply(200, body)]
    with pytest.raises(TransientStoreError):
        await store.size("k")


@pytest.mark.parametrize("body", [b'{"items": [{}]}', b'{"items": 7}', b'{"items": [7]}', b"7"])
async def test_listings_that_are_none(store, server, reply, body):
    server.script = [reply(200, body)]
    with pytest.raises(TransientStoreError):
        await store.list_dir()


async def test_listings(store, server, reply):
    server.script = [
        told(reply, items=[{"name": "root/b"}, {"name": "root/"}, {"name": "elsewhere"}, {"name": "root/../x"}], nextPageToken="a/b=="),
        told(reply, prefixes=["root/c/", "root//"], nextPageToken=""),
    ]
    assert await store.list_dir() == Listing(("b",), ("c/",))
    first, second = (parse_qs(asked.target.partition("?")[2]) for asked in server.asked)
    assert (first["prefix"], first["delimiter"]) == (["root/"], ["/"])
    assert second["pageToken"] == ["a/b=="]
    server.script = [told(reply, items=[{"name": "root/b"}, {"name": "elsewhere"}, {"name": "rootless/x"}])]
    assert [key async for key in store.list_prefix()] == ["b"]


# --- writing


def parts_of(asked):
    """The document, the value and the query of an upload."""
    boundary = asked.headers["content-type"].partition("boundary=")[2].encode()
    _, about, value, end = asked.body.split(b"--" + boundary)
    assert end == b"--\r\n"
    about, value = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in (about, value))
    return json.loads(about), value, parse_qs(asked.target.partition("?")[2])


async def test_writing(store, server, reply):
    server.answer = lambda asked: told(reply, generation="1")
    await store.set("k", memoryview(b"a\r\n--b")[::1])
    await store.set_if("k", bytearray(b""), None)
    await store.set_if("k", b"v", Tag("7", ("older",)))
    (plain, value, query), (_, _, new), (changed, _, other) = (parts_of(asked) for asked in server.asked)
    assert plain == {"name": "root/k", "crc32c": summed(b"a\r\n--b")}
    assert value == b"a\r\n--b"
    assert "ifGenerationMatch" not in query
    assert new["ifGenerationMatch"] == ["0"]
    assert other["ifGenerationMatch"] == ["7"]
    assert changed["metadata"]["azarr-marks"].endswith(",older")


async def test_conditions_that_do_not_hold(store, server, reply):
    server.script = [reply(412), told(reply, size="1", generation="8", metadata={"azarr-marks": "others"})]
    with pytest.raises(PreconditionFailedError) as failure:
        await store.set_if("k", b"v", Tag("7"))
    assert failure.value.key == "k"
    for status in (404, 412):
        server.script = [reply(status), reply(404)]
        with pytest.raises(PreconditionFailedError):
            await store.erase_if("k", Tag("7"))
    assert server.asked[-1].method == "DELETE"
    assert server.asked[-1].target.endswith("?ifGenerationMatch=7")


async def test_a_delete_is_not_sent_twice(server, reply):
    """aiohttp would, where a connection that was idle is broken, and the second one would fail on account of the first."""
    server.script = [reply(204), None, reply(404), reply(404)]
    async with GCSStore("bucket", endpoint=server.url, retry=RetryPolicy(first_delay=0)) as store:
        await store.erase("other")
        await store.erase_if("k", Tag("7"))
    assert [asked.method for asked in server.asked] == ["DELETE", "DELETE", "DELETE", "GET"]


async def test_large_values_are_sent_in_pieces_and_go_on_where_they_broke_off(store, server, reply, monkeypatch):
    monkeypatch.setattr(gcs, "RESUMABLE_NBYTES", 4)
    monkeypatch.setattr(gcs, "PIECE_NBYTES", 4)
    server.script = [
        reply(200, Location=f"{server.url}/place?upload_id=SECRET"),
        reply(308, Range="bytes=0-3"),
        None,  # broken while the second piece was sent, of which half has arrived
        reply(308, Range="bytes=0-5"),
        reply(503),
        reply(308, Range="bytes=0-5"),
        reply(200, b"{}"),
    ]
    with pytest.raises(ThrottledError):
        await store.set_if("k", b"0123456789", None)
    server.asked.clear()
    server.script = [
        reply(200, Location=f"{server.url}/place?upload_id=SECRET"),
        reply(308, Range="bytes=0-3"),
        None,
        reply(308, Range="bytes=0-5"),
        None,
        reply(308),  # all is lost
        reply(308, Range="bytes=0-3"),
        reply(308, Range="bytes=0-7"),
        None,  # all has arrived, and only the answer is lost
        reply(200, b"{}"),
    ]
    await store.set_if("k", b"0123456789", None)
    spans = [asked.headers.get("content-range") for asked in server.asked[1:]]
    assert spans == [
        *["bytes 0-3/10", "bytes 4-7/10", "bytes */10", "bytes 6-9/10", "bytes */10", "bytes 0-3/10", "bytes 4-7/10", "bytes 8-9/10"],
        "bytes */10",
    ]
    assert [asked.body for asked in server.asked[1:]] == [b"0123", b"4567", b"", b"6789", b"", b"0123", b"4567", b"89", b""]
    about = json.loads(server.asked[0].body)
    assert about["crc32c"] == summed(b"0123456789")
    assert about["metadata"]["azarr-marks"]
    assert "ifGenerationMatch=0" in server.asked[0].target


async def test_large_values_that_get_nowhere(store, server, reply, monkeypatch):
    monkeypatch.setattr(gcs, "RESUMABLE_NBYTES", 4)
    begun = reply(200, Location=f"{server.url}/place?upload_id=SECRET")
    for script in ([reply(308)], [None, None], [reply(410)]):
        server.script = [begun, *script]
        with pytest.raises(StoreError) as failure:
            await store.set("k", b"0123456789")
        assert "SECRET" not in "".join(traceback.format_exception(failure.value))
    for headers in ({}, {"Location": "/place"}, {"Location": "http://127.0.0.1:9/elsewhere"}, {"Location": f"{server.url}0/"}):
        server.script = [reply(200, **headers)]
        with pytest.raises(StoreError, match="another server"):
            await store.set("k", b"0123456789")


# --- failures


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"", StoreError),
        (401, b"", StoreError),
        (403, b"SECRET", StoreError),
        (403, b'{"errors": [{"reason": "rateLimitExceeded"}]}', ThrottledError),
        (403, b'{"errors": [{"reason": "userRateLimitExceeded"}]}', ThrottledError),
        (408, b"", TransientStoreError),
        (429, b"", ThrottledError),
        (500, b"", TransientStoreError),
        (502, b"", TransientStoreError),
        (503, b"", ThrottledError),
        (504, b"", TransientStoreError),
        (302, b"", StoreError),
    ],
)
async def test_statuses(store, server, reply, status, body, kind):
    server.answer = lambda asked: reply(status, body)
    for work in (store.get("k"), store.size("k"), store.set("k", b""), store.erase("k"), store.list_dir(), store.erase_prefix("")):
        with pytest.raises(StoreError) as failure:
            await work
        assert type(failure.value) is kind
        assert "SECRET" not in str(failure.value)
        assert failure.value.key in {"k", ""}


# --- credentials


async def test_tokens(server, reply):
    async def token():
        return f"SECRET-{len(server.asked)}"

    server.answer = lambda asked: reply(404)
    async with GCSStore("bucket", endpoint=server.url, token=token, project="payer") as store:
        await store.get("k")
        await store.get("k")
        assert "SECRET" not in repr(store)
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer SECRET-0", "Bearer SECRET-1"]
    assert server.asked[0].headers["x-goog-user-project"] == "payer"


@pytest.fixture
def user(server, tmp_path):
    """The file that gcloud writes for a user, whose tokens come from the server."""
    file = tmp_path / "user.json"
    fields = {"client_id": "id", "client_secret": "SECRET", "refresh_token": "SECRET", "token_uri": f"{server.url}/token"}
    file.write_text(json.dumps({"type": "authorized_user", **fields}))
    return file


def issue(reply, seconds):
    issued = []

    def answer(asked):
        if asked.path != "/token":
            return reply(404)
        issued.append(asked)
        return told(reply, access_token=f"TOKEN-{len(issued)}", expires_in=seconds)

    return answer


async def test_a_token_is_fetched_once_for_all(server, reply, user):
    server.answer = issue(reply, 3600)
    async with GCSStore("bucket", endpoint=server.url, service_file=user) as store:
        await asyncio.gather(*(store.get(f"{number}") for number in range(20)))
    assert [asked.path for asked in server.asked].count("/token") == 1
    assert {asked.headers.get("authorization") for asked in server.asked} == {None, "Bearer TOKEN-1"}


async def test_a_token_is_renewed(server, reply, user, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
    server.answer = issue(reply, 0)
    async with GCSStore("bucket", endpoint=server.url, anonymous=False) as store:
        for _ in range(3):
            await store.get("k")
    assert [asked.headers.get("authorization") for asked in server.asked if asked.path != "/token"] == [
        "Bearer TOKEN-1",
        "Bearer TOKEN-2",
        "Bearer TOKEN-3",
    ]


async def test_tokens_that_cannot_be_had(server, reply, user):
    async with GCSStore("bucket", endpoint=server.url, service_file=user, retry=RetryPolicy(attempts=2, first_delay=0)) as store:
        for script, kind in (
            ([reply(400, b"SECRET")], StoreError),
            ([reply(503), None], TransientStoreError),
            ([reply(200, b"{}")], StoreError),
            ([reply(200, b"SECRET", Content_Type="text/plain")], StoreError),
        ):
            server.script = list(script)
            with pytest.raises(StoreError) as failure:
                await store.get("k")
            assert type(failure.value) is kind
            assert "SECRET" not in "".join(traceback.format_exception(failure.value))
            assert not server.script


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"type": "nobody"}', '{"type": "service_account", "client_email": "x", "private_key": "SECRET"}']
)
async def test_files_without_credentials(server, tmp_path, text):
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    async with GCSStore("bucket", endpoint=server.url, service_file=file, retry=NO_RETRIES) as store:
        with pytest.raises(StoreError, match="credentials") as failure:
            await store.get("k")
    assert "SECRET" not in "".join(traceback.format_exception(failure.value))


def test_credentials_or_none():
    assert GCSStore("bucket")._who.anonymous is False
    assert GCSStore("bucket", endpoint="http://localhost:4443")._who.anonymous is True
    assert GCSStore("bucket", endpoint="https://private.googleapis.com")._who.anonymous is False
    with pytest.raises(StoreError, match="anonymous"):
        GCSStore("bucket", token="x", anonymous=True)


def test_the_emulator_of_the_environment(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    assert GCSStore("bucket").identity == ("gcs", "http://localhost:4443", "bucket", "")
    assert GCSStore("bucket", endpoint="https://other/").identity[1] == "https://other"


# --- URLs


@pytest.mark.parametrize(
    ("url", "bucket", "root"),
    [
        ("gs://bucket", "bucket", ""),
        ("gs://bucket/", "bucket", ""),
        ("gcs://bucket/a/b/", "bucket", "a/b/"),
        ("gs://a.b-c_1/x y#1?", "a.b-c_1", "x y#1?/"),
    ],
)
def test_urls(url, bucket, root):
    store = open_url(url, concurrency=3)
    assert (store.bucket, store.root, store.traffic.concurrency) == (bucket, root, 3)
    copy = pickle.loads(pickle.dumps(store))
    assert (repr(copy), copy.identity) == (repr(store), store.identity)


@pytest.mark.parametrize(
    "url", ["gs://", "gs://x", "gs:///a", "gs://user@bucket/a", "s3://bucket/a", "gs://bucket/a//b", "gs://bucket/../b"]
)
def test_urls_that_are_none(url):
    with pytest.raises(StoreError):
        open_url(url)


@pytest.mark.parametrize("endpoint", ["ftp://x", "http://", "http://x/path", "http://x?y", "http://SECRET@x"])
def test_endpoints_that_are_none(endpoint):
    with pytest.raises(StoreError) as failure:
        GCSStore("bucket", endpoint=endpoint)
    assert "SECRET" not in str(failure.value)
