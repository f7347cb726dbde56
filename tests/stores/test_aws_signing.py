"""Signatures are those of botocore."""

from __future__ import annotations

import pickle
import re
from datetime import UTC, datetime
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.stores.aws_signing import EMPTY, UNSIGNED, Credentials, Signer, query_of, quoted

NOW = 1_770_000_000.5

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=20).filter(str.strip)
NAMES = st.from_regex("x-amz-meta-[a-z]{1,8}|range|if-match|if-none-match", fullmatch=True)


def signed(signer, method, path, query, headers, payload=EMPTY, now=NOW):
    sent = dict(headers)
    signer.sign(method, path, query, sent, payload, now)
    return sent


@pytest.fixture(scope="module")
def signed_by_botocore():
    auth = pytest.importorskip("botocore.auth", reason='pip install "azarr[s3]"')
    from botocore.awsrequest import AWSRequest

    def sign(credentials, method, url, headers, now=NOW):
        request = AWSRequest(method, url, headers=headers)
        with mock.patch.object(auth, "get_current_datetime", return_value=datetime.fromtimestamp(now, UTC)):
            auth.S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
        return request.headers

    return sign


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"]),
    key=TEXT,
    query=st.dictionaries(TEXT, st.text(max_size=10), max_size=3),
    headers=st.dictionaries(NAMES, WORDS, max_size=3),
    secret=WORDS,
    token=st.none() | WORDS.map(str.strip),
    days=st.integers(0, 1000),
)
def test_as_botocore_signs(signed_by_botocore, method, key, query, headers, secret, token, days):
    now = NOW + days * 86_400
    credentials = Credentials("AKIDEXAMPLE", secret, token)
    path, query = f"/bucket/{quoted(key)}", query_of(query)
    url = f"https://s3.example.org{path}?{query}" if query else f"https://s3.example.org{path}"
    theirs = signed_by_botocore(credentials, method, url, headers, now)
    ours = signed(Signer(credentials, "eu-west-1"), method, path, query, {"host": "s3.example.org", **headers}, EMPTY, now)
    assert ours["authorization"] == theirs["Authorization"]
    assert ours["x-amz-date"] == theirs["X-Amz-Date"]


def test_the_published_example():
    """GET of an object, from the documentation of Signature Version 4."""
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}
    now = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
    sent = signed(Signer(credentials, "us-east-1"), "GET", "/test.txt", "", headers, EMPTY, now)
    assert sent["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_one_signer_for_many_days_and_seconds():
    credentials = Credentials("AK", "SK", "TOKEN")
    signer = Signer(credentials, "eu-west-1")
    for now in (NOW, NOW + 0.4, NOW + 1, NOW + 86_400, NOW):
        headers = {"host": "h"}
        assert signed(signer, "GET", "/k", "", headers, UNSIGNED, now) == signed(
            Signer(credentials, "eu-west-1"), "GET", "/k", "", headers, UNSIGNED, now
        )


@given(TEXT)
def test_keys_in_paths(key):
    path = quoted(key)
    assert re.fullmatch(r"([A-Za-z0-9/._~-]|%[0-9A-F]{2})*", path)
    from urllib.parse import unquote

    assert unquote(path) == key


def test_queries():
    assert query_of({}) == ""
    assert query_of({"uploadId": "a/b+c=", "partNumber": "1"}) == "partNumber=1&uploadId=a%2Fb%2Bc%3D"


def test_secrets_are_not_shown():
    credentials = Credentials("AKID", "very-secret", "token")
    for text in (repr(credentials), str(credentials), repr(Signer(credentials, "r")), f"{credentials}"):
        assert "AKID" not in text
        assert "secret" not in text
    assert pickle.loads(pickle.dumps(credentials)) == credentials
