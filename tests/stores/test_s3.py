"""S3Store: what it refuses, what it makes of odd answers, and the suite for stores on moto."""

# ruff: noqa: E402 - what is tested needs packages that are looked for first

from __future__ import annotations

import asyncio
import logging
import pickle
from contextlib import asynccontextmanager
from email.utils import formatdate
from threading import Lock, Thread
from time import time
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest

sdk = pytest.importorskip("azarr.stores.s3", reason='needs aiobotocore: pip install "azarr[s3]"', exc_type=ImportError)

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores import s3_account, s3_uploads
from azarr.stores.http_exchange import IGNORED_RANGE_NBYTES
from azarr.stores.network_reader import Tag
from azarr.stores.s3 import S3Store, open_url
from azarr.stores.s3_failures import error_of, failure_of
from azarr.testing import StoreSuite
from azarr.types import ByteRange, Suffix

SECRET = "wJalrXUtnFEMI-very-secret"


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


# --- names and options


@pytest.mark.parametrize(
    ("url", "bucket", "root"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/a/b.zarr", "my.bucket-1", "a/b.zarr/"),
        ("s3://bucket/a/b/", "bucket", "a/b/"),
        ("s3://bucket/50%25/%3F%23", "bucket", "50%/?#/"),
    ],
)
def test_urls(url, bucket, root):
    store = open_url(url)
    assert (store.account.bucket, store.root) == (bucket, root)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///key",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://bucket/a/%2e%2e/b",
        "s3://bucket/a%5Cb",
        "s3://bucket/a%00b",
        "s3://bucket/key?versionId=1",
        "s3://bucket/key#part",
        f"s3://AKIDEXAMPLE:{SECRET}@bucket/key",
        "https://bucket.s3.amazonaws.com/key",
        "s3://buck et/key",
        "s3://directory--use1-az4--x-s3/key",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(StoreError) as refusal:
        open_url(url)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        {"bucket": ".."},
        {"bucket": "a/b"},
        {"bucket": "x" * 300},
        {"access_key": "AKID"},
        {"secret_key": SECRET},
        {"session_token": SECRET},
        {"anonymous": True, "access_key": "AKID", "secret_key": SECRET},
        {"anonymous": True, "profile": "p"},
        {"profile": "p", "access_key": "AKID", "secret_key": SECRET},
        {"addressing_style": "sideways"},
        {"endpoint_url": "127.0.0.1:9000"},
        {"endpoint_url": "ftp://host"},
        {"endpoint_url": f"https://user:{SECRET}@host"},
        {"endpoint_url": f"https://host?X-Amz-Signature={SECRET}"},
        {"endpoint_url": "https://host:port"},
        {"prefix": "a/../b"},
    ],
)
def test_options_that_are_refused(options):
    with pytest.raises(StoreError) as refusal:
        S3Store(**{"bucket": "bucket", **options})
    assert SECRET not in str(refusal.value)


def test_what_is_shown_has_no_secrets():
    store = S3Store("bucket", "a", access_key="AKID", secret_key=SECRET, session_token=f"token-{SECRET}", endpoint_url="http://127.0.0.1:9")
    assert repr(store) == "<S3Store s3://bucket/a at http://127.0.0.1:9>"
    for text in (repr(store.account), f"{store.account}", repr(store.identity)):
        assert SECRET not in text
        assert "AKID" not in text


def test_the_same_values_have_the_same_identity():
    one = S3Store("bucket", "a", region="eu-west-1")
    assert one.identity == S3Store("bucket", "/a/", anonymous=True).identity
    assert len({one.identity, S3Store("bucket").identity, S3Store("other", "a").identity, local("x").identity}) == 4


def test_pickled_copies():
    store = local("http://127.0.0.1:9", prefix="a", read_only=True, concurrency=3, encryption="AES256", requester_pays=True)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.account, copy.root, copy.read_only, copy.traffic.concurrency) == (store.account, "a/", True, 3)
    assert copy._storing == store._storing == {"x-amz-request-payer": "requester", "x-amz-server-side-encryption": "AES256"}
    with pytest.raises(TypeError, match="session was passed in"):
        pickle.dumps(S3Store("bucket", session=object()))


def local(url="http://127.0.0.1:9", **options):
    """A store of the server at ``url`` of this machine."""
    url = url if url.startswith("http") else f"http://{url}"
    known = {"region": "us-east-1", "access_key": "AKIDEXAMPLE", "secret_key": SECRET, "retry": NO_RETRIES}
    return S3Store("bucket", **{"endpoint_url": url, **known, **options})


# --- what answers mean


def page(code, message="why", **tags):
    more = "".join(f"<{name}>{value}</{name}>" for name, value in tags.items())
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'.encode()


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (400, "ExpiredToken", StoreError, "have expired"),
        (400, "RequestTimeout", TransientStoreError, ""),
        (400, "IncompleteBody", TransientStoreError, ""),
        (400, "BadDigest", TransientStoreError, ""),
        (400, "SlowDown", ThrottledError, "slow down"),
        (400, "InvalidArgument", StoreError, "why"),
        (401, "", StoreError, "access is denied"),
        (403, "AccessDenied", StoreError, "s3:ListBucket"),
        (403, "", StoreError, "anonymous=True"),
        (403, "InvalidAccessKeyId", StoreError, "access key"),
        (403, "SignatureDoesNotMatch", StoreError, "secret key"),
        (403, "RequestTimeTooSkewed", StoreError, "clock"),
        (404, "NoSuchBucket", StoreError, "no such bucket"),
        (404, "", StoreError, "endpoint_url"),
        (405, "MethodNotAllowed", StoreError, ""),
        (408, "", TransientStoreError, ""),
        (409, "ConditionalRequestConflict", TransientStoreError, ""),
        (409, "OperationAborted", TransientStoreError, ""),
        (409, "BucketNotEmpty", StoreError, ""),
        (412, "PreconditionFailed", PreconditionFailedError, "read it again"),
        (412, "", PreconditionFailedError, "read it again"),
        (429, "", ThrottledError, ""),
        (301, "PermanentRedirect", StoreError, "region"),
        (302, "", StoreError, "redirects"),
        (500, "InternalError", TransientStoreError, ""),
        (502, "", TransientStoreError, ""),
        (503, "SlowDown", ThrottledError, ""),
        (503, "ServiceUnavailable", TransientStoreError, ""),
        (503, "", TransientStoreError, ""),
        (504, "", TransientStoreError, ""),
        (521, "", TransientStoreError, ""),
        (501, "NotImplemented", StoreError, "conditional=False"),
        (505, "", StoreError, ""),
        (200, "InternalError", TransientStoreError, ""),
    ],
)
def test_what_answers_mean(status, code, kind, hint):
    error = error_of(failure_of(status, None, {}, page(code) if code else b""), "the/key", "<S3Store>")
    assert type(error) is kind
    assert "the/key" in str(error)
    assert hint in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(time() - 100, usegmt=True)}, 0),
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"x-amz-retry-after": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_how_long_to_wait(headers, seconds):
    assert failure_of(503, None, headers, b"").retry_after == seconds
    error = error_of(failure_of(503, None, headers, page("SlowDown")), "k", "")
    assert error.retry_after == seconds
    if seconds is not None:
        assert isinstance(error_of(failure_of(503, None, headers, b""), "k", ""), ThrottledError)


def test_until_when_to_wait():
    until = formatdate(time() + 10_000, usegmt=True)
    assert 9_000 < failure_of(503, None, {"retry-after": until}, b"").retry_after <= 10_000


def test_an_answer_without_a_body_that_asks_to_slow_down():
    assert isinstance(error_of(failure_of(503, "Slow Down", {}, b""), "k", ""), ThrottledError)


def test_how_wrong_the_clock_is():
    failure = failure_of(403, None, {"date": formatdate(time() + 3600, usegmt=True)}, page("RequestTimeTooSkewed"))
    assert "+3600 s" in str(error_of(failure, "k", "")) or "+3599 s" in str(error_of(failure, "k", ""))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 1000,
        b"<Code>" * 10_000,
        b"<Code>" + b"A" * 10**7 + b"</Code>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><Error><Code>&b;</Code></Error>',
        b"<Error><Code>No<Such/>Key</Code></Error>",
        "<Error><Code>NöSuchKey</Code></Error>".encode(),
    ],
    ids=range(7),
)
def test_pages_that_are_no_errors_of_s3(body):
    failure = failure_of(404, None, {}, body)
    assert failure.code != "NoSuchKey"
    assert len(failure.code) <= 64
    assert isinstance(error_of(failure, "k", ""), StoreError)


@pytest.mark.parametrize(
    "message",
    [
        f"AWS4-HMAC-SHA256 Credential=AKID/2026/x, Signature={SECRET}",
        f"the token {SECRET} is wrong",
        f"x=0123456789abcdef{SECRET}",
        f"line\n{SECRET}",
    ],
)
def test_what_may_repeat_a_request_is_not_repeated(message):
    assert SECRET not in str(error_of(failure_of(400, None, {}, page("InvalidRequest", message)), "k", ""))


def test_long_messages_are_cut():
    assert len(str(error_of(failure_of(400, None, {}, page("InvalidRequest", "why " * 100)), "k", ""))) < 300


# --- a server that answers what it is told to


class Asked(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """Answers each request with what ``script`` makes of it: bytes; nothing closes the connection."""

    def __init__(self, script):
        self.script, self.asked = script, []

    async def __call__(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")[:-2]
                method, target, _ = first.split()
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, target, headers, body)
                self.asked.append(asked)
                answer = self.script(asked)
                if answer is None:
                    break
                writer.write(answer)
                if b"\r\nConnection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answer(status=200, body=b"", reason="", *, length=None, **headers):
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def in_turn(*answers):
    """A script that gives these answers, the last one again and again."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@asynccontextmanager
async def scripted(script, **options):
    """A server, and a store of it."""
    serving = Scripted(script)
    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with local(**{"endpoint_url": url, **options}) as store:
            yield store, serving
    finally:
        server.close()
        await server.wait_closed()


NO_KEY = answer(404, page("NoSuchKey"))
NO_BUCKET = answer(404, page("NoSuchBucket"))
VALUE = bytes(range(256))
RETRIES = RetryPolicy(first_delay=0.001)


async def test_missing_is_what_s3_says_is_missing():
    async with scripted(lambda asked: NO_KEY if asked.method == "GET" else answer(404)) as (store, server):
        assert await store.get("a") is None
        assert await store.get("a", Suffix(3)) is None
        assert await store.size("a") is None
        assert await store.get("a", ByteRange(3, 3)) is None
    assert [asked.target for asked in server.asked] == ["/bucket/a"] * 6


@pytest.mark.parametrize(
    "not_found", [NO_BUCKET, answer(404), answer(404, b"<html>not here</html>"), answer(403, page("AccessDenied"))], ids=range(4)
)
async def test_nothing_else_is_missing(not_found):
    async with scripted(lambda asked: not_found if asked.method == "GET" else answer(404)) as (store, _):
        for request in (store.get("a"), store.get("a", ByteRange(0, 5)), store.size("a"), store.get_versioned("a")):
            with pytest.raises(StoreError) as failure:
                await request
            assert type(failure.value) is StoreError
            assert failure.value.key == "a"


@pytest.mark.parametrize("request_", [ByteRange(5, 10), ByteRange(250, 999), ByteRange(7), Suffix(9), Suffix(999)], ids=repr)
async def test_servers_that_do_not_know_ranges(request_):
    async with scripted(lambda _: answer(200, VALUE)) as (store, _):
        part = VALUE[-request_.nbytes :] if isinstance(request_, Suffix) else VALUE[request_.start : request_.stop]
        assert bytes(await store.get("k", request_)) == part


async def test_servers_that_do_not_know_ranges_and_have_large_values():
    async with scripted(lambda _: answer(200, VALUE, length=IGNORED_RANGE_NBYTES + 300)) as (store, _):
        with pytest.raises(StoreError, match="ignores ranges"):
            await store.get("k", Suffix(10))


async def test_parts_that_are_too_large():
    chunks = b"".join(b"100\r\n" + VALUE + b"\r\n" for _ in range(10))
    endless = b"HTTP/1.1 206 x\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 5-9/256\r\n\r\n" + chunks
    for odd in (answer(206, VALUE, Content_Range="bytes 5-9/256"), endless):
        async with scripted(lambda _, odd=odd: odd) as (store, _):
            with pytest.raises(StoreError, match="more than the 5 bytes"):
                await store.get("k", ByteRange(5, 10))


@pytest.mark.parametrize(
    "odd",
    [
        answer(206, VALUE[5:8], length=5, Content_Range="bytes 5-9/256", Connection="close"),
        answer(206, VALUE[:5], Content_Range="bytes 0-4/256"),
        answer(206, VALUE[:5]),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 2000 OK\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01 what\r\n\r\nConnection: close\r\n\r\n",
        None,
    ],
    ids=range(8),
)
async def test_what_is_no_whole_answer_is_asked_for_again(odd):
    good = answer(206, VALUE[5:10], Content_Range="bytes 5-9/256")
    async with scripted(in_turn(odd, odd, odd, odd, good), retry=RETRIES) as (store, server):
        assert await store.get("k", ByteRange(5, 10)) == VALUE[5:10]
        assert len(server.asked) == 5
    async with scripted(lambda _: odd) as (store, _):
        with pytest.raises(TransientStoreError) as failure:
            await store.get("k", ByteRange(5, 10))
    assert_no_secrets(failure.value)


def assert_no_secrets(error):
    """Nothing of a signature in an error, nor in those it comes from."""
    while error is not None:
        for text in (str(error), repr(error), repr(error.args)):
            assert SECRET not in text
            assert "AKIDEXAMPLE" not in text
            assert "Signature" not in text
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


async def test_values_that_grow_while_they_are_found_empty():
    """The version has to be that of the value that was read."""
    too_far, head = answer(416, page("InvalidRange")), answer(200, ETag='"2"', length=10)
    async with scripted(lambda asked: head if asked.method == "HEAD" else too_far) as (store, _):
        assert await store.get_versioned("k", ByteRange(10, 20)) == (b"", Tag('"2"'))
        with pytest.raises(TransientStoreError, match="while it was read"):
            await store.get_versioned("k", ByteRange(9, 20))
        with pytest.raises(TransientStoreError, match="while it was read"):
            await store.get_versioned("k", Suffix(5))
        assert await store.get("k", ByteRange(9, 20)) == b""


async def test_without_an_etag_there_are_no_versions():
    async with scripted(lambda _: answer(200, VALUE)) as (store, _):
        assert await store.get("k") == VALUE
        with pytest.raises(StoreError, match="ETag"):
            await store.get_versioned("k")


async def test_without_an_etag_values_are_read_all_the_same():
    whole = answer(200, VALUE)
    async with scripted(lambda asked: whole.removesuffix(VALUE) if asked.method == "HEAD" else whole, conditional=False) as (store, _):
        assert await store.get_stamped("k") == (VALUE, None)
        assert await store.size("k") == 256


async def test_redirects_are_not_followed():
    other = Scripted(lambda _: answer(200, b"stolen"))
    elsewhere = await asyncio.start_server(other, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    for status in (301, 302, 303, 307, 308):
        moved = answer(status, Location=f"http://127.0.0.1:{port}/bucket/k?X-Amz-Signature=abc", x_amz_bucket_region="us-east-1")
        async with scripted(lambda _, moved=moved: moved) as (store, server):
            for request in (store.get("k"), store.set("k", b"v"), store.size("k"), store.erase("k")):
                with pytest.raises(StoreError) as failure:
                    await request
                assert "Signature" not in str(failure.value)
            with pytest.raises(StoreError):
                await anext(store.list_prefix())
            assert {asked.headers["host"] for asked in server.asked} == {store.account.endpoint_url.removeprefix("http://")}
    assert other.asked == []
    elsewhere.close()
    await elsewhere.wait_closed()


async def test_the_region_that_the_server_tells_is_used():
    def script(asked):
        if "/eu-north-1/" in asked.headers["authorization"]:
            return answer(200, VALUE)
        if asked.target == "/bucket/header":
            return answer(301, page("PermanentRedirect"), x_amz_bucket_region="eu-north-1")
        return answer(400, page("AuthorizationHeaderMalformed", "the region is wrong", Region="eu-north-1"))

    for key in ("header", "body"):
        async with scripted(script) as (store, server):
            assert await asyncio.gather(*(store.get(key) for _ in range(4))) == [VALUE] * 4
            await store.get(key)
            assert sum("/us-east-1/" in asked.headers["authorization"] for asked in server.asked) <= 4


async def test_a_region_that_is_wrong_again_and_again():
    regions = iter(f"eu-west-{number}" for number in range(100))
    async with scripted(lambda _: answer(400, page("AuthorizationHeaderMalformed", Region=next(regions)))) as (store, server):
        with pytest.raises(StoreError, match="pass its region"):
            await store.get("k")
        assert len(server.asked) == 3


@pytest.mark.parametrize("region", ["evil.example.org/", "x" * 100, "A B"])
async def test_what_is_no_region_is_not_used(region):
    async with scripted(lambda _: answer(400, page("AuthorizationHeaderMalformed"), x_amz_bucket_region=region)) as (store, server):
        with pytest.raises(StoreError, match="pass its region"):
            await store.get("k")
        assert len(server.asked) == 1


def write_credentials(tmp_path, secret):
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id=AKID{secret}\naws_secret_access_key={SECRET}\n")


async def test_credentials_that_have_expired_are_looked_for_again(tmp_path):
    def script(asked):
        return answer(200, VALUE) if "AKIDnew" in asked.headers["authorization"] else answer(400, page("ExpiredToken"))

    write_credentials(tmp_path, "old")
    async with scripted(script, access_key=None, secret_key=None) as (store, server):
        with pytest.raises(StoreError, match="have expired"):
            await store.get("k")
        assert len(server.asked) == 2
        with pytest.raises(StoreError, match="have expired"):
            await store.get("k")
        assert len(server.asked) == 3
    async with scripted(script, access_key=None, secret_key=None) as (store, server):
        await store.aclose()
    write_credentials(tmp_path, "old")
    async with scripted(script, access_key=None, secret_key=None) as (store, server):
        script_of_then = server.script

        def renewed(asked):
            write_credentials(tmp_path, "new")
            return script_of_then(asked)

        server.script = renewed
        assert await store.get("k") == VALUE
        assert len(server.asked) == 2


async def test_credentials_that_were_given_are_not_replaced():
    async with scripted(lambda _: answer(400, page("ExpiredToken"))) as (store, server):
        with pytest.raises(StoreError, match="have expired"):
            await store.get("k")
        assert len(server.asked) == 1


async def test_no_credentials():
    async with scripted(lambda _: NO_KEY, access_key=None, secret_key=None) as (store, _):
        with pytest.raises(StoreError, match="anonymous=True"):
            await store.get("k")
    async with scripted(lambda _: NO_KEY, access_key=None, secret_key=None, profile="nobody") as (store, _):
        with pytest.raises(StoreError, match="nobody"):
            await store.get("k")


async def test_anonymous_requests_are_not_signed():
    async with scripted(lambda _: answer(200, VALUE), anonymous=True, access_key=None, secret_key=None) as (store, server):
        assert await store.get("k") == VALUE
        await store.set("k", VALUE)
    assert not any(name == "authorization" or name.startswith("x-amz-") for asked in server.asked for name in asked.headers)


async def test_what_is_sent():
    options = {"requester_pays": True, "encryption": "aws:kms", "kms_key": "key", "storage_class": "STANDARD_IA", "session_token": "lent"}
    async with scripted(lambda _: answer(200, ETag='"1"'), **options) as (store, server):
        await store.set("k", b"value")
        await store.get("ä b")
    put, get = server.asked
    assert (put.method, put.target, put.body) == ("PUT", "/bucket/k", b"value")
    assert put.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert put.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key"
    assert put.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert put.headers["x-amz-content-sha256"] == "cd42404d52ad55ccfa9aca4adc828aa5800ad9d385a0671fbcbf724118320619"
    assert get.target == "/bucket/%C3%A4%20b"
    assert get.headers["accept-encoding"] == "identity"
    for asked in (put, get):
        assert asked.headers["x-amz-request-payer"] == "requester"
        assert asked.headers["x-amz-security-token"] == "lent"


async def test_large_bodies_are_sent_whole():
    value = VALUE * 2**13
    async with scripted(lambda _: answer(200)) as (store, server):
        await store.set("k", value)
        await store.set("k", memoryview(value).cast("B", (2**13, 256)))
    assert [asked.body == value for asked in server.asked] == [True, True]


async def test_values_are_what_is_stored_compressed_or_not():
    async with scripted(lambda _: answer(200, VALUE, Content_Encoding="gzip")) as (store, _):
        assert await store.get("k") == VALUE


# --- who asks, and how


async def test_the_profile_that_is_named(tmp_path):
    (tmp_path / "credentials").write_text(f"[other]\naws_access_key_id=AKIDother\naws_secret_access_key={SECRET}\n")
    async with scripted(lambda _: answer(200, VALUE), access_key=None, secret_key=None, profile="other") as (store, server):
        assert await store.get("k") == VALUE
    assert "Credential=AKIDother/" in server.asked[0].headers["authorization"]


async def test_the_endpoint_and_the_region_of_the_environment(monkeypatch):
    async with scripted(lambda _: answer(200, VALUE)) as (store, server):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.account.endpoint_url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        async with local(endpoint_url=None, region=None) as found:
            assert await found.get("k") == VALUE
    assert server.asked[0].target == "/bucket/k"
    assert "/eu-central-1/s3/" in server.asked[0].headers["authorization"]


async def test_a_session_that_is_passed_in():
    session = pytest.importorskip("aiobotocore.session").AioSession()
    session.set_credentials("AKIDpassed", SECRET)
    async with scripted(lambda _: answer(200, VALUE), access_key=None, secret_key=None, session=session) as (store, server):
        assert await store.get("k") == VALUE
    assert "Credential=AKIDpassed/" in server.asked[0].headers["authorization"]


async def elsewhere(request):
    """What ``request`` comes to on an event loop of its own."""
    return await asyncio.to_thread(asyncio.run, request)


@pytest.fixture
def opened(monkeypatch):
    """The clients of aiobotocore that have been opened."""
    clients, create = [], s3_account.AioSession.create_client

    def count(self, *args, **options):
        clients.append(args)
        return create(self, *args, **options)

    monkeypatch.setattr(s3_account.AioSession, "create_client", count)
    return clients


WHO = {
    "nobody": {"anonymous": True, "access_key": None, "secret_key": None},
    "given": {},
    "found": {"access_key": None, "secret_key": None},
}


@pytest.mark.parametrize("who", WHO)
async def test_what_was_found_serves_the_loops_that_come_after(who, opened, tmp_path):
    write_credentials(tmp_path, "found")

    def script(asked):
        return listing("k") if "list-type" in asked.target else answer(200, VALUE)

    async def keys():
        return [key async for key in store.list_prefix()] + [key async for key in store.list_prefix()]

    async with scripted(script, **WHO[who]) as (store, server):
        for _ in range(3):
            assert await elsewhere(store.get("k")) == VALUE
            await elsewhere(store.set("k", VALUE))
        assert len(opened) == 1
        assert await elsewhere(keys()) == ["k", "k"]
        assert len(opened) == 2  # which lists are asked of
        assert await elsewhere(pickle.loads(pickle.dumps(store)).get("k")) == VALUE
        assert len(opened) == 3
    signed = {asked.headers.get("authorization", "").partition("/")[0] for asked in server.asked}
    names = {"nobody": "", "given": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE", "found": "AWS4-HMAC-SHA256 Credential=AKIDfound"}
    assert signed == {names[who]}


async def test_what_was_found_long_ago_is_looked_for_again(opened, tmp_path, monkeypatch):
    write_credentials(tmp_path, "old")
    async with scripted(lambda _: answer(200, VALUE), **WHO["found"]) as (store, server):
        await elsewhere(store.get("k"))
        write_credentials(tmp_path, "new")
        await elsewhere(store.get("k"))
        monkeypatch.setattr(s3_account, "LOOKUP_SECONDS", 0)
        store._lookups.note(store._lookups.recall())
        await elsewhere(store.get("k"))
    assert ["AKIDnew" in asked.headers["authorization"] for asked in server.asked] == [False, False, True]
    assert len(opened) == 2


async def test_credentials_that_are_renewed_belong_to_one_loop(opened, monkeypatch):
    class Lent(s3_account.AioCredentials):
        """As aiobotocore's, which hold a lock of the loop."""

    async def lent(_):
        return Lent("AKIDlent", SECRET, "token")

    monkeypatch.setattr(s3_account.AioSession, "get_credentials", lent)
    async with scripted(lambda _: answer(200, VALUE), **WHO["found"]) as (store, _):
        for _ in range(2):
            assert await elsewhere(store.get("k")) == VALUE
    assert len(opened) == 2


async def test_the_region_that_the_server_told_is_remembered(opened):
    def script(asked):
        if "list-type" in asked.target:
            return listing("k")
        if "/eu-north-1/" in asked.headers["authorization"]:
            return answer(200, VALUE)
        return answer(301, page("PermanentRedirect"), x_amz_bucket_region="eu-north-1")

    async def keys():
        return [key async for key in store.list_prefix()]

    async with scripted(script) as (store, server):
        for _ in range(2):
            assert await elsewhere(store.get("k")) == VALUE
        assert await elsewhere(keys()) == ["k"]
    assert ["/eu-north-1/" in asked.headers["authorization"] for asked in server.asked] == [False, True, True, True]
    assert len(opened) == 3


async def test_a_store_that_is_closed_opens_no_client(opened):
    async with scripted(lambda _: answer(200, VALUE)) as (store, _):
        await store.get("k")
        requests = store._connect()
        async with requests:
            pass
        with pytest.raises(StoreError, match="was closed"):
            await requests.sdk()
    assert len(opened) == 1


async def test_absent_values_are_cheap(server):
    """S3 sends errors in chunks."""
    error = page("NoSuchKey")
    server.answer = lambda asked: b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(error), error)
    async with local(server.url) as store:
        for _ in range(5):
            assert await store.get("k") is None
    assert (server.connections, len(server.asked)) == (1, 5)


async def test_the_certificates_of_the_environment(certificate, server_tls, monkeypatch):
    serving = Scripted(lambda asked: answer(200, VALUE if asked.method == "GET" else b"", length=len(VALUE), ETag='"1"'))
    server = await asyncio.start_server(serving, "127.0.0.1", 0, ssl=server_tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with local(url) as store:
            for request in (None, ByteRange(0, 0)):  # one by a connection for values, the other by aiohttp
                with pytest.raises(StoreError, match="AWS_CA_BUNDLE") as refusal:
                    await store.get("k", request)
                assert type(refusal.value) is StoreError
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        async with local(url) as store:
            assert await store.get("k") == VALUE
            assert (await store.get_versioned("k", ByteRange(0, 0))).version.name == '"1"'
    finally:
        server.close()
    assert [asked.method for asked in serving.asked] == ["GET", "HEAD"]


async def test_the_proxy_of_the_environment(monkeypatch):
    """Which has to see all requests, those of aiobotocore as well."""
    async with scripted(lambda asked: listing("a") if "list-type" in asked.target else answer(200, VALUE)) as (store, server):
        monkeypatch.setenv("HTTP_PROXY", store.account.endpoint_url)
        monkeypatch.setenv("http_proxy", store.account.endpoint_url)
        async with local("http://s3.invalid") as behind:
            assert await behind.get("k") == VALUE
            assert [key async for key in behind.list_prefix()] == ["a"]
    assert server.asked[0].target == "http://s3.invalid/bucket/k"
    assert server.asked[1].target.startswith("http://s3.invalid/bucket?")


@pytest.mark.parametrize(
    ("options", "origin", "path", "region"),
    [
        ({"region": "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com", "/", "eu-west-1"),
        ({"region": "us-east-1"}, "https://bucket.s3.amazonaws.com", "/", "us-east-1"),
        ({"region": "eu-west-1", "addressing_style": "path"}, "https://s3.eu-west-1.amazonaws.com", "/bucket/", "eu-west-1"),
        ({"region": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn", "/", "cn-north-1"),
        ({"region": "eu-west-1", "bucket": "dotted.bucket"}, "https://s3.eu-west-1.amazonaws.com", "/dotted.bucket/", "eu-west-1"),
        ({"endpoint_url": "https://minio.example.org:443/base/"}, "https://minio.example.org", "/base/bucket/", "us-east-1"),
        ({"endpoint_url": "http://[::1]:9000"}, "http://[::1]:9000", "/bucket/", "us-east-1"),
        (
            {"endpoint_url": "https://minio.example.org", "addressing_style": "virtual"},
            "https://bucket.minio.example.org",
            "/",
            "us-east-1",
        ),
        (
            {"bucket": "arn:aws:s3:us-west-2:123456789012:accesspoint/mine"},
            "https://mine-123456789012.s3-accesspoint.us-west-2.amazonaws.com",
            "/",
            "us-west-2",
        ),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("anonymous", [True, False])
async def test_where_values_are(options, origin, path, region, anonymous):
    who = {"anonymous": True} if anonymous else {"access_key": "AKID", "secret_key": SECRET}
    async with S3Store(**{"bucket": "bucket", "region": "us-east-1", **options, **who}) as store:
        address = (await store._clients.get()).access.address
    assert (address.origin, address.path, address.host) == (origin, path, origin.split("//")[1])
    if not anonymous:
        assert (address.region, address.service) == (region, "s3")


# --- conditional writes


@pytest.mark.parametrize(
    "refusal",
    [answer(412, page("PreconditionFailed")), answer(404, page("NoSuchKey"))],
    ids=["failed", "absent"],
)
async def test_conditional_writes_that_lost(refusal):
    async with scripted(lambda asked: answer(200, ETag='"2"') if asked.method == "HEAD" else refusal) as (store, server):
        with pytest.raises(PreconditionFailedError):
            await store.set_if("k", b"v", Tag('"1"', ("a", "b")))
    asked = server.asked[0]
    assert asked.headers["if-match"] == '"1"'
    assert asked.headers["x-amz-meta-azarr-marks"].split(",")[1:] == ["a", "b"]


async def test_conditional_writes_that_met_another_are_tried_again():
    busy = answer(409, page("ConditionalRequestConflict"))
    async with scripted(in_turn(busy, busy, answer(200)), retry=RETRIES) as (store, server):
        await store.set_if("k", b"v", None)
    assert [asked.headers["if-none-match"] for asked in server.asked] == ["*"] * 3


async def test_conditional_writes_are_not_sent_again_behind_ones_back():
    """On a connection that was used before and breaks, aiohttp sends requests again: the first may have been successful."""
    async with scripted(lambda asked: None if asked.method == "PUT" else answer(200, VALUE, ETag='"1"')) as (store, server):
        await store.get("k")
        with pytest.raises(TransientStoreError):
            await store.set_if("k", b"v", None)
        assert [asked.method for asked in server.asked] == ["GET", "PUT"]
        await store.get("k")
        with pytest.raises(TransientStoreError):
            await store.set("k", b"v")  # where it does no harm
        assert [asked.method for asked in server.asked] == ["GET", "PUT", "GET", "PUT", "PUT"]


async def test_a_write_whose_answer_was_lost_knows_its_mark():
    stored = {}

    def script(asked):
        if asked.method == "HEAD":
            return answer(200, ETag='"2"', x_amz_meta_azarr_marks=stored["marks"])
        if stored:
            return answer(412)
        stored["marks"] = asked.headers["x-amz-meta-azarr-marks"]
        return None

    async with scripted(script, retry=RETRIES) as (store, server):
        await store.set_if("k", b"v", None)
    assert [asked.method for asked in server.asked] == ["PUT", "PUT", "HEAD"]


async def test_erasures_look_before():
    async with scripted(lambda asked: answer(200, ETag='"2"') if asked.method == "HEAD" else answer(204)) as (store, server):
        with pytest.raises(PreconditionFailedError):
            await store.erase_if("k", Tag('"1"'))
        await store.erase_if("k", Tag('"2"'))
    assert [asked.method for asked in server.asked] == ["HEAD", "HEAD", "DELETE"]
    assert server.asked[-1].headers["if-match"] == '"2"'


async def test_without_conditional_writes():
    async with scripted(lambda _: answer(200), conditional=False) as (store, server):
        assert not store.conditional
        with pytest.raises(StoreError, match="conditional=False"):
            await store.set_if("k", b"v", None)
    assert server.asked == []


async def test_servers_that_ignore_conditions_are_found_out():
    async with scripted(lambda _: answer(200)) as (store, server):
        assert not await store.check_conditional_writes()
    assert server.asked[-1].method == "DELETE"

    def heeding(*refused):
        """A server that heeds these headers."""
        return lambda asked: answer(412 if asked.headers.keys() & refused and asked.body != b"1" else 200, ETag='"1"')

    async with scripted(heeding("if-none-match")) as (store, _):
        assert not await store.check_conditional_writes()
    async with scripted(heeding("if-match")) as (store, _):
        assert not await store.check_conditional_writes()
    async with scripted(heeding("if-match", "if-none-match")) as (store, _):
        assert await store.check_conditional_writes()


# --- lists


def listing(*keys, prefixes=(), token=None):
    contents = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
    commons = "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in prefixes)
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return answer(200, f"<ListBucketResult><EncodingType>url</EncodingType>{contents}{commons}{more}</ListBucketResult>".encode())


async def test_lists_in_parts():
    async with scripted(in_turn(listing("r/a%20b", token="t/1"), listing("r/c")), prefix="r") as (store, server):
        assert [key async for key in store.list_prefix()] == ["a b", "c"]
    assert "continuation-token=t%2F1" in server.asked[1].target


async def test_keys_that_were_not_asked_for():
    script = in_turn(listing("r/a", "other/b", "", "r/../c", "r/d/"))
    async with scripted(script, prefix="r") as (store, _):
        assert [key async for key in store.list_prefix()] == ["a"]
    async with scripted(in_turn(listing("r/a", "x", prefixes=["r/p/", "q/"])), prefix="r") as (store, _):
        assert await store.list_dir() == (("a",), ("p/",)) or (await store.list_dir()).prefixes == ("p/",)


async def test_keys_that_were_not_asked_for_are_not_erased():
    async with scripted(in_turn(listing("other/b", "r/a"), answer(204)), prefix="r") as (store, server):
        await store.erase_prefix("")
    assert [(asked.method, asked.target) for asked in server.asked[1:]] == [("DELETE", "/bucket/r/a")]


async def test_lists_without_an_end():
    async with scripted(lambda _: listing("a", token="again")) as (store, server):
        with pytest.raises(StoreError, match="again and again"):
            [key async for key in store.list_prefix()]
        assert len(server.asked) == 2


async def test_lists_that_are_cut():
    broken = answer(200, b"<x/>", length=900, Connection="close")
    for odd in (answer(200, b"<ListBucketResult><Contents>"), answer(503, page("SlowDown")), broken):
        async with scripted(in_turn(odd, listing("a")), retry=RETRIES) as (store, _):
            assert [key async for key in store.list_prefix()] == ["a"]


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", StoreError), ("InternalError", TransientStoreError)])
async def test_errors_in_answers_to_erasures_of_many(code, kind):
    errors = f"<DeleteResult><Error><Key>a</Key><Code>{code}</Code><Message>why</Message></Error></DeleteResult>".encode()
    async with scripted(in_turn(listing("a", "b"), answer(200, errors))) as (store, _):
        with pytest.raises(kind, match=code) as failure:
            await store.erase_prefix("")
        assert type(failure.value) is kind


# --- limits and repetition


async def test_throttling_is_counted_and_waited_for():
    async with scripted(in_turn(answer(503, page("SlowDown"), Retry_After="0"), answer(429), answer(200, VALUE)), retry=RETRIES) as (
        store,
        _,
    ):
        assert await store.get("k") == VALUE
        assert (store.stats.throttled, store.stats.retries) == (2, 2)


async def test_all_kinds_of_requests_are_made_again():
    failing = True

    def script(asked):
        nonlocal failing
        failing = not failing
        if not failing:
            return answer(500, page("InternalError"))
        if asked.method == "GET" and "list-type" in asked.target:
            return listing("k", "l")
        if asked.method == "POST":
            return answer(200, b"<DeleteResult/>")
        return answer(200, VALUE if asked.method == "GET" else b"", ETag='"1"')

    async with scripted(script, retry=RETRIES) as (store, _):
        assert await store.get("k") == VALUE
        await store.set("k", VALUE)
        await store.set_if("k", VALUE, None)
        assert await store.size("k") == 0
        await store.erase("k")
        assert [key async for key in store.list_prefix()] == ["k", "l"]
        await store.erase_prefix("")
        assert store.stats.retries == 8


async def test_a_server_that_does_not_answer():
    async with scripted(lambda _: b"", retry=RetryPolicy(attempts=1, attempt_timeout=0.05)) as (store, _):
        await store._clients.get()
        with pytest.raises(TransientStoreError, match="no answer"):
            await store.get("k")


# --- moto


@pytest.fixture(scope="module")
def moto():
    moto = pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[s3]' flask flask-cors")
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = moto.DomainDispatcherApplication(moto.create_backend_app)
    turn = Lock()

    def one_at_a_time(environ, start_response):
        """moto looks at the condition of a write and carries it out in two steps, and reads values that it frees."""
        with turn:
            return app(environ, start_response)

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=moto.MotoRequestHandler)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def bucket(moto):
    urlopen(Request(f"{moto}/moto-api/reset", method="POST"), timeout=20).close()
    urlopen(Request(f"{moto}/bucket", method="PUT", headers={"Authorization": "AWS AKIDEXAMPLE:x"}), timeout=20).close()
    return "bucket"


@pytest.fixture
async def bucket_store(moto, bucket):
    async with local(moto, prefix="pre/fix", retry=RETRIES) as store:
        yield store


class TestS3Store(StoreSuite):
    @pytest.fixture
    async def store(self, bucket_store):
        return bucket_store


async def test_conditions_are_heeded(bucket_store):
    assert await bucket_store.check_conditional_writes()
    assert [key async for key in bucket_store.list_prefix()] == []


async def test_more_keys_than_one_request_lists_or_erases(bucket_store):
    await asyncio.gather(*(bucket_store.set(f"{number}", b"") for number in range(1200)))
    await bucket_store.set("keep/1", b"")
    assert len([key async for key in bucket_store.list_prefix()]) == 1201
    await bucket_store.erase_prefix("")
    assert [key async for key in bucket_store.list_prefix()] == []


@pytest.fixture
def small_parts(monkeypatch):
    """Uploads in parts of 5 MiB, the smallest that S3 takes, from 6 MiB on."""
    monkeypatch.setattr(sdk, "WHOLE_NBYTES", 6 * 2**20)
    monkeypatch.setattr(s3_uploads, "PART_NBYTES", 5 * 2**20)
    return bytes(range(256)) * (11 * 2**12)


async def unfinished(store):
    client = await store._clients.get()
    answer = await (await client.sdk()).list_multipart_uploads(Bucket="bucket")
    return len(answer.get("Uploads", ()))


async def test_large_values_go_in_parts(bucket_store, small_parts):
    await bucket_store.set("k", small_parts)
    assert await bucket_store.get("k") == small_parts
    found = await bucket_store.get_versioned("k", ByteRange(0, 1))
    assert found.version.name.endswith('-3"')  # of so many parts
    with pytest.raises(PreconditionFailedError):
        await bucket_store.set_if("k", small_parts, None)
    await bucket_store.set_if("k", small_parts, found.version)
    assert len((await bucket_store.get_versioned("k")).version.marks) == 2
    assert await unfinished(bucket_store) == 0


async def test_what_is_left_of_an_upload_that_fails_is_cleaned_away(bucket_store, small_parts, monkeypatch):
    await bucket_store.set("k", b"before")
    client = await bucket_store._clients.get()
    send = client.send

    async def failing(ask, *options):
        if "partNumber=2" in ask.query:
            raise StoreError("no more")
        return await send(ask, *options)

    monkeypatch.setattr(client, "send", failing)
    with pytest.raises(StoreError, match="no more"):
        await bucket_store.set("k", small_parts)
    monkeypatch.undo()
    assert await unfinished(bucket_store) == 0
    assert await bucket_store.get("k") == b"before"


async def test_what_is_left_of_an_upload_that_is_cancelled_is_cleaned_away(bucket_store, small_parts, monkeypatch):
    client, begun, never = await bucket_store._clients.get(), asyncio.Event(), asyncio.Event()

    async def stuck(*args, **options):
        begun.set()
        await never.wait()

    monkeypatch.setattr(client, "send", stuck)
    task = asyncio.create_task(bucket_store.set("k", small_parts))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert await unfinished(bucket_store) == 0
    assert await bucket_store.get("k") is None
