"""What S3 and its compatibles mean by answers that are no success, in azarr's errors.

Neither credentials nor signatures can get into a message: of what a server sends only its error code and its text are repeated, the text
cut, and left out where it could repeat a request.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.stores.s3_packages import ResponseParserError, aiohttp, botocore_errors

BODY_NBYTES = 64 * 2**10
"""How much of an error's body is read at most."""

ABSENT = "NoSuchKey"
"""The only error that proves that a key is absent."""

_TAG = {name: re.compile(rf"<{name}>([^<]{{1,500}})</{name}>") for name in ("Code", "Message", "Region")}
_REGION = re.compile(r"[a-z0-9-]{2,40}")
_SECRETIVE = re.compile(r"sign|credential|token|=[^ ]{16}", re.IGNORECASE)

_THROTTLED = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequests",
        "TooManyRequestsException",
        "Slow_Down",
    }
)
_TRANSIENT = frozenset(
    {
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "InvalidDigest",
        "OperationAborted",
        "ConditionalRequestConflict",
        "ServerBusy",
        "PriorRequestNotComplete",
    }
)
_FINAL = frozenset({501, 505})

_HINTS = {
    "NoSuchBucket": "there is no such bucket: check its name, the region and endpoint_url",
    "AccessDenied": "these credentials may not do that; S3 also says so of keys that are absent, unless s3:ListBucket is allowed",
    "InvalidAccessKeyId": "nobody has this access key there: check the credentials, the profile and endpoint_url",
    "SignatureDoesNotMatch": "the secret key is not the one of this access key, or something between changes requests",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "ExpiredToken": "the credentials have expired: pass new ones, or let them be found where they are renewed (profile, role)",
    "TokenRefreshRequired": "the credentials have expired: pass new ones, or let them be found where they are renewed (profile, role)",
    "InvalidToken": "the session token does not belong to this access key",
    "AuthorizationHeaderMalformed": "the bucket is in another region: pass its region",
    "PermanentRedirect": "the bucket is in another region or at another endpoint: pass its region, or endpoint_url",
    "TemporaryRedirect": "the bucket is in another region or at another endpoint: pass its region, or endpoint_url",
    "NotImplemented": "the server cannot do that; where conditional writes are meant, conditional=False does without",
    "EntityTooLarge": "the server does not store values of this size",
    "InvalidObjectState": "the value is archived and has to be restored first",
}


class Failure(NamedTuple):
    """An answer that is no success; ``code`` and ``text`` are empty where the server has sent none."""

    status: int
    code: str = ""
    text: str = ""
    region: str = ""
    retry_after: float | None = None
    skew: float | None = None


def failure_of(status: int, reason: str | None, headers: Mapping[str, str], body: bytes) -> Failure:
    """What an answer says of itself; ``headers`` are found by names in small letters."""
    page = body[:BODY_NBYTES].decode("utf-8", "replace")
    found = {name: html.unescape(match[1]) if (match := tag.search(page)) else "" for name, tag in _TAG.items()}
    code = found["Code"] if found["Code"].isascii() else ""
    if not code and status == 503 and (reason or "").replace(" ", "") == "SlowDown":  # an answer to HEAD has no body
        code = "SlowDown"
    region = headers.get("x-amz-bucket-region") or found["Region"]
    return Failure(status, code[:64], found["Message"], region if _REGION.fullmatch(region) else "", _retry_after(headers), _skew(headers))


def error_of(failure: Failure, key: str, where: str) -> StoreError:
    """The error to raise for ``key``, in full, of the store that ``where`` describes."""
    status, code = failure.status, failure.code
    said = f"{where} answered {status}{f' {code}' if code else ''} for {key!r}"
    if status in {412, 304} or code == "PreconditionFailed":
        return PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it")
    if code in _THROTTLED or status == 429 or (status == 503 and failure.retry_after is not None):
        return ThrottledError(f"{said}: it asks to slow down", retry_after=failure.retry_after)
    if code in _TRANSIENT or status == 408 or (status >= 500 and status not in _FINAL and code != "NotImplemented"):
        return TransientStoreError(said)
    hint = _HINTS.get(code) or _hint(status)
    if code == "RequestTimeTooSkewed" and failure.skew is not None:
        hint = f"{hint}: the server's is {failure.skew:+.0f} s from it"
    text = failure.text[:200].strip()
    if not text.isprintable() or _SECRETIVE.search(text):
        text = ""
    return StoreError(": ".join(filter(None, (said, text, hint))))


def _hint(status: int) -> str:
    if status in {401, 403}:
        return "access is denied: check the credentials, or pass anonymous=True for public data"
    if status == 404:
        return f"which is not how S3 says that a key is absent ({ABSENT}): check endpoint_url and the bucket"
    if 300 <= status < 400:
        return "redirects are not followed, as requests carry a signature: check the region and endpoint_url"
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, which come as milliseconds, as seconds, or as a date."""
    milliseconds, asked = headers.get("x-amz-retry-after", ""), headers.get("retry-after", "")
    try:
        if milliseconds:
            return max(0.0, float(milliseconds) / 1000)
        if asked:
            return max(0.0, float(asked))
    except ValueError:
        pass
    seconds = _seconds(asked)
    return None if seconds is None else max(0.0, seconds)


def _skew(headers: Mapping[str, str]) -> float | None:
    return _seconds(headers.get("date", ""))


def _seconds(date: str) -> float | None:
    """How far a date of HTTP lies ahead."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def known(error: Exception, key: str, where: str) -> StoreError | None:
    """What an exception of aiohttp or botocore means; ``None`` where that is unknown."""
    said = f"the request for {key!r} in {where} failed ({type(error).__name__})"
    if isinstance(error, botocore_errors.ClientError):
        about, what = error.response.get("ResponseMetadata", {}), error.response.get("Error", {})
        failure = failure_of(int(about.get("HTTPStatusCode", 0)), None, about.get("HTTPHeaders", {}), b"")
        code, text = str(what.get("Code", "")), str(what.get("Message", ""))
        failure = failure._replace(code="" if code.isdecimal() else code[:64], text=text)
        return error_of(failure, key, where)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | botocore_errors.SSLError):
        return StoreError(f"{said}: the certificate of the server is not trusted; AWS_CA_BUNDLE names those that are", key=key)
    if isinstance(error, aiohttp.InvalidURL):
        return StoreError(f"{said}: check endpoint_url", key=key)
    transient = (
        aiohttp.ClientError,
        ResponseParserError,
        botocore_errors.HTTPClientError,
        botocore_errors.CredentialRetrievalError,
        botocore_errors.MetadataRetrievalError,
    )
    if isinstance(error, transient):
        return TransientStoreError(said, key=key)
    if isinstance(error, botocore_errors.BotoCoreError):
        return StoreError(f"{said}: {error}", key=key)
    return None
