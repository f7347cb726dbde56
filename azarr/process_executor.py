"""Codecs in processes: for those that hold the interpreter lock, and for services whose loop must not wait for it.

Jobs still run in threads of this process, which fetch, place and hold locks; but each thread has a worker process of its own beside it,
and the pipelines that operations get decode and encode in that one, through memory that both see. Meanwhile the thread waits without
the interpreter lock.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from azarr.codecs.bytes import Bytes
from azarr.codecs.pipeline import CodecPipeline
from azarr.deferred import DeferredModule
from azarr.errors import CodecError
from azarr.executors import CodecExecutor, InlineExecutor, Jobs, ThreadExecutor, work

if TYPE_CHECKING:
    from azarr import process_pipeline, worker_process
else:  # what executors of threads do without
    process_pipeline = DeferredModule("azarr.process_pipeline")
    worker_process = DeferredModule("azarr.worker_process")

POSIX = hasattr(os, "posix_spawn")
"""Whether file descriptors can be handed to processes."""

SMALL_NBYTES, SMALL_HELD_NBYTES = 16 * 2**10, 4 * 2**10
"""Chunks below this size are decoded and encoded in the thread; the second where their codecs hold the interpreter lock.

To ask another process costs both about 0.1 ms, which is more than compressors take for 16 KiB, and plain Python for a few.
"""


class ProcessExecutor(ThreadExecutor):
    """Runs jobs in threads, and their codecs in processes, one beside each thread. POSIX only.

    ``workers`` defaults to the processors that this process may use, at most 32. A process starts with the first chunk for it, which
    takes some tenths of a second, and is replaced when it dies; a chunk of which three in a row die fails with a ``WorkerError``.

    Codecs are pickled, once for each process: those of others must be defined in a module that can be imported, or in the main file.
    What stays in the threads: elements of variable length, which no memory can share, what is only copied, and chunks below 16 KiB, or
    4 KiB where codecs hold the interpreter lock.
    """

    tolerant = False
    """Whether what cannot work in processes works in the threads, rather than failing."""

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(workers)
        if not POSIX:
            raise NotImplementedError(f"worker processes need a POSIX system, not {sys.platform}; use threads")
        self._local = threading.local()
        self._numbers = count()
        self._pipelines: OrderedDict[int, CodecPipeline] = OrderedDict()
        self._choosing = threading.Lock()

    def pipeline(self, pipeline: CodecPipeline) -> CodecPipeline:
        """One that does the same in the processes, or ``pipeline`` itself where that is better; ``CodecError`` if it cannot be pickled."""
        if not self.suits(pipeline):
            return pipeline
        with self._choosing:
            found = self._pipelines.get(id(pipeline))  # it holds on to the pipeline, so that no other one gets its number
            if found is None:
                if len(self._pipelines) >= worker_process.PIPELINES:
                    self._pipelines.popitem(last=False)
                found = self._pipelines[id(pipeline)] = self._moved(pipeline)
            self._pipelines.move_to_end(id(pipeline))
            return found

    def suits(self, pipeline: CodecPipeline) -> bool:
        """Whether chunks of ``pipeline`` can go to a process, and ought to."""
        spec = pipeline.whole.spec
        least = SMALL_NBYTES if pipeline.releases_gil else SMALL_HELD_NBYTES
        copied = len(pipeline.codecs) == 1 and isinstance(pipeline.codecs[0], Bytes)
        return not (spec.variable or spec.nbytes < least or copied)

    def __del__(self) -> None:
        # Nobody can ask for more, so the threads and their processes may end; a forked copy has none, and no lock that is sure to open.
        if getattr(self, "_process", None) == os.getpid():
            self.close()

    def _moved(self, pipeline: CodecPipeline) -> CodecPipeline:
        try:
            pickled = pickle.dumps(pipeline)
        except Exception as error:
            if self.tolerant:
                return pipeline
            names = [codec.name for codec in pipeline.codecs]
            message = f"the codecs {names} cannot be pickled ({error}), and so cannot work in processes; use threads"
            raise CodecError(message) from error
        return process_pipeline.ProcessPipeline(pipeline, self._local, next(self._numbers), pickled, self.pipeline, tolerant=self.tolerant)

    def _life(self) -> Callable[[Jobs], None]:
        return partial(work_beside_process, self._local)


class AutoExecutor(ProcessExecutor):
    """Threads, and processes beside them only for codecs that hold the interpreter lock (``Codec.releases_gil`` says so).

    What cannot work in processes works in the threads: codecs that cannot be pickled, or cannot be imported in another process, and
    everything where no process can be started.
    """

    tolerant = True

    def suits(self, pipeline: CodecPipeline) -> bool:
        """As of processes, and only where threads would not run it in parallel."""
        return not pipeline.releases_gil and super().suits(pipeline)


def work_beside_process(local: threading.local, jobs: Jobs) -> None:
    """What a worker thread does all its life, with a process beside it, once there is need of one, that ends with it."""
    local.worker = worker = worker_process.WorkerProcess()
    try:
        work(jobs)
    finally:
        worker.close()


def executor_of(choice: str | CodecExecutor | None, workers: int | None) -> CodecExecutor:
    """The executor that a user has chosen, by a word or as it is."""
    if choice is None or choice == "threads":
        return ThreadExecutor(workers)
    if choice == "auto":
        return AutoExecutor(workers) if POSIX else ThreadExecutor(workers)
    if choice == "processes":
        return ProcessExecutor(workers)
    if choice == "inline":
        return InlineExecutor()
    if isinstance(choice, str):
        raise ValueError(  # noqa: TRY004 - a word that is not among them
            f"an executor is 'threads', 'processes', 'inline', 'auto' or a CodecExecutor, not {choice!r:.100}"
        )
    return choice
