"""A codec pipeline that does its work in the worker process of the calling thread."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from azarr.codecs import scratch
from azarr.codecs.base import bytes_of
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError
from azarr.types import Array, Buffer, ChunkSpec
from azarr.worker_process import PipelineRefusedError, WorkerProcess

Place = Callable[[CodecPipeline], CodecPipeline]
"""Chooses where a pipeline does its work."""


ASKED_NBYTES = 8 * 2**20
"""Decoded bytes of neighbouring chunks for which a process is asked once: with 1 MiB, a third of the time went into waking each other."""


GIVEN_NBYTES = 2**20
"""The same of chunks that a process is given to encode: they are copied for that, which is best done while a cache holds them."""


class ProcessPipeline(CodecPipeline):
    """Does what ``plain`` does in the process of ``local.worker``; in a thread without one it does it there.

    The processes know it by ``number`` and as ``pickled``. Where they refuse it, for ``tolerant`` ones ``plain`` takes over. A pickled
    copy is ``plain`` itself.
    """

    __slots__ = ("_local", "_number", "_pickled", "_place", "_plain", "_tolerant")

    def __init__(
        self, plain: CodecPipeline, local: threading.local, number: int, pickled: bytes, place: Place, *, tolerant: bool = False
    ) -> None:
        for name in CodecPipeline.__slots__:
            setattr(self, name, getattr(plain, name))
        self._plain, self._local, self._number, self._pickled = plain, local, number, pickled
        self._place, self._tolerant = place, tolerant
        self.joinable = self.direct and self.compressed

    def __reduce__(self) -> Any:
        return self._plain.__reduce__()

    @property
    def run_nbytes(self) -> int:
        """So many that asking the process costs little beside decoding them."""
        return ASKED_NBYTES

    @property
    def together(self) -> int:
        """As many as a process is given at once."""
        return max(1, GIVEN_NBYTES // self.spec.nbytes)

    @property
    def field(self) -> tuple[str, ...]:
        """As of the pipeline."""
        return self._plain.field

    @property
    def whole(self) -> CodecPipeline:
        """As of the pipeline, in the processes, too."""
        return self._place(self._plain.whole) if self._plain.field else self

    def rebound(self, spec: ChunkSpec) -> CodecPipeline:
        """As of the pipeline, in the processes, too."""
        return self._place(self._plain.rebound(spec))

    def encode(self, chunk: Array) -> Buffer:
        """As of the pipeline."""
        encoded = self._encoded((chunk,))
        return self._plain.encode(chunk) if encoded is None else encoded[0]

    def encode_each(self, chunks: Iterable[Array]) -> Iterator[Buffer]:
        """As of the pipeline."""
        rest = iter(chunks)
        while some := list(itertools.islice(rest, self.together)):
            try:
                encoded = self._encoded(some)
            except CodecError:  # one by one shows of which
                encoded = None
            yield from map(self.encode, some) if encoded is None else encoded

    def decode(self, data: Buffer) -> Array:
        """As of the pipeline; always an array of its own."""
        chunk = np.empty(self.spec.shape, self.spec.dtype)
        self.decode_into(data, chunk)
        return chunk

    def decode_into(self, data: Buffer, out: Array) -> None:
        """As of the pipeline."""
        if out.flags.c_contiguous and out.dtype == self.spec.dtype:
            self._fill(data, bytes_of(out))
        else:
            np.copyto(out, self.decode_scratch(data))

    def decode_scratch(self, data: Buffer) -> Array:
        """As of the pipeline."""
        memory = scratch.decoded.reserve(self.spec.nelements * self.spec.dtype.itemsize)
        self._fill(data, memory)
        return np.ndarray(self.spec.shape, self.spec.dtype, memory.toreadonly())

    def decode_bytes_into(self, data: Buffer, out: memoryview) -> None:
        """As of the pipeline."""
        self._fill(data, out)

    def decode_joined_into(self, data: Buffer, sizes: Sequence[int], out: memoryview) -> bool:
        """As of the pipeline; any ``direct`` one here, since a row of chunks for one request is worth more than a joint decoding."""
        try:
            return self._decoded(data, sizes, out)
        except CodecError:  # one by one shows of which
            return False

    def _fill(self, data: Buffer, out: memoryview) -> None:
        if not self._decoded(data, (len(data),), out):
            self._plain.decode_into(data, np.ndarray(self.spec.shape, self.spec.dtype, out))

    def _decoded(self, data: Buffer, sizes: Sequence[int], out: memoryview) -> bool:
        """Whether chunks have been decoded in the process; else it is up to the caller."""
        if (worker := self._worker()) is None:
            return False
        try:
            worker.decode(self._number, self._pickled, data[: sum(sizes)], sizes, out)
        except PipelineRefusedError as error:
            self._refused(error)
            return False
        return True

    def _encoded(self, chunks: Sequence[Array]) -> list[Buffer] | None:
        """Chunks encoded in the process; ``None`` where that is up to the caller."""
        worker = None if self._plain.field else self._worker()
        if worker is None:
            return None
        try:
            return worker.encode(self._number, self._pickled, chunks, self.spec)
        except PipelineRefusedError as error:
            self._refused(error)
            return None

    def _worker(self) -> WorkerProcess | None:
        """What belongs to this thread."""
        worker: WorkerProcess | None = getattr(self._local, "worker", None)
        return worker if worker is not None and worker.owner == os.getpid() else None

    def _refused(self, error: PipelineRefusedError) -> None:
        """Let the plain pipeline take over, for good, or raise the reason why not."""
        if not self._tolerant:
            raise error.__cause__ or error
        self._local = threading.local()
