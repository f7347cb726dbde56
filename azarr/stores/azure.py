"""Values in a container of Azure Blob Storage, or of Azure Data Lake Storage."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self, Unpack
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from yarl import URL

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.stores.azure_credentials import Account, Asked, find_account, find_signer
from azarr.stores.base import Request
from azarr.stores.http_exchange import (
    Response,
    Wanted,
    ask,
    body_of,
    drain,
    failed,
    failure_of,
    is_nothing,
    open_session,
    payload_of,
    range_headers,
    read_little,
    retry_after,
)
from azarr.stores.network import Condition, NetworkOptions, NetworkStore, Page
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.stores.traffic import Attempt
from azarr.types import Buffer, ByteRange, Suffix

__all__ = ["AzureStore", "open_url"]

STAGED_NBYTES: Final = 64 * 2**20
"""Larger values are sent in blocks, of which a broken connection costs only one; smaller ones with one request."""

BLOCK_NBYTES: Final = 16 * 2**20

BLOCK_ATTEMPTS: Final = 3
"""How often a block is sent at most, before the whole value is."""

PAGE: Final = 5000
"""How many keys a listing has at most, of those that Azure answers at once."""

SUFFIXED: Final = 5
"""How often the end of a value is looked for, where others write it at the same time."""

MARKS: Final = "azarr_marks"
"""The metadata of a blob where the marks of conditional writes are, separated by commas."""

DOMAINS: Final = frozenset({"core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "core.cloudapi.de"})
"""Where accounts are that a URL may name: tokens are sent there."""

_CONTAINER: Final = re.compile(r"\$root|\$web|\$logs|[a-z0-9](-?[a-z0-9]){2,62}")


class AzureClient:
    """A session, and what signs its requests; to be used with ``async with``."""

    def __init__(self, account: Account, concurrency: int, *, trust_env: bool) -> None:
        self._account, self._concurrency, self._trust_env = account, concurrency, trust_env
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            session = open_session(self._concurrency, trust_env=self._trust_env, resends=False)
            self.session = await self._stack.enter_async_context(session)
            self.signer = await find_signer(self._account, self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class AzureStore(NetworkStore[AzureClient]):
    """Values at ``az://container/root/key``; strongly consistent, and versions are ETags.

    Args:
        container: Its name.
        root: What all keys begin with; nothing by default.
        account: The account's name, ``AZURE_STORAGE_ACCOUNT`` by default.
        account_key, sas_token, connection_string, credential, anonymous: One of them says who asks. A ``credential`` is one of
            ``azure.identity.aio``, and closed by whoever made it. By default the environment is asked (``AZURE_STORAGE_CONNECTION_STRING``,
            ``AZURE_STORAGE_KEY``, ``AZURE_STORAGE_SAS_TOKEN``), and then everything that ``DefaultAzureCredential`` knows.
        endpoint: Another server than the account's own, as ``http://127.0.0.1:10000/devstoreaccount1``.
        trust_env: Use the proxies of the environment (``HTTPS_PROXY``, …).
        read_only, retry, concurrency, rate: As for all stores behind networks, see ``NetworkOptions``.

    """

    def __init__(
        self,
        container: str,
        root: str = "",
        *,
        account: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        connection_string: str | None = None,
        credential: Any = None,
        anonymous: bool = False,
        endpoint: str | None = None,
        trust_env: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(root=root, **options)
        if not _CONTAINER.fullmatch(container):
            raise StoreError(f"{container!r:.100} is not the name of a container of Azure")
        self.container = container
        self._account = find_account(
            account,
            endpoint=endpoint,
            account_key=account_key,
            sas_token=sas_token,
            connection_string=connection_string,
            credential=credential,
            anonymous=anonymous,
        )
        parts = urlsplit(self._account.endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise StoreError(f"the endpoint of an account of Azure is http:// or https:// and a host, unlike one of {parts.hostname!r}")
        self._origin, self._path = f"{parts.scheme}://{parts.netloc}", f"{parts.path.rstrip('/')}/{container}"
        self._trust_env = trust_env

    def __repr__(self) -> str:
        return f"AzureStore('az://{self.container}/{self.root.rstrip('/')}', endpoint={self._origin!r})"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Where the values are."""
        return "azure", self._origin, self._path, self.root

    def _connect(self) -> AzureClient:
        return AzureClient(self._account, self.traffic.concurrency, trust_env=self._trust_env)

    # Reading

    async def _get(
        self,
        client: AzureClient,
        key: str,
        request: Request,
        attempt: Attempt,
        *,
        tagged: bool,  # noqa: ARG002 - the state comes with the value in any case
    ) -> Fetched | None:
        if is_nothing(request):
            found = await self._find(client, key)
            return None if found is None else Fetched(b"", found.tag)
        if not isinstance(request, Suffix):
            return await self._part(client, key, request, None, attempt)
        for _ in range(SUFFIXED):  # Azure knows no suffixes
            found = await self._find(client, key)
            if found is None or not found.nbytes:
                return None if found is None else Fetched(b"", found.tag)
            try:
                end = ByteRange(max(0, found.nbytes - request.nbytes), found.nbytes)
                return await self._part(client, key, end, found.tag, attempt)
            except PreconditionFailedError:
                continue
        raise TransientStoreError(f"{self._url(key)} changes faster than it can be read")

    async def _part(self, client: AzureClient, key: str, request: ByteRange | None, tag: Tag | None, attempt: Attempt) -> Fetched | None:
        """The value or a part of it, in the state ``tag`` where that is given."""
        headers = {**range_headers(request), **({} if tag is None else {"If-Match": str(tag.name)})}
        async with await self._asked(client, "GET", key, "GET", headers=headers) as response:
            if response.status in {200, 206}:
                body = await body_of(response, Wanted(request, attempt))
                return None if _is_folder(response) else Fetched(body, _tag(response))
            if response.status != 416:
                await self._expect_missing(response, key, "GET")
                return None
            await drain(response)
        try:
            found = await self._find(client, key)
        except TransientStoreError:  # there are servers that end the connection after such an answer
            found = await self._find(client, key)
        if found is not None and request is not None and request.start < found.nbytes:
            raise TransientStoreError(f"the server denies bytes that {self._url(key)} has")
        return None if found is None else Fetched(b"", found.tag)

    async def _find(self, client: AzureClient, key: str) -> Found | None:
        async with await self._asked(client, "HEAD", key, "HEAD") as response:
            if response.status != 200:
                await self._expect_missing(response, key, "HEAD")
                return None
            if response.content_length is None:
                raise TransientStoreError(f"the server does not tell how large {self._url(key)} is")
            return None if _is_folder(response) else Found(response.content_length, _tag(response))

    async def _page(self, client: AzureClient, prefix: str, token: Any | None, *, deep: bool) -> Page:
        query = {"restype": "container", "comp": "list", "prefix": prefix, "include": "metadata", "maxresults": str(PAGE)}
        query |= {} if deep else {"delimiter": "/"}
        query |= {} if token is None else {"marker": token}
        async with await self._asked(client, "GET", "", f"listing below {prefix!r}", query=query) as response:
            if response.status != 200:
                raise await self._failure(response, "", f"listing below {prefix!r}")
            text = await response.read()
        try:
            return _listed(text)
        except (ET.ParseError, ValueError) as error:
            raise TransientStoreError(f"the listing of {self._url(prefix)} makes no sense") from error

    # Writing

    async def _set(self, client: AzureClient, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        view = memoryview(value)
        content = view.cast("B") if view.contiguous and view.nbytes else memoryview(view.tobytes())
        headers = _conditional(condition)
        if marks:
            headers[f"x-ms-meta-{MARKS}"] = ",".join(marks)
        if len(content) > STAGED_NBYTES:
            await self._set_in_blocks(client, key, content, headers)
            return
        headers["x-ms-blob-type"] = "BlockBlob"
        async with await self._asked(client, "PUT", key, "PUT", headers=headers, data=content) as response:
            await self._expect_done(response, key, "PUT")

    async def _set_in_blocks(self, client: AzureClient, key: str, content: memoryview, headers: dict[str, str]) -> None:
        """Store a large value, which is there when the list of its blocks is."""
        upload = uuid.uuid4().hex  # so that blocks of other writers are never taken for these
        names = []
        for number, start in enumerate(range(0, len(content), BLOCK_NBYTES)):
            names.append(base64.b64encode(f"{upload}-{number:06}".encode()).decode())
            for left in reversed(range(BLOCK_ATTEMPTS)):
                try:
                    await self._stage(client, key, names[-1], content[start : start + BLOCK_NBYTES])
                    break
                except TransientStoreError:
                    if not left:
                        raise
        listed = "".join(f"<Latest>{name}</Latest>" for name in names)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        headers["Content-Type"] = "application/xml"
        headers["x-ms-blob-content-type"] = "application/octet-stream"
        async with await self._asked(client, "PUT", key, "PUT", query={"comp": "blocklist"}, headers=headers, data=body) as response:
            if response.status == 400 and response.headers.get("x-ms-error-code") == "InvalidBlockList":
                raise TransientStoreError(f"the blocks of {self._url(key)} were dropped, as somebody else has written it meanwhile")
            await self._expect_done(response, key, "PUT")

    async def _stage(self, client: AzureClient, key: str, name: str, piece: memoryview) -> None:
        async with await self._asked(client, "PUT", key, "PUT", query={"comp": "block", "blockid": name}, data=piece) as response:
            await self._expect_done(response, key, "PUT")

    async def _erase(self, client: AzureClient, key: str, condition: Condition | None) -> None:
        headers = {**_conditional(condition), "x-ms-delete-snapshots": "include"}
        async with await self._asked(client, "DELETE", key, "DELETE", headers=headers) as response:
            if response.status != 404:
                await self._expect_done(response, key, "DELETE")
                return
            await self._expect_missing(response, key, "DELETE")
        if condition is not None:
            raise PreconditionFailedError(f"{self._url(key)} has been erased meanwhile")

    # Requests and answers

    def _url(self, key: str) -> str:
        return f"az://{self.container}/{key}"

    async def _asked(
        self,
        client: AzureClient,
        method: str,
        key: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Buffer | None = None,
    ) -> Response:
        path = f"{self._path}/{quote(key)}" if key else self._path
        headers, query = dict(headers or {}), query or {}
        if data is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
        headers |= await client.signer.headers(Asked(method, path, query, headers, 0 if data is None else len(data)))
        asked = [f"{name}={quote(text, safe='')}" for name, text in query.items()]
        if self._account.sas is not None:
            asked.append(self._account.sas)
        url = URL(f"{self._origin}{path}{'?' if asked else ''}{'&'.join(asked)}", encoded=True)
        body = None if data is None else payload_of(data)
        return await ask(client.session, method, url, f"{what} of {self._url(key)}", headers=headers, data=body)

    async def _expect_done(self, response: Response, key: str, what: str) -> None:
        if response.status not in {200, 201, 202}:
            raise await self._failure(response, key, what)
        await drain(response)

    async def _expect_missing(self, response: Response, key: str, what: str) -> None:
        """Raise unless the blob, and not something else, is proven missing."""
        if response.status != 404 or response.headers.get("x-ms-error-code") != "BlobNotFound":
            raise await self._failure(response, key, what)
        await drain(response)

    async def _failure(self, response: Response, key: str, what: str) -> StoreError:
        # what the body says is not shown, as it has parts of signatures
        await read_little(response)
        code = response.headers.get("x-ms-error-code", "")
        what = f"{what} of {self._url(key)}" + (f" ({code})" if re.fullmatch(r"[A-Za-z]{1,64}", code) else "")
        if (response.status == 412 and code in {"", "ConditionNotMet", "TargetConditionNotMet"}) or code == "BlobAlreadyExists":
            return PreconditionFailedError(f"{what}: it is not what it was any more")
        if code in {"ServerBusy", "OperationTimedOut"} and response.status >= 500:
            return ThrottledError(f"{what}: the server asks to slow down", retry_after=retry_after(response.headers))
        return failure_of(response.status, response.headers, what)

    def _classified(self, error: Exception, key: str) -> Exception | None:
        return failed(error, f"the request for {self._url(self.root + key)}")


def _conditional(condition: Condition | None) -> dict[str, str]:
    if condition is None:
        return {}
    return {"If-None-Match": "*"} if condition.name is None else {"If-Match": str(condition.name)}


def _tag(response: Response) -> Tag:
    tag = response.headers.get("ETag")
    if not tag:
        raise TransientStoreError("the server does not tell the ETag of the value")
    marks = response.headers.get(f"x-ms-meta-{MARKS}")
    return Tag(tag, tuple(marks.split(",")) if marks else ())


def _is_folder(response: Response) -> bool:
    """Whether it is what stands for a folder in a hierarchical namespace."""
    get = response.headers.get
    return get("x-ms-resource-type") == "directory" or get("x-ms-meta-hdi_isfolder", "").lower() == "true"


def _listed(text: bytes) -> Page:
    """A part of a listing, without what stands for folders; ``ValueError`` where it makes no sense."""
    if b"<!DOCTYPE" in text:
        raise ValueError("a document type is not needed, and could be made to explode")
    root = ET.fromstring(text)  # noqa: S314 - entities need a document type
    blobs = root.find("Blobs")
    if blobs is None:
        raise ValueError("there is no list of blobs")
    keys = []
    for blob in blobs.iter("Blob"):
        folder = blob.findtext("Properties/ResourceType") == "directory" or blob.findtext("Metadata/hdi_isfolder", "").lower() == "true"
        if not folder:
            keys.append(_named(blob))
    return Page(keys, [_named(each) for each in blobs.iter("BlobPrefix")], root.findtext("NextMarker") or None)


def _named(element: ET.Element) -> str:
    name = element.find("Name")
    if name is None or not name.text:
        raise ValueError("there is no name")
    return unquote(name.text) if name.get("Encoded") == "true" else name.text


def open_url(url: str, **options: Any) -> AzureStore:
    """The store at a URL; ``options`` are those of ``AzureStore``. Nothing in it is decoded.

    ``az://container/root``, ``abfs://`` likewise; or with the account's name ``abfss://container@account.dfs.core.windows.net/root``.
    """
    scheme, _, place = url.partition("://")
    if scheme.lower() not in {"az", "azure", "abfs", "abfss"}:
        raise StoreError(f"{scheme!r} is no scheme of Azure: az://, abfs:// and abfss:// are")
    place, _, root = place.partition("/")
    container, _, host = place.partition("@")
    if host:
        account, _, domain = host.partition(".")
        service, _, suffix = domain.partition(".")
        if service not in {"dfs", "blob"} or not re.fullmatch(r"[a-z0-9]{3,24}", account) or suffix not in DOMAINS:
            raise StoreError("an account in a URL of Azure looks like @account.dfs.core.windows.net; other servers are told by endpoint=")
        options = {"account": account, "endpoint": f"https://{account}.blob.{suffix}", **options}
    return AzureStore(container, root, **options)
