"""The servers do what the tests of the stores take for granted, asked by clients that are not azarr's."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import servers

from azarr.testing import FaultProxy
from azarr.testing.faults import BrokenBody, LostResponse


def fetch(url, **headers):
    """Status, headers and body of a GET request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_s3(s3_server, s3_admin, s3_bucket):
    assert s3_admin.list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0
    s3_admin.put_object(Bucket=s3_bucket, Key="a/b", Body=b"0123456789", IfNoneMatch="*")
    with pytest.raises(s3_admin.exceptions.ClientError, match="Precondition"):
        s3_admin.put_object(Bucket=s3_bucket, Key="a/b", Body=b"", IfNoneMatch="*")
    assert s3_admin.get_object(Bucket=s3_bucket, Key="a/b", Range="bytes=2-4")["Body"].read() == b"234"
    assert [each["Key"] for each in s3_admin.list_objects_v2(Bucket=s3_bucket)["Contents"]] == ["a/b"]
    assert fetch(f"{s3_server.url}/{s3_bucket}/a/b")[0] == 403


def test_bucket_is_empty_for_each_test(s3_admin, s3_bucket):
    assert s3_admin.list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0
    with pytest.raises(s3_admin.exceptions.NoSuchKey):
        s3_admin.get_object(Bucket=s3_bucket, Key="a/b")


def test_gcs(gcs_server, gcs_bucket):
    url = f"{gcs_server.url}/upload/storage/v1/b/{gcs_bucket}/o?uploadType=media&name=a/b"
    with urllib.request.urlopen(urllib.request.Request(url, b"0123456789", {"Content-Type": "application/octet-stream"}), timeout=30):
        pass
    url = f"{gcs_server.url}/storage/v1/b/{gcs_bucket}/o/a%2Fb?alt=media"
    assert fetch(url)[2] == b"0123456789"
    assert fetch(url, Range="bytes=2-4")[::2] == (206, b"234")
    assert fetch(url.replace("a%2Fb", "missing"))[0] == 404


def test_azure(azure_server, azure_admin, azure_container):
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceModifiedError

    blob = azure_admin.get_blob_client(azure_container, "a/b")
    tag = blob.upload_blob(b"0123456789")["etag"]
    assert blob.download_blob(offset=2, length=3).readall() == b"234"
    blob.upload_blob(b"new", overwrite=True)
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"newer", overwrite=True, etag=tag, match_condition=MatchConditions.IfNotModified)
    assert fetch(f"{azure_server.url}/{azure_container}/a/b")[0] in {403, 404, 409}


def test_mongodb(mongodb_admin, mongodb_database):
    import gridfs

    bucket = gridfs.GridFSBucket(mongodb_admin[mongodb_database])
    bucket.upload_from_stream("a/b", b"0123456789")
    with bucket.open_download_stream_by_name("a/b") as stream:
        assert stream.read() == b"0123456789"
    assert mongodb_admin[mongodb_database]["fs.files"].count_documents({}) == 1


def test_redis(redis_admin, redis_database):
    assert redis_admin.dbsize() == 0
    redis_admin.set("a/b", b"0123456789")
    assert redis_admin.getrange("a/b", 2, 4) == b"234"
    assert redis_admin.eval("return redis.call('strlen', KEYS[1])", 1, "a/b") == 10


def test_nginx(nginx_server, nginx_folder):
    (nginx_server.root / nginx_folder / "a").write_bytes(b"0123456789")
    url = f"{nginx_server.url}/{nginx_folder}/a"
    status, headers, body = fetch(url, Range="bytes=2-4")
    assert (status, body) == (206, b"234")
    assert fetch(url, **{"If-Match": '"other"'})[0] == 412
    assert headers["ETag"]
    assert fetch(f"{nginx_server.url}/{nginx_folder}/missing")[0] == 404


async def read(client, bucket):
    response = await client.get_object(Bucket=bucket, Key="a")
    async with response["Body"] as body:
        return await body.read()


async def test_signed_requests_go_through_a_proxy(s3_server, s3_bucket):
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    def break_once(request):
        if request.method == "PUT":
            return LostResponse() if request.number == 0 else None
        return BrokenBody() if request.number == 2 else None

    config = AioConfig(s3={"addressing_style": "path"}, retries={"mode": "standard", "total_max_attempts": 3})
    keys = {"aws_access_key_id": s3_server.access_key, "aws_secret_access_key": s3_server.secret_key}
    async with (
        FaultProxy(s3_server.host, s3_server.port, faults=break_once) as proxy,
        AioSession().create_client("s3", endpoint_url=proxy.url, region_name=s3_server.region, config=config, **keys) as client,
    ):
        await client.put_object(Bucket=s3_bucket, Key="a", Body=bytes(100_000))
        with pytest.raises(Exception, match="(?i)payload|connection|read"):
            await read(client, s3_bucket)
        assert await read(client, s3_bucket) == bytes(100_000)
        assert proxy.injected == {"lost_response": 1, "broken_body": 1}


async def test_redis_through_a_proxy(redis_server, redis_admin, redis_database):
    import redis.asyncio
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    def lose(request):
        return LostResponse() if b"lost" in request.head else None

    async with (
        FaultProxy(redis_server.host, redis_server.port, protocol="tcp", faults=lose) as proxy,
        redis.asyncio.Redis(host=proxy.host, port=proxy.port, retry=Retry(NoBackoff(), 0)) as client,
    ):
        assert await client.set("a", b"1")
        with pytest.raises(redis.ConnectionError):
            await client.set("lost", b"2")
        assert await client.get("a") == b"1"
    assert redis_admin.get("lost") == b"2"


def test_server_that_is_not_installed(monkeypatch):
    for value, outcome in (("", pytest.skip.Exception), ("0", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("AZARR_REQUIRE_SERVERS", value)
        with pytest.raises(outcome, match="no-such-server is not installed: buy it"):
            servers.find_program("no-such-server", get="buy it")


def test_programs_are_looked_for_in_folders_of_servers(monkeypatch, tmp_path):
    for folder in ("one/bin", "two/npm/node_modules/.bin"):
        program = tmp_path / folder / folder.replace("/", "-")
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        monkeypatch.setenv("AZARR_SERVERS", os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "two")]))
        assert Path(servers.find_program(program.name, get="")) == program


def test_server_that_does_not_start(tmp_path):
    with (
        pytest.raises(pytest.fail.Exception, match="no such luck"),
        servers.running([sys.executable, "-c", "exit('no such luck')"], tmp_path, servers.listens(1)),
    ):
        pass


def test_server_is_gone_afterwards(tmp_path):
    command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    log = tmp_path / "log"
    with servers.running(command, tmp_path, lambda: log.read_text().endswith("\n")):
        number = int(log.read_text())
        os.kill(number, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: apt-get install util-linux")
def test_servers_end_with_tests_that_are_killed(tmp_path):
    code = f"""
import sys, pathlib, os
sys.path.insert(0, {str(Path(servers.__file__).parent)!r})
import servers
log = pathlib.Path({str(tmp_path)!r}, "log")
command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
with servers.running(command, log.parent, lambda: log.read_text().endswith(chr(10))):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    number = int((tmp_path / "log").read_text())
    with suppress(ProcessLookupError):
        ended, _, _ = select.select([os.pidfd_open(number)], [], [], 30)
        assert ended
