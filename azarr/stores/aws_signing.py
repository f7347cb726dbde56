"""Signatures of requests to S3 (AWS Signature Version 4), at some ten microseconds each.

What botocore computes from the start for every request is kept here for as long as it stays the same: the signing key for a day.
"""

from __future__ import annotations

import re
import time
from hashlib import sha256
from hmac import digest
from typing import NamedTuple
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
"""Stands for the hash of a body that is not signed."""

EMPTY = sha256(b"").hexdigest()
"""The hash of no body."""

_PLAIN = re.compile(r"[A-Za-z0-9/._~-]*")


class Credentials(NamedTuple):
    """Who signs; ``token`` belongs to keys that are lent for a time."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "<credentials>"


class Signer:
    """Signs requests to ``service`` in ``region`` in the name of ``credentials``."""

    __slots__ = ("_credential", "_day", "_key", "_scope", "_second", "_stamp", "_where", "credentials", "region")

    def __init__(self, credentials: Credentials, region: str, service: str = "s3") -> None:
        self.credentials, self.region = credentials, region
        self._where = region, service
        self._second, self._stamp = -1, ""
        self._day, self._key = "", b""
        self._scope = self._credential = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.region}>"

    def sign(self, method: str, path: str, query: str, headers: dict[str, str], payload: str, seconds: float) -> None:
        """Add to ``headers`` what makes them a signed request.

        Args:
            method: In capitals.
            path: As it is sent: quoted.
            query: As it is sent: quoted, and sorted by the quoted names, as ``query_of`` has it.
            headers: Those that are signed, ``host`` among them; names in small letters.
            payload: The hash of the body, or ``UNSIGNED``.
            seconds: The time now, since 1970.

        """
        if int(seconds) != self._second:
            self._tick(int(seconds))
        headers["x-amz-date"] = self._stamp
        headers["x-amz-content-sha256"] = payload
        if self.credentials.token:
            headers["x-amz-security-token"] = self.credentials.token
        names = sorted(headers)
        signed = ";".join(names)
        lines = "\n".join([f"{name}:{' '.join(headers[name].split())}" for name in names])
        canonical = f"{method}\n{path}\n{query}\n{lines}\n\n{signed}\n{payload}"
        text = f"AWS4-HMAC-SHA256\n{self._stamp}\n{self._scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = digest(self._key, text.encode(), "sha256").hex()
        headers["authorization"] = f"{self._credential}, SignedHeaders={signed}, Signature={signature}"

    def _tick(self, second: int) -> None:
        self._second, self._stamp = second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day = self._stamp[:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, *self._where, "aws4_request"):
                key = digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
            self._scope = "/".join((day, *self._where, "aws4_request"))
            self._credential = f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{self._scope}"


def quoted(key: str) -> str:
    """``key`` as a part of a path: all but letters, digits and ``-._~/`` as ``%XX``."""
    return key if _PLAIN.fullmatch(key) else quote(key, safe="/")


def query_of(parameters: dict[str, str]) -> str:
    """A query as it is sent and signed."""
    quoted_pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in quoted_pairs)
