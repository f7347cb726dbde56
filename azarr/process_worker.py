"""The process beside a worker thread: it decodes and encodes chunks that lie in shared memory, one request at a time.

A request is a ``REQUEST``, and the ``SIZE`` of each chunk to decode, or a pickled pipeline; the answer is a ``REPLY``, and the ``SIZE`` of
each chunk that was encoded, or a pickled error where it says so. Nothing else is pickled.
"""

from __future__ import annotations

import os
import pickle
import runpy
import select
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import BinaryIO, Final

import numpy as np

from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, ZarrError
from azarr.shared_memory import SharedMemory

REQUEST: Final = struct.Struct("<5Q")
"""What to do, the number of the pipeline, where the encoded and the decoded chunks start, and how many chunks (or pickled bytes) there are.

Encoded chunks lie one behind the other, and decoded ones, too.
"""

SIZE: Final = struct.Struct("<Q")
"""The size of an encoded chunk in bytes."""

REPLY: Final = struct.Struct("<2Q")
"""Whether it failed, and how many bytes follow: the sizes of what was encoded, or the error."""

DECODE, ENCODE, LEARN, FORGET = range(4)
"""Decode chunks side by side; encode such; take up a pipeline; let go of one."""

DONE, FAILED = range(2)

READY: Final = REPLY.pack(DONE, 0)
"""What comes before the first request."""

LOOK_SECONDS = 5.0
"""How often to look whether the parent is still there, where a copy of the parent holds the connection open."""


def serve(connection: int, encoded: int, decoded: int, main: tuple[str, str] | None) -> None:
    """Serve until the parent closes the connection; all but ``main`` are descriptors.

    ``main`` says how to run the main file of the parent, in which codecs may be defined: whether it is a path or a module, and which.
    """
    threading.Thread(target=watch, args=(connection, os.getppid()), daemon=True).start()
    worker = Worker(SharedMemory(encoded), SharedMemory(decoded), main)
    with socket.socket(fileno=connection) as channel, channel.makefile("rb") as requests:
        channel.sendall(READY)
        while header := requests.read(REQUEST.size):
            operation, number, encoded_at, decoded_at, count = REQUEST.unpack(header)
            channel.sendall(worker.answer(operation, number, encoded_at, decoded_at, count, requests))


def watch(connection: int, parent: int) -> None:
    """End this process at once, whatever it does, when the parent has died; one that only closes its side waits for an end in order."""
    poll = select.poll()
    poll.register(connection, 0)
    while os.getppid() == parent and not poll.poll(LOOK_SECONDS * 1000):
        pass
    os._exit(1)


class Worker:
    """What the process knows: the shared memory, and the pipelines by number."""

    def __init__(self, encoded: SharedMemory, decoded: SharedMemory, main: tuple[str, str] | None) -> None:
        self._encoded, self._decoded, self._main = encoded, decoded, main
        self._pipelines: dict[int, CodecPipeline] = {}

    def answer(self, operation: int, number: int, encoded_at: int, decoded_at: int, count: int, requests: BinaryIO) -> bytes:
        """Do what is asked for; what to send back."""
        sizes = b""
        try:
            if operation == LEARN:
                self._learn(number, requests.read(count))
            elif operation == FORGET:
                del self._pipelines[number]
            elif operation == DECODE:
                self._decode(self._pipelines[number], unpacked(requests.read(count * SIZE.size)), encoded_at, decoded_at)
            else:
                sizes = b"".join(map(SIZE.pack, self._encode(self._pipelines[number], count, decoded_at)))
        except BaseException as error:  # noqa: BLE001 - whatever a codec raises is for the parent
            message = portable(error)
            return REPLY.pack(FAILED, len(message)) + message
        return REPLY.pack(DONE, len(sizes)) + sizes

    def _learn(self, number: int, pickled: bytes) -> None:
        if self._main is not None and b"__main__" in pickled:
            take_main(*self._main)
            self._main = None
        self._pipelines[number] = pickle.loads(pickled)  # noqa: S301 - from the parent

    def _decode(self, pipeline: CodecPipeline, sizes: Sequence[int], encoded_at: int, decoded_at: int) -> None:
        spec = pipeline.spec
        nbytes = spec.nelements * spec.dtype.itemsize
        data, memory = self._encoded.view(encoded_at, sum(sizes)).toreadonly(), self._decoded.view(decoded_at, nbytes * len(sizes))
        if len(sizes) > 1 and pipeline.joinable and pipeline.decode_joined_into(data, sizes, memory):
            return
        position = 0
        for number, size in enumerate(sizes):
            pipeline.decode_into(data[position : position + size], np.ndarray(spec.shape, spec.dtype, memory, number * nbytes))
            position += size

    def _encode(self, pipeline: CodecPipeline, count: int, start: int) -> list[int]:
        spec, sizes, end = pipeline.spec, [], 0
        nbytes = spec.nelements * spec.dtype.itemsize
        memory = self._decoded.view(start, nbytes * count).toreadonly()
        for number in range(count):
            data = pipeline.encode(np.ndarray(spec.shape, spec.dtype, memory, number * nbytes))
            begin, end = end, end + len(data)
            self._encoded.reserve(end)[begin:] = data
            sizes.append(len(data))
        return sizes


def unpacked(sizes: bytes) -> list[int]:
    """The sizes of chunks, as they are sent."""
    return [size for (size,) in SIZE.iter_unpack(sizes)]


def take_main(kind: str, where: str) -> None:
    """Run the parent's main file under another name than ``__main__``, as multiprocessing does, and let its names be found there."""
    run: Callable[..., dict[str, object]] = runpy.run_path if kind == "path" else runpy.run_module
    module = ModuleType("__mp_main__")
    module.__dict__.update(run(where, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def portable(error: BaseException) -> bytes:
    """The error pickled: one of azarr's as it is, any other as a ``CodecError`` that has its text."""
    if isinstance(error, ZarrError):
        for cause in (error.__cause__, None):
            error.__cause__ = cause
            try:
                message = pickle.dumps(error)
                pickle.loads(message)  # noqa: S301 - our own
            except Exception:  # noqa: BLE001, S112 - a cause, or a field, that is not made for it
                continue
            return message
    stand_in = CodecError(f"{type(error).__name__}: {error}")
    stand_in.add_note("In the worker process:\n" + "".join(traceback.format_exception(error)))
    return pickle.dumps(stand_in)
