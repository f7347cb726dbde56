"""One worker process, as the thread sees it that it works for: started when it is needed, replaced when it dies, ended with the thread."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final, cast

import numpy as np

from azarr.codecs import scratch
from azarr.errors import WorkerError, ZarrError
from azarr.process_worker import DECODE, DONE, ENCODE, FORGET, LEARN, READY, REPLY, REQUEST, SIZE, unpacked
from azarr.shared_memory import SharedMemory, copy_bytes
from azarr.types import Array, Buffer, ChunkSpec

ATTEMPTS = 3
"""How many processes may die of the same request before it fails: one that was killed from outside, or by chance, costs nothing."""

PIPELINES = 64
"""How many pipelines a process keeps."""

HELD_NBYTES = 256 * 2**10
"""Up to here, copying takes less time than another thread would win by having the interpreter lock meanwhile."""

START_SECONDS = 60.0
"""What a process may take to start."""

GRACE_SECONDS = 1.0
"""What a process may take to end before it is killed."""

BOOT: Final = """
import sys
sys.path[:] = {path}
try:
    from azarr.process_worker import serve
except BaseException:
    import os, traceback
    os.write({inherited[0]}, traceback.format_exc().encode(errors="replace")[-4000:])
    os._exit(1)
serve(*{inherited}, {main})
"""
"""What the interpreter of the process is given to run. What keeps azarr from being imported there comes back in words."""


class PipelineRefusedError(Exception):
    """There is no process that decodes and encodes with this pipeline; raised from the error that says why."""


class WorkerProcess:
    """A process that decodes and encodes for the thread that this belongs to, and the memory that both see.

    Both are there from the first chunk on. The memory is the scratch memory of the thread then, too: what is read from stores, and chunks
    on their way into an array, need not be copied to where the process sees them.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        """The process of the thread; a forked copy of that one has no part in this."""
        self._memory: tuple[SharedMemory, SharedMemory] | None = None
        self._link: Link | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process; ``None`` where none runs."""
        return None if self._link is None else self._link.process.pid

    def decode(self, number: int, pickled: bytes, data: Buffer, sizes: Sequence[int], out: memoryview) -> None:
        """Fill ``out`` with the decoded chunks, side by side, whose ``sizes`` bytes lie one behind the other in ``data``.

        ``pickled`` is the pipeline that goes by ``number``.
        """
        encoded, decoded = self._memory or self._begin()
        encoded_at, decoded_at = encoded.place_of(data), decoded.place_of(out)
        if encoded_at is None:
            copy_bytes(data, encoded.reserve(len(data)))
        memory = decoded.reserve(len(out)) if decoded_at is None else out
        request = REQUEST.pack(DECODE, number, encoded_at or 0, decoded_at or 0, len(sizes))
        self._ask(number, pickled, b"".join([request, *map(SIZE.pack, sizes)]))
        if decoded_at is None:
            copy_bytes(memory, out)

    def encode(self, number: int, pickled: bytes, chunks: Sequence[Array], spec: ChunkSpec) -> list[Buffer]:
        """The bytes of ``chunks``, each in memory of its own."""
        encoded, decoded = self._memory or self._begin()
        nbytes = spec.nelements * spec.dtype.itemsize
        memory = decoded.reserve(nbytes * len(chunks))
        for position, chunk in enumerate(chunks):
            np.copyto(np.ndarray(spec.shape, spec.dtype, memory, position * nbytes), chunk)
        sizes = self._ask(number, pickled, REQUEST.pack(ENCODE, number, 0, 0, len(chunks)))
        ends = accumulate(sizes)
        return [own_copy(encoded.view(end - size, size)) for size, end in zip(sizes, ends, strict=True)]

    def close(self) -> None:
        """End the process, at the latest after ``GRACE_SECONDS``, and give back everything; in the thread that it belongs to."""
        scratch.encoded.lender = scratch.decoded.lender = None
        if self._link is not None:
            self._link.close()
        for memory in self._memory or ():
            memory.close()

    def _begin(self) -> tuple[SharedMemory, SharedMemory]:
        self._memory = encoded, decoded = SharedMemory(), SharedMemory()
        scratch.encoded.lender, scratch.decoded.lender = encoded.reserve, decoded.reserve
        return self._memory

    def _ask(self, number: int, pickled: bytes, request: bytes) -> list[int]:
        """The sizes that the answer gives; the error where it is one. A process that dies meanwhile is replaced."""
        exit_code = None
        for _ in range(ATTEMPTS):
            if self._link is None:
                self._link = start([memory.fileno for memory in self._memory or self._begin()])
            try:
                refusal = self._link.teach(number, pickled)
                answer = self._link.ask(request) if refusal is None else refusal
            except (OSError, EOFError):
                exit_code = self._link.end()
                self._link = None
                continue
            if refusal is not None:
                raise PipelineRefusedError from refusal
            if isinstance(answer, ZarrError):
                raise answer
            return answer
        raise WorkerError(f"{ATTEMPTS} processes in a row died of this chunk, the last one {ending(exit_code)}", exit_code=exit_code)


def own_copy(data: memoryview) -> Buffer:
    """The bytes of ``data`` in memory of their own."""
    if len(data) <= HELD_NBYTES:
        return bytes(data)
    copy = memoryview(bytearray(len(data)))
    copy_bytes(data, copy)
    return copy


class Link:
    """The connection to one process that runs."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.process, self._connection = process, connection
        self._replies = connection.makefile("rb")
        self._known: OrderedDict[int, None] = OrderedDict()

    def teach(self, number: int, pickled: bytes) -> ZarrError | None:
        """Let the process know the pipeline; why it cannot take it up, if so."""
        if number in self._known:
            self._known.move_to_end(number)
            return None
        if len(self._known) >= PIPELINES:
            self.ask(REQUEST.pack(FORGET, self._known.popitem(last=False)[0], 0, 0, 0))
        answer = self.ask(REQUEST.pack(LEARN, number, 0, 0, len(pickled)) + pickled)
        if isinstance(answer, ZarrError):
            return answer
        self._known[number] = None
        return None

    def ask(self, request: bytes) -> list[int] | ZarrError:
        """The sizes that the answer gives, or the error that it is; ``OSError`` or ``EOFError`` where the process has died."""
        self._connection.sendall(request)
        status, nbytes = REPLY.unpack(self._receive(REPLY.size))
        rest = self._receive(nbytes)
        return unpacked(rest) if status == DONE else cast("ZarrError", pickle.loads(rest))  # noqa: S301 - from our own process

    def _receive(self, nbytes: int) -> bytes:
        data = self._replies.read(nbytes)
        if len(data) < nbytes:
            raise EOFError
        return data

    def close(self) -> None:
        """Ask the process to end, and see that it does."""
        with suppress(OSError):  # it has ended already
            self._connection.shutdown(socket.SHUT_WR)
        self.end()

    def end(self) -> int:
        """How the process has ended, which it is about to; it is killed where it is not."""
        try:
            return self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._replies.close()
            self._connection.close()


def start(memory: Sequence[int]) -> Link:
    """A new process that sees the memory behind these descriptors; it begins with the search path of this one."""
    if getattr(sys, "frozen", False):
        raise PipelineRefusedError from WorkerError("a worker process needs a Python interpreter, which a frozen program does not have")
    connection, theirs = socket.socketpair()
    inherited = (theirs.fileno(), *memory)
    boot = BOOT.format(path=[str(each) for each in sys.path], inherited=inherited, main=main_file())
    # Interrupts from a terminal are for the parent to handle; a process does not listen to what its parent's thread does not.
    listened = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-P", "-c", boot], stdin=subprocess.DEVNULL, pass_fds=inherited
            )
    except OSError as error:
        connection.close()
        raise PipelineRefusedError from WorkerError(f"a worker process cannot be started: {error}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, listened)
    said = first_words(connection)
    link = Link(process, connection)
    if said != READY:
        exit_code = link.end()
        reason = said.decode(errors="replace").strip()[-2000:] or "it gave no reason; see the standard error"
        message = f"a worker process could not start, and was {ending(exit_code)}: {reason}"
        raise PipelineRefusedError from WorkerError(message, exit_code=exit_code)
    return link


def first_words(connection: socket.socket) -> bytes:
    """What a process says until it is ready, or ends, or takes too long."""
    said = b""
    connection.settimeout(START_SECONDS)
    try:
        while said != READY and (part := connection.recv(4096)):
            said += part
    except OSError:
        pass  # it takes too long, or died with something unread
    connection.settimeout(None)
    return said


def main_file() -> tuple[str, str] | None:
    """The main file of this program, as a module or a path, in which codecs may be defined; ``None`` where there is none."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and not spec.name.endswith("__main__"):
        return "module", spec.name
    file = getattr(main, "__file__", None)
    return ("path", file) if spec is None and file is not None else None


def ending(exit_code: int | None) -> str:
    """How a process ended."""
    if exit_code is not None and exit_code < 0:
        known = {each.value: each.name for each in signal.Signals}
        return f"killed by {known.get(-exit_code, f'signal {-exit_code}')}"
    return f"ended with exit code {exit_code}"
