"""Values in Azure Blob Storage, as a server that is scripted has them."""

from __future__ import annotations

import asyncio
import base64
import hmac
import pickle
import sys
import time
import traceback
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote

import pytest

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores import azure
from azarr.stores.azure import AzureStore, open_url
from azarr.stores.azure_credentials import Account, Asked, SharedKey, find_account
from azarr.stores.network_reader import Tag
from azarr.types import ByteRange, Listing, Suffix

ENVIRONMENT = ["CONNECTION_STRING", "ACCOUNT", "ACCOUNT_NAME", "KEY", "ACCOUNT_KEY", "SAS_TOKEN"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)


@pytest.fixture
async def store(server):
    async with AzureStore("box", "root", endpoint=server.url, anonymous=True, retry=NO_RETRIES) as store:
        yield store


MISSING = {"status": 404, "x_ms_error_code": "BlobNotFound"}


# --- reading


async def test_what_is_asked_for(store, server, reply):
    server.script = [reply(200, b"value", ETag='"1"'), reply(206, b"al", Content_Range="bytes 1-2/5", ETag='"1"')]
    assert await store.get("ä/#?%") == b"value"
    assert await store.get("k", ByteRange(1, 3)) == b"al"
    assert unquote(server.asked[0].target) == "/box/root/ä/#?%"
    assert server.asked[1].headers["range"] == "bytes=1-2"
    assert "authorization" not in server.asked[0].headers
    assert server.asked[0].headers["x-ms-version"]


async def test_states_and_their_marks(store, server, reply):
    server.script = [reply(200, b"v", ETag='"1"').replace(b"\r\n\r\n", b"\r\nx-ms-meta-azarr_marks: b,a\r\n\r\n"), reply(200, b"v")]
    assert await store.get_versioned("k") == (b"v", Tag('"1"', ("b", "a")))
    with pytest.raises(TransientStoreError, match="ETag"):
        await store.get_versioned("k")


async def test_missing_is_nothing_else_that_is_missing(store, server, reply):
    for work in (lambda: store.get("k"), lambda: store.size("k"), lambda: store.erase("k"), lambda: store.get("k", Suffix(1))):
        server.script = [reply(**MISSING)]
        assert await work() is None
        for code in ("ContainerNotFound", "ResourceNotFound", "AccountIsDisabled", ""):
            server.script = [reply(404, x_ms_error_code=code)]
            with pytest.raises(StoreError, match=f"{code}.*404"):
                await work()


async def test_suffixes_are_ranges_of_one_state(store, server, reply):
    server.script = [
        reply(200, head=True, length=5, ETag='"1"'),
        reply(412, x_ms_error_code="ConditionNotMet"),
        reply(200, head=True, length=6, ETag='"2"'),
        reply(206, b"ue", Content_Range="bytes 4-5/6", ETag='"2"'),
    ]
    assert await store.get("k", Suffix(2)) == b"ue"
    assert [(a.headers.get("range"), a.headers.get("if-match")) for a in server.asked] == [
        (None, None),
        ("bytes=3-4", '"1"'),
        (None, None),
        ("bytes=4-5", '"2"'),
    ]
    server.script = [reply(200, head=True, length=0, ETag='"1"')]
    assert await store.get("k", Suffix(2)) == b""
    server.script = [reply(200, head=True, length=5, ETag='"1"'), reply(412)] * 5
    with pytest.raises(TransientStoreError, match="changes faster"):
        await store.get("k", Suffix(2))


async def test_416_is_not_believed_blindly(store, server, reply):
    server.script = [reply(416, x_ms_error_code="InvalidRange"), reply(200, head=True, length=5, ETag='"1"')]
    with pytest.raises(TransientStoreError, match="denies"):
        await store.get("k", ByteRange(3, 7))
    server.script = [reply(416), reply(200, head=True, length=0, ETag='"1"')]
    assert await store.get("k", ByteRange(0, 7)) == b""


async def test_folders_are_no_values(store, server, reply):
    server.script = [reply(200, x_ms_resource_type="directory", ETag='"1"'), reply(200, x_ms_resource_type="directory", ETag='"1"')]
    assert await store.get("a") is None
    assert await store.size("a") is None


def listing(blobs="", prefixes="", marker=""):
    return f"<EnumerationResults><Blobs>{blobs}{prefixes}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>".encode()


async def test_listings(store, server, reply):
    blobs = "".join(
        f"<Blob><Name>{name}</Name><Properties/></Blob>" for name in ("root/b", "root/", "elsewhere", "root/../x", "root/a&amp;b")
    )
    blobs += '<Blob><Name Encoded="true">root/%EF%BF%BE</Name></Blob>'
    blobs += "<Blob><Name>root/folder</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>"
    blobs += "<Blob><Name>root/old</Name><Properties/><Metadata><hdi_isfolder>True</hdi_isfolder></Metadata></Blob>"
    server.script = [
        reply(200, listing(blobs, marker="a/b==")),
        reply(200, b"\xef\xbb\xbf" + listing(prefixes="<BlobPrefix><Name>root/c/</Name></BlobPrefix>")),
    ]
    assert await store.list_dir() == Listing(("a&b", "b", "\ufffe"), ("c/",))
    first, second = (parse_qs(asked.target.partition("?")[2]) for asked in server.asked)
    assert (first["prefix"], first["delimiter"], first["comp"], first["restype"]) == (["root/"], ["/"], ["list"], ["container"])
    assert second["marker"] == ["a/b=="]


@pytest.mark.parametrize(
    "body",
    [b"", b"<a/>", b"<a", b"<a><Blobs><Blob/></Blobs></a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a><Blobs/></a>', b"{}"],
)
async def test_listings_that_are_none(store, server, reply, body):
    server.script = [reply(200, body)]
    with pytest.raises(TransientStoreError, match="makes no sense"):
        await store.list_dir()


# --- writing


async def test_writing(store, server, reply):
    server.answer = lambda asked: reply(201, ETag='"2"')
    await store.set("k", memoryview(b"value")[::1])
    await store.set_if("k", bytearray(b""), None)
    await store.set_if("k", b"v", Tag('"1"', ("older",)))
    plain, new, changed = server.asked
    assert (plain.method, plain.body, plain.headers["x-ms-blob-type"]) == ("PUT", b"value", "BlockBlob")
    assert not {"if-match", "if-none-match"} & set(plain.headers)
    assert (new.headers["if-none-match"], new.headers["content-length"]) == ("*", "0")
    assert changed.headers["if-match"] == '"1"'
    assert changed.headers["x-ms-meta-azarr_marks"].endswith(",older")


@pytest.mark.parametrize(("status", "code"), [(412, "ConditionNotMet"), (409, "BlobAlreadyExists"), (412, "")])
async def test_conditions_that_do_not_hold(store, server, reply, status, code):
    server.script = [reply(status, x_ms_error_code=code), reply(**MISSING, head=True)]
    with pytest.raises(PreconditionFailedError) as failure:
        await store.set_if("k", b"v", None)
    assert failure.value.key == "k"


async def test_conditions_of_erasing(store, server, reply):
    for answer in (reply(**MISSING), reply(412, x_ms_error_code="ConditionNotMet")):
        server.script = [answer, reply(**MISSING)]
        with pytest.raises(PreconditionFailedError):
            await store.erase_if("k", Tag('"1"'))
    assert server.asked[-1].headers["if-match"] == '"1"'
    server.script = [reply(412, x_ms_error_code="LeaseIdMissing")]
    with pytest.raises(StoreError, match="LeaseIdMissing") as failure:
        await store.erase_if("k", Tag('"1"'))
    assert type(failure.value) is StoreError


async def test_large_values_are_sent_in_blocks_each_of_which_may_be_sent_again(store, server, reply, monkeypatch):
    monkeypatch.setattr(azure, "STAGED_NBYTES", 4)
    monkeypatch.setattr(azure, "BLOCK_NBYTES", 4)
    server.script = [reply(201), None, reply(500), reply(201), reply(201), reply(201)]
    await store.set_if("k", b"0123456789", Tag('"1"'))
    blocks, commit = server.asked[:-1], server.asked[-1]
    assert [asked.body for asked in blocks] == [b"0123", b"4567", b"4567", b"4567", b"89"]
    assert "if-match" not in blocks[0].headers
    assert commit.headers["if-match"] == '"1"'
    assert commit.headers["x-ms-meta-azarr_marks"]
    ids = [parse_qs(asked.target.partition("?")[2])["blockid"][0] for asked in (blocks[0], blocks[1], blocks[4])]
    assert commit.body.decode().partition("<BlockList>")[2] == "".join(f"<Latest>{each}</Latest>" for each in ids) + "</BlockList>"
    server.script = [reply(201), None, None, None]
    with pytest.raises(TransientStoreError):
        await store.set("k", b"0123456789")
    server.script = [reply(201)] * 3 + [reply(400, x_ms_error_code="InvalidBlockList")]
    with pytest.raises(TransientStoreError, match="meanwhile"):
        await store.set("k", b"0123456789")


# --- failures


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidHeaderValue", StoreError),
        (401, "", StoreError),
        (403, "AuthenticationFailed", StoreError),
        (404, "ContainerNotFound", StoreError),
        (409, "ContainerBeingDeleted", StoreError),
        (408, "", TransientStoreError),
        (429, "", ThrottledError),
        (500, "InternalError", TransientStoreError),
        (500, "OperationTimedOut", ThrottledError),
        (502, "", TransientStoreError),
        (503, "ServerBusy", ThrottledError),
        (302, "", StoreError),
    ],
)
async def test_statuses(store, server, reply, status, code, kind):
    server.answer = lambda asked: reply(status, b"" if asked.method == "HEAD" else b"SECRET", x_ms_error_code=code, Retry_After="2")
    for work in (store.get("k"), store.size("k"), store.set("k", b""), store.erase("k"), store.list_dir(), store.erase_prefix("")):
        with pytest.raises(StoreError, match=code or None) as failure:
            await work
        assert type(failure.value) is kind
        assert "SECRET" not in str(failure.value)
        assert failure.value.key in {"k", ""}
        assert getattr(failure.value, "retry_after", 2) == 2


async def test_codes_are_not_shown_blindly(store, server, reply):
    server.script = [reply(400, x_ms_error_code="sig=SECRET")]
    with pytest.raises(StoreError) as failure:
        await store.get("k")
    assert "SECRET" not in str(failure.value)


# --- who asks


async def test_signatures_of_a_key():
    """Recomputed by hand from the description of the scheme."""
    signer = SharedKey("account", b"key")
    asked = Asked(
        "PUT", "/box/a%20b", {"comp": "block", "blockid": "QQ=="}, {"Content-Type": "x/y", "x-ms-meta-b": "c", "If-Match": '"1"'}, 3
    )
    headers = await signer.headers(asked)

    text = f'PUT\n\n\n3\n\nx/y\n\n\n"1"\n\n\n\nx-ms-date:{headers["x-ms-date"]}\nx-ms-meta-b:c\nx-ms-version:{headers["x-ms-version"]}\n'
    text += "/account/box/a%20b\nblockid:QQ==\ncomp:block"
    signature = base64.b64encode(hmac.digest(b"key", text.encode(), "sha256")).decode()
    assert headers["Authorization"] == f"SharedKey account:{signature}"


async def test_shared_access_signatures_are_sent_and_not_shown(server, reply):
    async with AzureStore("box", endpoint=server.url, sas_token="?sv=1&sig=SECRET%2F", retry=NO_RETRIES) as store:
        server.answer = lambda asked: reply(403)
        for work in (store.get("k"), store.list_dir()):
            with pytest.raises(StoreError) as failure:
                await work
            assert "SECRET" not in "".join(traceback.format_exception(failure.value))
        assert "SECRET" not in repr(store) + repr(store.identity) + repr(store._account)
    assert [asked.target.endswith("&sv=1&sig=SECRET%2F") or asked.target.endswith("?sv=1&sig=SECRET%2F") for asked in server.asked] == [
        True
    ] * 2


class Credential:
    """A credential as ``azure.identity.aio`` has them."""

    def __init__(self, seconds=3600, error=None):
        self.seconds, self.error, self.issued, self.closed = seconds, error, 0, 0

    async def get_token(self, scope):
        assert scope == "https://storage.azure.com/.default"
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.issued += 1
        return SimpleNamespace(token=f"TOKEN-{self.issued}", expires_on=time.time() + self.seconds)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.closed += 1


async def test_credentials_of_a_user_are_used_and_not_closed(server, reply):
    server.answer = lambda asked: reply(**MISSING)
    credential = Credential()
    async with AzureStore("box", endpoint=server.url, credential=credential) as store:
        await asyncio.gather(*(store.get(f"{number}") for number in range(20)))
    assert (credential.issued, credential.closed) == (1, 0)
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer TOKEN-1"}
    credential = Credential(0)
    async with AzureStore("box", endpoint=server.url, credential=credential) as store:
        await store.get("k")
        await store.get("k")
    assert server.asked[-1].headers["authorization"] == "Bearer TOKEN-2"


async def test_the_default_credential_is_closed(server, reply, monkeypatch):
    identity = pytest.importorskip("azure.identity.aio", reason="pip install azure-identity")
    made = []
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: made.append(Credential()) or made[-1])
    server.answer = lambda asked: reply(**MISSING)
    async with AzureStore("box", endpoint=server.url) as store:
        await store.get("k")
        assert (made[0].issued, made[0].closed) == (1, 0)
    assert made[0].closed == 1


async def test_without_the_package_that_finds_credentials(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    async with AzureStore("box", endpoint=server.url) as store:
        with pytest.raises(StoreError, match="azarr.azure"):
            await store.get("k")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (type("ClientAuthenticationError", (Exception,), {})("SECRET"), StoreError),
        (type("ServiceRequestError", (Exception,), {})("SECRET"), TransientStoreError),
        (OSError("SECRET"), TransientStoreError),
    ],
)
async def test_tokens_that_cannot_be_had(server, error, kind):
    async with AzureStore("box", endpoint=server.url, credential=Credential(error=error), retry=RetryPolicy(attempts=1)) as store:
        with pytest.raises(StoreError, match="no token of Azure") as failure:
            await store.get("k")
    assert type(failure.value) is kind
    assert "SECRET" not in "".join(traceback.format_exception(failure.value))


def find(name=None, **given):
    nothing = {"endpoint": None, "account_key": None, "sas_token": None, "connection_string": None, "credential": None, "anonymous": False}
    return find_account(name, **{**nothing, **given})


def test_accounts():
    key = base64.b64encode(b"key").decode()
    text = f"DefaultEndpointsProtocol=https;AccountName=name;AccountKey={key};EndpointSuffix=core.chinacloudapi.cn"
    assert find(connection_string=text) == Account("name", "https://name.blob.core.chinacloudapi.cn", b"key")
    text = "BlobEndpoint=https://host/x;SharedAccessSignature=sv=1&sig=a%2F=="
    assert find(connection_string=text) == Account("", "https://host/x", sas="sv=1&sig=a%2F==")
    assert find(connection_string="UseDevelopmentStorage=true").endpoint == "http://127.0.0.1:10000/devstoreaccount1"
    assert find("name", account_key=key) == Account("name", "https://name.blob.core.windows.net", b"key")
    assert find("name", anonymous=True) == Account("name", "https://name.blob.core.windows.net", anonymous=True)
    assert find("name") == Account("name", "https://name.blob.core.windows.net")


def test_accounts_of_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "name")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?sig")
    assert find() == Account("name", "https://name.blob.core.windows.net", sas="sig")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    assert find() == Account("name", "https://name.blob.core.windows.net", b"key")
    assert find("other", anonymous=True) == Account("other", "https://other.blob.core.windows.net", anonymous=True)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=third;AccountKey=a2V5")
    assert find() == Account("third", "https://third.blob.core.windows.net", b"key")
    assert find("name", sas_token="s").key is None


def test_what_the_environment_has_of_one_account_is_not_sent_to_another(monkeypatch):
    other = Account("other", "https://other.blob.core.windows.net")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "name")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig")
    assert find("other") == other
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    assert find("other") == other
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=third;AccountKey=a2V5;EndpointSuffix=core.usgovcloudapi.net")
    assert find("other") == other
    assert find("third") == Account("third", "https://third.blob.core.usgovcloudapi.net", b"key")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"account_key": "a2V5"},
        {"account_key": "SECRET!", "endpoint": "http://x", "name": "x"},
        {"anonymous": True, "sas_token": "SECRET"},
    ],
    ids=str,
)
def test_accounts_that_are_none(given):
    with pytest.raises(StoreError) as failure:
        find(**given)
    assert "SECRET" not in str(failure.value)


# --- URLs


@pytest.mark.parametrize(
    ("url", "container", "root", "origin"),
    [
        ("az://box", "box", "", "https://name.blob.core.windows.net"),
        ("abfs://box/a/b/", "box", "a/b/", "https://name.blob.core.windows.net"),
        ("abfss://box@other.dfs.core.windows.net/x y#?", "box", "x y#?/", "https://other.blob.core.windows.net"),
        ("abfs://$web@other.blob.core.windows.net", "$web", "", "https://other.blob.core.windows.net"),
    ],
)
def test_urls(monkeypatch, url, container, root, origin):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "name")
    store = open_url(url, concurrency=3, anonymous=True)
    assert (store.container, store.root, store._origin, store.traffic.concurrency) == (container, root, origin, 3)
    copy = pickle.loads(pickle.dumps(store))
    assert (repr(copy), copy.identity) == (repr(store), store.identity)


@pytest.mark.parametrize(
    "url",
    [
        "az://",
        "az://x",
        "az:///a",
        "az://UPPER/a",
        "az://box--x",
        "s3://box/a",
        "az://box/a//b",
        "az://box/../b",
        "abfss://box@host/x",
        "abfss://box@a.b.evil.org:80/x",
        "abfss://box@name.dfs.core.windows.net@evil.org/x",
        "abfss://box@name.dfs.evil.org/x",
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(StoreError):
        open_url(url, anonymous=True, account="name")


@pytest.mark.parametrize("endpoint", ["ftp://x", "http://", "http://x?y", "http://SECRET@x"])
def test_endpoints_that_are_none(endpoint):
    with pytest.raises(StoreError) as failure:
        AzureStore("box", endpoint=endpoint, anonymous=True)
    assert "SECRET" not in str(failure.value)
