"""Values in a bucket of Google Cloud Storage."""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from typing import Any, Final, Self, Unpack
from urllib.parse import quote, urlsplit

from crc32c import crc32c
from yarl import URL

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.stores.base import Request, Stamped
from azarr.stores.bearer_tokens import AccessToken
from azarr.stores.gcs_credentials import Who, find_credentials
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
)
from azarr.stores.network import Condition, NetworkOptions, NetworkStore, Page
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.stores.traffic import Attempt
from azarr.types import Buffer, Suffix

__all__ = ["GCSStore", "open_url"]

ENDPOINT: Final = "https://storage.googleapis.com"

RESUMABLE_NBYTES: Final = 64 * 2**20
"""Larger values are sent in pieces, of which a broken connection costs only the last; smaller ones with one request."""

PIECE_NBYTES: Final = 16 * 2**20
"""The size of the pieces: a multiple of 256 KiB."""

PAGE: Final = 1000
"""How many keys a listing has at most, of those that Google answers at once."""

MARKS: Final = "azarr-marks"
"""The metadata of an object where the marks of conditional writes are, separated by commas."""

TAGGED: Final = 5
"""How often a value is read at most until its marks are known, too, where others write it at the same time."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class GCSClient:
    """A session, and what its requests are signed with; to be used with ``async with``."""

    def __init__(self, who: Who, concurrency: int, *, trust_env: bool) -> None:
        self._who, self._concurrency, self._trust_env = who, concurrency, trust_env

    async def __aenter__(self) -> Self:
        self.session = open_session(self._concurrency, trust_env=self._trust_env, resends=False)
        try:
            self.credentials = await find_credentials(self._who, self.session)
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()


class GCSStore(NetworkStore[GCSClient]):
    """Values at ``gs://bucket/root/key``; strongly consistent, and versions are generations.

    Args:
        bucket: Its name.
        root: What all keys begin with; nothing by default.
        service_file: The file of a service account or another one with credentials; by default they are looked for as Google's own
            programs do: ``GOOGLE_APPLICATION_CREDENTIALS``, ``gcloud auth application-default login``, the machine's account.
        token: An access token, or an asynchronous function that answers one, instead.
        anonymous: Ask without credentials, as public buckets allow; by default only where ``endpoint`` is without TLS.
        endpoint: Another server; ``STORAGE_EMULATOR_HOST`` by default, else Google's.
        project: Who pays, where the bucket wants the one who asks to.
        trust_env: Use the proxies of the environment (``HTTPS_PROXY``, …).
        read_only, retry, concurrency, rate: As for all stores behind networks, see ``NetworkOptions``.

    """

    def __init__(
        self,
        bucket: str,
        root: str = "",
        *,
        service_file: str | os.PathLike[str] | None = None,
        token: AccessToken | None = None,
        anonymous: bool | None = None,
        endpoint: str | None = None,
        project: str | None = None,
        trust_env: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(root=root, **options)
        if not _BUCKET.fullmatch(bucket):
            raise StoreError(f"{bucket!r:.100} is not the name of a bucket of Google Cloud Storage")
        self.bucket = bucket
        self._endpoint = _endpoint(endpoint or os.environ.get("STORAGE_EMULATOR_HOST") or ENDPOINT)
        unnamed = token is None and service_file is None
        if anonymous and not unnamed:
            raise StoreError("anonymous requests have no credentials: pass anonymous=True, or token= or service_file=")
        if anonymous is None:
            anonymous = unnamed and not self._endpoint.startswith("https:")
        self._who = Who(anonymous, token, None if service_file is None else os.fspath(service_file), self.read_only)
        self._project, self._trust_env = project, trust_env

    def __repr__(self) -> str:
        return f"GCSStore('gs://{self.bucket}/{self.root.rstrip('/')}')"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Where the values are."""
        return "gcs", self._endpoint, self.bucket, self.root

    def _connect(self) -> GCSClient:
        return GCSClient(self._who, self.traffic.concurrency, trust_env=self._trust_env)

    # Reading

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        found = await self._fetched(key, byte_range, tagged=False)  # the generation comes with the value, and is enough
        return Stamped(None) if found is None else Stamped(found.value, None if found.tag is None else found.tag.name)

    async def _get(self, client: GCSClient, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:
        if is_nothing(request):
            found = await self._find(client, key)
            return None if found is None else Fetched(b"", found.tag)
        for _ in range(TAGGED):
            fetched = await self._media(client, key, request, attempt)
            if fetched is None or not tagged:
                return fetched
            # the generation comes with the value, its marks do not
            known = await self._find(client, key)
            if known is not None and fetched.tag is not None and known.tag.name == fetched.tag.name:
                return Fetched(fetched.value, known.tag)
        raise TransientStoreError(f"{self._url(key)} changes faster than it can be read")

    async def _media(self, client: GCSClient, key: str, request: Request, attempt: Attempt) -> Fetched | None:
        """The value or part of it, and its generation."""
        path = f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}?alt=media"
        async with await self._asked(client, "GET", path, "GET", key, headers=range_headers(request)) as response:
            if response.status == 404:
                await self._expect_bucket(response)
                return None
            if response.status in {200, 206}:
                body = await body_of(response, Wanted(request, attempt))
                if request is None:
                    _expect_sum(response, body)
                return Fetched(body, Tag(response.headers.get("x-goog-generation")))
            if response.status != 416:
                raise await self._failure(response, "GET", key)
            await drain(response)
        try:
            found = await self._find(client, key)
        except TransientStoreError:  # there are servers that end the connection after such an answer
            found = await self._find(client, key)
        if found is not None and found.nbytes and (isinstance(request, Suffix) or (request is not None and request.start < found.nbytes)):
            raise TransientStoreError(f"the server denies bytes that {self._url(key)} has")
        return None if found is None else Fetched(b"", found.tag)

    async def _find(self, client: GCSClient, key: str) -> Found | None:
        path = f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}?fields=size,generation,metadata"
        async with await self._asked(client, "GET", path, "GET of what is known", key) as response:
            if response.status == 404:
                await self._expect_bucket(response)
                return None
            told = await self._told(response, "GET of what is known", key)
        try:
            return Found(int(told["size"]), Tag(str(told["generation"]), _marks(told.get("metadata", {}).get(MARKS))))
        except (KeyError, ValueError, AttributeError) as error:
            raise TransientStoreError(f"what the server tells of {self._url(key)} makes no sense") from error

    async def _page(self, client: GCSClient, prefix: str, token: Any | None, *, deep: bool) -> Page:
        query = {"prefix": prefix, "maxResults": str(PAGE), "fields": "nextPageToken,prefixes,items(name)"}
        query |= {} if deep else {"delimiter": "/"}
        query |= {} if token is None else {"pageToken": token}
        path = f"/storage/v1/b/{self.bucket}/o?" + "&".join(f"{name}={quote(text, safe='')}" for name, text in query.items())
        async with await self._asked(client, "GET", path, "listing", prefix) as response:
            told = await self._told(response, "listing", prefix)
        try:
            keys = [item["name"] for item in told.get("items", ())]
            return Page(keys, told.get("prefixes", ()), told.get("nextPageToken") or None)
        except (KeyError, TypeError) as error:
            raise TransientStoreError(f"the listing of {self._url(prefix)} makes no sense") from error

    # Writing

    async def _set(self, client: GCSClient, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        view = memoryview(value)
        content = view.cast("B") if view.contiguous and view.nbytes else memoryview(view.tobytes())
        about: dict[str, Any] = {"name": key, "crc32c": _sum(content)}  # with which the server checks what has arrived
        if marks:
            about["metadata"] = {MARKS: ",".join(marks)}
        told = json.dumps(about).encode()
        query = _query(condition)
        if len(content) > RESUMABLE_NBYTES:
            await self._send_in_pieces(client, key, content, told, query)
            return
        boundary = uuid.uuid4().hex.encode()
        body = b"".join(
            (
                b"--%b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%b\r\n" % (boundary, told),
                b"--%b\r\nContent-Type: application/octet-stream\r\n\r\n" % boundary,
                content,
                b"\r\n--%b--\r\n" % boundary,
            )
        )
        headers = {"Content-Type": f"multipart/related; boundary={boundary.decode()}"}
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=multipart{query}"
        async with await self._asked(client, "POST", path, "PUT", key, headers=headers, data=payload_of(body)) as response:
            await self._expect_done(response, "PUT", key)

    async def _send_in_pieces(self, client: GCSClient, key: str, content: memoryview, told: bytes, query: str) -> None:
        """Store a large value; what has arrived of it is not sent again where a connection breaks."""
        headers = {"Content-Type": "application/json; charset=UTF-8", "X-Upload-Content-Length": str(len(content))}
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=resumable{query}"
        async with await self._asked(client, "POST", path, "PUT", key, headers=headers, data=told) as response:
            await self._expect_done(response, "PUT", key)
            place = response.headers.get("Location", "")
        if not place.startswith(f"{self._endpoint}/"):
            raise StoreError(f"{self._url(key)} is to be sent to another server than the one of this store")
        sent, asking = 0, False
        while True:
            stop = min(sent + PIECE_NBYTES, len(content))
            piece = b"" if asking else content[sent:stop]
            span = "*" if asking else f"{sent}-{stop - 1}"
            headers = {"Content-Range": f"bytes {span}/{len(content)}"}
            try:
                # the place is a secret, which stands for any other
                response = await ask(
                    client.session, "PUT", URL(place, encoded=True), f"PUT of {self._url(key)}", headers=headers, data=payload_of(piece)
                )
                async with response:
                    if response.status != 308:
                        await self._expect_done(response, "PUT", key)
                        return
                    arrived = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("Range", ""))
                    await drain(response)
            except TransientStoreError:
                if asking:
                    raise
                asking = True
                continue
            known = 0 if arrived is None else int(arrived[1]) + 1
            if not asking and known <= sent:
                raise TransientStoreError(f"the server does not take what is sent of {self._url(key)}")
            sent, asking = known, False

    async def _erase(self, client: GCSClient, key: str, condition: Condition | None) -> None:
        path = f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}{_query(condition).replace('&', '?')}"
        async with await self._asked(client, "DELETE", path, "DELETE", key) as response:
            if response.status != 404:
                await self._expect_done(response, "DELETE", key)
                return
            await self._expect_bucket(response)
        if condition is not None:
            raise PreconditionFailedError(f"{self._url(key)} has been erased meanwhile")

    # Requests and answers

    def _url(self, key: str) -> str:
        return f"gs://{self.bucket}/{key}"

    async def _asked(self, client: GCSClient, method: str, path: str, what: str, key: str, **options: Any) -> Response:
        headers = {**await client.credentials.headers(), **options.pop("headers", {})}
        if self._project is not None:
            headers["X-Goog-User-Project"] = self._project
        url = URL(self._endpoint + path, encoded=True)
        return await ask(client.session, method, url, f"{what} of {self._url(key)}", headers=headers, **options)

    async def _told(self, response: Response, what: str, key: str) -> dict[str, Any]:
        """The document in an answer."""
        if response.status != 200:
            raise await self._failure(response, what, key)
        try:
            told = json.loads(await response.read())
        except ValueError as error:
            raise TransientStoreError(f"{what} of {self._url(key)}: the answer is no document") from error
        if not isinstance(told, dict):
            raise TransientStoreError(f"{what} of {self._url(key)}: the answer is no document")
        return told

    async def _expect_done(self, response: Response, what: str, key: str) -> None:
        if response.status not in {200, 201, 204}:
            raise await self._failure(response, what, key)
        await drain(response)

    async def _expect_bucket(self, response: Response) -> None:
        """Read the answer 404; ``StoreError`` where not the value is missing, but the bucket."""
        text = await read_little(response)
        if b"NoSuchBucket" in text or b"bucket does not exist" in text:
            raise StoreError(f"there is no bucket {self.bucket!r}")

    async def _failure(self, response: Response, what: str, key: str) -> StoreError:
        text = await read_little(response)
        what = f"{what} of {self._url(key)}"
        if response.status == 412:
            return PreconditionFailedError(f"{what}: it is not what it was any more")
        if response.status == 403 and b"ateLimitExceeded" in text:
            return ThrottledError(f"{what}: the server asks to slow down (403)")
        return failure_of(response.status, response.headers, what)

    def _classified(self, error: Exception, key: str) -> Exception | None:
        return failed(error, f"the request for {self._url(self.root + key)}")


def _endpoint(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise StoreError(f"the endpoint of Google Cloud Storage is http:// or https:// and a host, unlike one of {parts.hostname!r}")
    return f"{parts.scheme}://{parts.netloc}"


def _query(condition: Condition | None) -> str:
    """What makes a request conditional; generation 0 is absence."""
    return "" if condition is None else f"&ifGenerationMatch={0 if condition.name is None else quote(str(condition.name))}"


def _marks(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _sum(content: Buffer) -> str:
    return base64.b64encode(crc32c(content).to_bytes(4, "big")).decode()


def _expect_sum(response: Response, body: Buffer) -> None:
    """``TransientStoreError`` unless the whole value is what was stored, by its checksum."""
    if response.headers.get("x-goog-stored-content-encoding", "identity") != "identity":
        return  # the checksum is of what is stored, which the server has decoded
    for text in ",".join(response.headers.getall("x-goog-hash", ())).split(","):
        kind, _, told = text.strip().partition("=")
        if kind == "crc32c" and told != _sum(body):
            raise TransientStoreError("the value has changed on its way: it does not have the checksum that the server tells")


def open_url(url: str, **options: Any) -> GCSStore:
    """The store at ``gs://bucket/root`` or ``gcs://bucket/root``; ``options`` are those of ``GCSStore``. Nothing in it is decoded."""
    scheme, _, place = url.partition("://")
    if scheme.lower() not in {"gs", "gcs"}:
        raise StoreError(f"{scheme!r} is no scheme of Google Cloud Storage: gs:// and gcs:// are")
    bucket, _, root = place.partition("/")
    return GCSStore(bucket, root, **options)
