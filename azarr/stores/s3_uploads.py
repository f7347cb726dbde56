"""Large values go to S3 in parts, which become a value all at once (multipart uploads)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.aws_signing import query_of
from azarr.stores.s3_failures import Failure, error_of, known
from azarr.stores.s3_requests import Ask, S3Requests
from azarr.stores.threads import ended
from azarr.stores.together import together
from azarr.stores.traffic import Attempt
from azarr.types import Buffer

T = TypeVar("T")

PART_NBYTES = 16 * 2**20
"""The size of a part, unless there would be more than ``PARTS`` of them."""

PARTS = 10_000
"""How many parts S3 takes."""

AT_ONCE = 8
"""Parts of one value under way at once: each is a copy in memory."""

ABORT_SECONDS = 10.0
"""How long a failed upload may take to be cleaned away; S3 keeps the parts of those that are not, and charges for them."""


class Upload(NamedTuple):
    """A value to be stored: with ``headers`` for its parts, and parameters of aiobotocore for its beginning and its end."""

    bucket: str
    key: str
    value: Buffer
    headers: Mapping[str, str]
    created: Mapping[str, Any]
    completed: Mapping[str, Any]


class Step(Protocol):
    """Makes a request, as often as it takes."""

    async def __call__(self, work: Callable[[S3Requests, Attempt], Awaitable[T]], nbytes: int = 0) -> T: ...


async def upload(upload: Upload, step: Step, is_marked: Callable[[S3Requests], Awaitable[bool]], where: str) -> None:
    """Store a value in parts; nobody sees any of it before all is there, and what fails is cleaned away.

    ``is_marked`` finds out whether it is there already, where an answer was lost.
    """
    place = {"Bucket": upload.bucket, "Key": upload.key}

    async def create(client: S3Requests, _: Attempt) -> str:
        answer = await (await client.sdk()).create_multipart_upload(**place, **upload.created)
        return str(answer["UploadId"])

    name = await step(create)
    place["UploadId"] = name
    try:
        tags = await _parts(upload, name, step, where)
        parts = {"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]}

        async def complete(client: S3Requests, attempt: Attempt) -> None:
            try:
                await (await client.sdk()).complete_multipart_upload(**place, MultipartUpload=parts, **upload.completed)
            except Exception as error:
                failure = known(error, upload.key, where)
                gone = isinstance(failure, PreconditionFailedError) or _code(error) == "NoSuchUpload"
                if not gone or attempt.number == 1 or not await is_marked(client):
                    raise

        await step(complete)
    except BaseException:
        await ended(asyncio.ensure_future(_abort(place, step)))
        raise


async def _parts(upload: Upload, name: str, step: Step, where: str) -> list[str]:
    """Sends the parts, and answers what the server calls them."""
    whole = memoryview(upload.value)
    size = max(PART_NBYTES, -(-len(whole) // PARTS))
    starts = range(0, len(whole), size)
    tags = [""] * len(starts)
    slots = asyncio.Semaphore(AT_ONCE)

    async def send(number: int) -> None:
        part = whole[starts[number] : starts[number] + size]
        query = query_of({"partNumber": str(number + 1), "uploadId": name})

        async def attempt(client: S3Requests, _: Attempt) -> str:
            answer = await client.send(Ask("PUT", upload.key, upload.headers, part, query))
            if isinstance(answer, Failure):
                raise error_of(answer, upload.key, where)
            return answer.headers.get("etag", "")

        async with slots:
            tags[number] = await step(attempt, len(part))

    await together(send, range(len(starts)))
    return tags


async def _abort(place: Mapping[str, str], step: Step) -> None:
    async def abort(client: S3Requests, _: Attempt) -> None:
        await (await client.sdk()).abort_multipart_upload(**place)

    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(ABORT_SECONDS):
            await step(abort)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
