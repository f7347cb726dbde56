"""What a worker process does with requests, seen from within: here it is this process."""

from __future__ import annotations

import base64
import io
import os
import pickle
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from azarr import codecs
from azarr import process_worker as module
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import ChecksumError, CodecError, StoreError
from azarr.process_worker import DECODE, DONE, ENCODE, FAILED, FORGET, LEARN, READY, REPLY, REQUEST, SIZE, Worker, portable, serve, unpacked
from azarr.shared_memory import SharedMemory
from azarr.types import ChunkSpec

PATIENCE = 30
SPEC = ChunkSpec((4, 5), np.dtype("f8"), np.float64(0))
PIPELINE = CodecPipeline([codecs.Bytes("little"), codecs.Zstd(), codecs.Crc32c()], SPEC)
CHUNK = np.arange(20.0).reshape(4, 5)


@pytest.fixture
def memory():
    made = SharedMemory(), SharedMemory()
    yield made
    for each in made:
        each.close()


@pytest.fixture
def worker(memory):
    made = Worker(*memory, None)
    assert answer(made, LEARN, 3, payload=pickle.dumps(PIPELINE)) == []
    return made


def answer(worker, operation, number, encoded_at=0, decoded_at=0, payload=b"", count=None):
    """The sizes that the answer has; its error is raised."""
    count = len(payload) if count is None else count
    reply = worker.answer(operation, number, encoded_at, decoded_at, count, io.BytesIO(payload))
    status, nbytes = REPLY.unpack_from(reply)
    assert len(reply) == REPLY.size + nbytes
    if status == FAILED:
        raise pickle.loads(reply[REPLY.size :])
    assert status == DONE
    return unpacked(reply[REPLY.size :])


def test_chunks_are_encoded_and_decoded_where_they_lie(worker, memory):
    encoded, decoded = memory
    np.ndarray((3, 4, 5), "f8", decoded.reserve(1000), 96)[:] = [CHUNK, np.zeros_like(CHUNK), CHUNK**2]
    first, second, third = answer(worker, ENCODE, 3, decoded_at=96, count=3)
    assert (PIPELINE.decode(encoded.view(0, first)) == CHUNK).all()
    assert (PIPELINE.decode(encoded.view(first, second)) == 0).all()
    assert (PIPELINE.decode(encoded.view(first + second, third)) == CHUNK**2).all()
    other = PIPELINE.encode(CHUNK * 2)
    row = other + PIPELINE.encode(CHUNK)
    encoded.reserve(10_000)[5000 : 5000 + len(row)] = row
    assert answer(worker, DECODE, 3, 5000, 32, SIZE.pack(len(other)) + SIZE.pack(len(row) - len(other)), count=2) == []
    assert (np.ndarray((2, 4, 5), "f8", decoded.view(0, 1000), 32) == [CHUNK * 2, CHUNK]).all()


def test_an_encoded_chunk_that_needs_more_makes_the_memory_grow(memory):
    spec = ChunkSpec((100_000,), np.dtype("u1"), np.uint8(0))
    worker = Worker(*memory, None)
    answer(worker, LEARN, 0, payload=pickle.dumps(CodecPipeline([codecs.Bytes(), codecs.Base64()], spec)))
    memory[1].reserve(100_000)[:] = b"\xff" * 100_000
    (nbytes,) = answer(worker, ENCODE, 0, count=1)
    assert nbytes > 100_000
    assert bytes(memory[0].view(0, nbytes)) == base64.b64encode(b"\xff" * 100_000)


def test_errors_come_back(worker, memory):
    encoded = PIPELINE.encode(CHUNK)
    memory[0].reserve(1000)[: len(encoded)] = encoded
    memory[0].view(0, 1)[0] ^= 1
    memory[1].reserve(1000)
    with pytest.raises(ChecksumError):
        answer(worker, DECODE, 3, payload=SIZE.pack(len(encoded)), count=1)
    with pytest.raises(CodecError, match="KeyError: 9"):
        answer(worker, ENCODE, 9)
    with pytest.raises(CodecError, match="Unpickl"):
        answer(worker, LEARN, 9, payload=b"not a pickle")
    assert answer(worker, FORGET, 3) == []
    with pytest.raises(CodecError, match="KeyError: 3"):
        answer(worker, ENCODE, 3)


class SettledError(Exception):
    def __reduce__(self):
        raise TypeError


class StubbornError(CodecError):
    def __init__(self) -> None:
        super().__init__("no arguments", codec="x")


@pytest.mark.parametrize("cause", [None, ValueError("why"), SettledError()])
def test_errors_of_azarr_travel_with_their_fields(cause):
    error = StoreError("text", key="a/b")
    error.__cause__ = cause
    back = pickle.loads(portable(error))
    assert (type(back), str(back), back.key) == (StoreError, "text", "a/b")
    assert isinstance(back.__cause__, ValueError) == isinstance(cause, ValueError)


@pytest.mark.parametrize("error", [ValueError("what it is"), SettledError("what it is"), KeyboardInterrupt("what it is")])
def test_other_errors_travel_as_words(error):
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001
        back = pickle.loads(portable(raised))
    assert type(back) is CodecError
    assert str(back) == f"{type(error).__name__}: what it is"
    assert "Traceback" in back.__notes__[0]


def test_an_error_of_azarr_that_cannot_travel_goes_as_words():
    assert str(pickle.loads(portable(StubbornError()))) == "StubbornError: x: no arguments"


def test_codecs_of_the_main_file_are_found(tmp_path, monkeypatch, memory):
    """The file is run under another name, so that what it guards does not run again."""
    main = tmp_path / "program.py"
    main.write_text(
        "from dataclasses import dataclass\nfrom azarr import codecs\n\n"
        "@dataclass(frozen=True)\nclass Mine(codecs.Crc32c):\n    x: int = 1\n\nif __name__ == '__main__':\n    raise SystemExit('again')\n"
    )
    script = (
        "import pickle, runpy, sys, numpy as np\n"
        "from azarr import codecs; from azarr.codecs.pipeline import CodecPipeline; from azarr.types import ChunkSpec\n"
        f"names = runpy.run_path({str(main)!r}, run_name='main')\n"
        "Mine = names['Mine']; Mine.__module__ = '__main__'; sys.modules['__main__'].Mine = Mine\n"
        "pipeline = CodecPipeline([codecs.Bytes(), Mine()], ChunkSpec((3,), np.dtype('u1'), np.uint8(0)))\n"
        "sys.stdout.buffer.write(pickle.dumps(pipeline))\n"
    )
    pickled = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(sys.modules, "__mp_main__", None)
    with pytest.raises(CodecError, match="Mine"):
        answer(Worker(*memory, None), LEARN, 0, payload=pickled)
    worker = Worker(*memory, ("path", str(main)))
    answer(worker, LEARN, 0, payload=pickled)
    memory[1].reserve(3)[:] = b"abc"
    assert answer(worker, ENCODE, 0, count=1) == [7]


def test_it_serves_until_the_connection_is_closed_for_requests(memory, monkeypatch):
    watched = []
    monkeypatch.setattr(module, "watch", lambda *args: watched.append(args))  # it would end this process
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs.detach(), *(os.dup(each.fileno) for each in memory), None), daemon=True)
    thread.start()
    ours.settimeout(PATIENCE)
    with ours, ours.makefile("rb") as replies:
        assert replies.read(REPLY.size) == READY
        pickled = pickle.dumps(PIPELINE)
        ours.sendall(REQUEST.pack(LEARN, 0, 0, 0, len(pickled)) + pickled)
        assert replies.read(REPLY.size) == REPLY.pack(DONE, 0)
        ours.shutdown(socket.SHUT_WR)
        thread.join(PATIENCE)
        assert not thread.is_alive()
    ((_, parent),) = watched
    assert parent == os.getppid()
