"""A store of objects in a bucket of S3, or of a server that speaks like it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, Unpack
from urllib.parse import unquote, urlsplit

from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores.base import Request, Version, check_key
from azarr.stores.http_exchange import Response, Wanted, drain, is_nothing, range_headers
from azarr.stores.network import MARKS, Condition, NetworkOptions, NetworkStore, Page, new_mark
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.stores.s3_account import AddressingStyle, Lookups, S3Account
from azarr.stores.s3_failures import ABSENT, Failure, error_of, known
from azarr.stores.s3_requests import Answer, Ask, S3Requests
from azarr.stores.s3_uploads import Upload, upload
from azarr.stores.traffic import Attempt
from azarr.types import Buffer, ByteRange

T = TypeVar("T")

MARKS_HEADER = "x-amz-meta-azarr-marks"

WHOLE_NBYTES = 64 * 2**20
"""Values up to this size are stored by one request, larger ones by multipart uploads."""


class S3Store(NetworkStore[S3Requests]):
    """Values at ``prefix/key`` in a ``bucket``.

    Args:
        bucket: Its name, or the ARN of an access point.
        prefix: What all keys begin with; nothing by default.
        region: Of the bucket. What the environment says by default; if that turns out to be wrong, the one that S3 tells.
        endpoint_url: Of a server that is not AWS, as ``http://127.0.0.1:9000``.
        addressing_style: ``"virtual"`` has the bucket in the host's name, ``"path"`` in the path; ``"auto"`` is virtual for AWS, and path
            with an ``endpoint_url``.
        anonymous: Ask without credentials, for public data.
        profile: Of ``~/.aws/config``.
        access_key, secret_key, session_token: Credentials. By default they are looked for as by every tool for AWS (environment, profile,
            container, machine), and renewed where they are lent.
        session: Of aiobotocore, in place of all that; such a store serves one event loop and cannot be pickled.
        requester_pays: Pay for requests to somebody else's bucket.
        conditional: Write on condition (``If-Match``, ``If-None-Match``); turn it off for servers that ignore conditions, which
            ``check_conditional_writes`` finds out.
        encryption, kms_key, storage_class: How values are stored: ``"AES256"`` or ``"aws:kms"``, a key for that, and a class.
        read_only, retry, concurrency, rate: As for all stores behind networks, see ``NetworkOptions``.

    Values above 64 MiB are stored by multipart uploads, of which nobody sees anything before they are complete.
    """

    erased_at_once = 1000

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        addressing_style: AddressingStyle = "auto",
        anonymous: bool = False,
        profile: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        session: Any | None = None,
        requester_pays: bool = False,
        conditional: bool = True,
        encryption: str | None = None,
        kms_key: str | None = None,
        storage_class: str | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(root=prefix, **options)
        self.account = S3Account(bucket, region, endpoint_url, addressing_style, anonymous, profile, access_key, secret_key, session_token)
        self._session = session
        self._lookups = Lookups()
        self._conditional = conditional
        self._asking = {"x-amz-request-payer": "requester"} if requester_pays else {}
        storing = {
            "x-amz-server-side-encryption": encryption,
            "x-amz-server-side-encryption-aws-kms-key-id": kms_key,
            "x-amz-storage-class": storage_class,
        }
        self._storing = {**self._asking, **{name: value for name, value in storing.items() if value is not None}}

    def __repr__(self) -> str:
        at = "" if self.account.endpoint_url is None else f" at {self.account.endpoint_url}"
        return f"<{type(self).__name__} s3://{self.account.bucket}/{self.root.rstrip('/')}{at}>"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Equal for stores of the same values."""
        return "s3", self.account.endpoint_url or "", self.account.bucket, self.root

    @property
    def conditional(self) -> bool:
        return self._conditional and not self.read_only

    def _connect(self) -> AbstractAsyncContextManager[S3Requests]:
        return S3Requests(self.account, self._session, self.traffic.concurrency, self._lookups)

    # One attempt at each request

    async def _get(self, client: S3Requests, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:
        if is_nothing(request):
            found = await self._find(client, key)
            return None if found is None else Fetched(b"", found.tag)
        asking = self._asking if request is None else {**self._asking, "range": range_headers(request)["Range"]}
        answer = await client.send(Ask("GET", key, asking), Wanted(request, attempt, stored_encoded=True))
        if isinstance(answer, Failure):
            if is_absence(answer):
                return None
            if answer.status == 416 and request is not None:
                return await self._beyond(client, key, request, tagged=tagged)
            raise error_of(answer, key, repr(self))
        return Fetched(answer.body, self._tag_of(answer, key) if tagged else None)

    async def _beyond(self, client: S3Requests, key: str, request: Request, *, tagged: bool) -> Fetched | None:
        """The answer to a request for bytes that a value does not have."""
        if not tagged:
            return Fetched(b"")
        found = await self._find(client, key)
        if found is None:
            return None
        if found.nbytes > (request.start if isinstance(request, ByteRange) else 0):
            raise TransientStoreError(f"{key!r} was written while it was read")
        return Fetched(b"", found.tag)

    async def _find(self, client: S3Requests, key: str) -> Found | None:
        answer = await client.send(Ask("HEAD", key, self._asking), unread)
        if isinstance(answer, Answer):
            nbytes = answer.headers.get("content-length", "")
            if not nbytes.isdecimal():
                raise TransientStoreError(f"{self!r} did not tell the size of {key!r}")
            return Found(int(nbytes), self._tag_of(answer, key))
        if answer.status != 404:
            raise error_of(answer, key, repr(self))
        # without a body that says so it need not be the key that is absent
        answer = await client.send(Ask("GET", key, {**self._asking, "range": "bytes=0-0"}), unread)
        if isinstance(answer, Answer) or answer.status == 416:
            raise TransientStoreError(f"{key!r} came to be while it was looked for")
        if is_absence(answer):
            return None
        raise error_of(answer, key, repr(self))

    async def _set(self, client: S3Requests, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        headers = {**self._storing, **headers_of(condition), "content-type": "application/octet-stream"}
        if marks:
            headers[MARKS_HEADER] = ",".join(marks)
        answer = await client.send(Ask("PUT", key, headers, flat(value), once=condition is not None))
        if isinstance(answer, Failure):
            raise error_of(answer, key, repr(self)) if condition is None or not is_absence(answer) else lost(key)

    async def _erase(self, client: S3Requests, key: str, condition: Condition | None) -> None:
        if condition is not None:
            # not all servers heed the condition of an erasure: those that do not leave only a moment between
            found = await self._find(client, key)
            if found is None or found.tag.name != condition.name:
                raise lost(key)
        answer = await client.send(Ask("DELETE", key, {**self._asking, **headers_of(condition)}, once=condition is not None))
        if isinstance(answer, Failure):
            if not is_absence(answer):
                raise error_of(answer, key, repr(self))
            if condition is not None:
                raise lost(key)

    async def _erase_many(self, client: S3Requests, keys: list[str]) -> None:
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await (await client.sdk()).delete_objects(Bucket=self.account.bucket, Delete=objects, **self._parameters(self._asking))
        for error in answer.get("Errors", ()):
            raise error_of(Failure(200, str(error.get("Code", "")), str(error.get("Message", ""))), str(error.get("Key", "")), repr(self))

    async def _page(self, client: S3Requests, prefix: str, token: Any | None, *, deep: bool) -> Page:
        parameters = {
            **self._parameters(self._asking),
            **({} if deep else {"Delimiter": "/"}),
            **({"ContinuationToken": token} if token else {}),
        }
        answer = await (await client.sdk()).list_objects_v2(Bucket=self.account.bucket, Prefix=prefix, **parameters)
        more = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        if answer.get("IsTruncated") and not more:
            raise TransientStoreError(f"{self!r} did not say how its list goes on")
        keys, prefixes = answer.get("Contents", ()), answer.get("CommonPrefixes", ())
        return Page([each["Key"] for each in keys], [each["Prefix"] for each in prefixes], more)

    def _tag_of(self, answer: Answer, key: str) -> Tag:
        """The state of the value that an answer is about."""
        name = answer.headers.get("etag") or None
        if name is None and self._conditional:
            raise StoreError(f"the server sent no ETag with {key!r}, by which changes are seen: conditional=False does without")
        marks = answer.headers.get(MARKS_HEADER, "").replace(" ", "").split(",")
        return Tag(name, tuple(mark for mark in marks[:MARKS] if 0 < len(mark) <= 32))

    def _classified(self, error: Exception, key: str) -> Exception | None:
        return known(error, key, repr(self))

    # Large values

    async def set(self, key: str, value: Buffer) -> None:
        if memoryview(value).nbytes <= WHOLE_NBYTES:
            await super().set(key, value)
        else:
            self._expect_writable(key)
            await self._upload(key, value, None, (new_mark(),))

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        if not self._conditional:
            raise StoreError(f"{self!r} was made with conditional=False", key=key)
        if memoryview(value).nbytes <= WHOLE_NBYTES:
            await super().set_if(key, value, version)
        else:
            self._expect_writable(key)
            await self._upload(key, value, *self._conditioned(key, version))

    async def _upload(self, key: str, value: Buffer, condition: Condition | None, marks: tuple[str, ...]) -> None:
        full = self.root + check_key(key)

        async def step(work: Callable[[S3Requests, Attempt], Awaitable[T]], nbytes: int = 0) -> T:
            async def attempt(attempt: Attempt) -> T:
                return await work(await self._clients.get(), attempt)

            return await self._made("set", key, attempt, nbytes)

        async def is_marked(client: S3Requests) -> bool:
            return await self._is_marked(client, full, marks[0])

        created = {**self._parameters(self._storing), "Metadata": {"azarr-marks": ",".join(marks)}}
        completed = {**self._parameters(self._asking), **self._parameters(headers_of(condition))}
        await upload(Upload(self.account.bucket, full, flat(value), self._asking, created, completed), step, is_marked, repr(self))

    @staticmethod
    def _parameters(headers: Mapping[str, str]) -> dict[str, str]:
        """Headers as aiobotocore calls them."""
        return {PARAMETERS[name]: value for name, value in headers.items()}

    async def check_conditional_writes(self) -> bool:
        """Whether the server refuses writes whose condition does not hold. A small value is stored for that, and erased again."""
        key = f"azarr-check-{new_mark()}"
        try:
            await self.set_if(key, b"1", None)
            for version in (None, Tag('"0"')):
                try:
                    await self.set_if(key, b"2", version)
                except PreconditionFailedError:
                    continue
                return False
            return True
        finally:
            await self.erase(key)

    def __getstate__(self) -> dict[str, Any]:
        if self._session is not None:
            raise TypeError(f"{self!r} cannot be pickled, because its session was passed in; pass a profile, or let credentials be found")
        return {**super().__getstate__(), "_lookups": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_lookups": Lookups()})


def open_url(url: str, **options: Any) -> S3Store:
    """The store for ``s3://bucket/prefix``; ``options`` are those of ``S3Store``."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or "@" in parts.netloc:
        raise StoreError("URLs of S3 are s3://bucket/prefix, without credentials: those are options, or found in the environment")
    if parts.query or parts.fragment:
        raise StoreError("URLs of S3 are s3://bucket/prefix, without query and fragment; '?' and '#' in a prefix are %3F and %23")
    return S3Store(parts.netloc, unquote(parts.path), **options)


PARAMETERS = {
    "x-amz-request-payer": "RequestPayer",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-storage-class": "StorageClass",
    "if-match": "IfMatch",
    "if-none-match": "IfNoneMatch",
}


def is_absence(failure: Failure) -> bool:
    """Whether the answer proves that there is nothing at the key."""
    return failure.status == 404 and failure.code == ABSENT


def lost(key: str) -> PreconditionFailedError:
    """The error of a conditional write that another one has overtaken."""
    return PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it")


def headers_of(condition: Condition | None) -> dict[str, str]:
    """A condition in HTTP."""
    if condition is None:
        return {}
    return {"if-none-match": "*"} if condition.name is None else {"if-match": str(condition.name)}


async def unread(response: Response) -> bytes:
    """Nothing of the body, which there may be."""
    await drain(response)
    return b""


def flat(value: Buffer) -> Buffer:
    """The bytes of ``value`` in one piece."""
    if isinstance(value, memoryview) and (value.ndim != 1 or value.itemsize != 1 or not value.c_contiguous):
        return value.cast("B") if value.c_contiguous else value.tobytes()
    return value
