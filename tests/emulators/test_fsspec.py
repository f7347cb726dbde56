"""FsspecStore with s3fs, an asynchronous file system, on a server of S3."""

from __future__ import annotations

import uuid

import pytest

from azarr.errors import StoreError
from azarr.testing import StoreSuite

pytest.importorskip("s3fs", reason="needs s3fs: pip install --group emulators")

from azarr.integrations.fsspec import FsspecStore  # not before it is known that there is fsspec


def store_of(server, bucket, **options):
    """A store of a place of its own in the bucket."""
    known = {
        "key": server.access_key,
        "secret": server.secret_key,
        "endpoint_url": server.url,
        "client_kwargs": {"region_name": server.region},
    }
    return FsspecStore.from_url(f"s3://{bucket}/t/{uuid.uuid4().hex}", **{**known, **options})


class TestOnTheLoopOfFsspec(StoreSuite):
    @pytest.fixture
    async def store(self, s3_server, s3_bucket):
        return store_of(s3_server, s3_bucket)

    @pytest.mark.skip("SeaweedFS lists folders that are empty for a while; the suites on other file systems have this test")
    async def test_erase_prefix(self, store):
        pass

    test_erase_prefix_of_everything = test_erase_prefix


async def test_wrong_credentials(s3_server, s3_bucket):
    store = store_of(s3_server, s3_bucket, secret="wrongsecret")
    for request in (store.get("k"), store.set("k", b""), store.erase("k"), store.list_dir()):
        with pytest.raises(StoreError) as caught:
            await request
        assert "wrongsecret" not in str(caught.value)
