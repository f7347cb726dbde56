"""Worker processes from the side of the thread that they work for: started, replaced, taught, and ended without a trace."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from itertools import count

import numpy as np
import psutil
import pytest

from azarr import codecs
from azarr import worker_process as module
from azarr.codecs import scratch
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, WorkerError
from azarr.types import ChunkSpec
from azarr.worker_process import ATTEMPTS, PipelineRefusedError, WorkerProcess, ending
from tests.pure_codecs import Deadly, Failing, Homebound, Rotate, Stuck

SPEC = ChunkSpec((10, 10), np.dtype("i4"), np.int32(0))
CHUNK = np.arange(100, dtype="i4").reshape(10, 10)
numbers = count()


@pytest.fixture(scope="module")
def shared_worker():
    made = WorkerProcess()
    yield made
    made.close()


@pytest.fixture
def worker():
    gc.collect()  # lest what others have dropped is closed meanwhile
    before = psutil.Process().num_fds()
    made = WorkerProcess()
    yield made
    pid = made.pid
    made.close()
    assert pid is None or not psutil.pid_exists(pid)
    gc.collect()
    assert psutil.Process().num_fds() == before


class Known:
    """A pipeline as a worker process is told of it."""

    def __init__(self, *more) -> None:
        self.pipeline = CodecPipeline([codecs.Bytes(), *more], SPEC)
        self.names = next(numbers), pickle.dumps(self.pipeline)
        self.data = self.pipeline.encode(CHUNK)

    def decoded_by(self, worker):
        out = bytearray(SPEC.nbytes)
        worker.decode(*self.names, self.data, [len(self.data)], memoryview(out))
        return np.frombuffer(out, "i4").reshape(SPEC.shape)


def test_it_decodes_and_encodes(shared_worker):
    known = Known(Rotate(3))
    assert (known.decoded_by(shared_worker) == CHUNK).all()
    five = np.broadcast_to(np.int32(5), (10, 10))
    found = shared_worker.encode(*known.names, [CHUNK, np.asfortranarray(CHUNK), five], SPEC)
    assert [bytes(each) for each in found] == [known.data, known.data, bytes(known.pipeline.encode(np.full((10, 10), 5, "i4")))]


@pytest.mark.parametrize("held", [0, 2**20], ids=["long", "short"])
def test_encoded_chunks_are_in_memory_of_their_own(shared_worker, monkeypatch, held):
    monkeypatch.setattr(module, "HELD_NBYTES", held)
    known = Known(codecs.Zstd())
    first, second = shared_worker.encode(*known.names, [CHUNK, CHUNK * 2], SPEC)
    before = bytes(first), bytes(second)
    shared_worker.encode(*known.names, [CHUNK * 7, CHUNK * 9], SPEC)
    assert (bytes(first), bytes(second)) == before
    assert (known.pipeline.decode(second) == CHUNK * 2).all()


def test_chunks_that_are_encoded_to_more_than_they_were_come_whole(shared_worker):
    known = Known(codecs.Base64())
    chunks = [CHUNK + number for number in range(300)]
    found = shared_worker.encode(*known.names, chunks, SPEC)
    assert [bytes(each) for each in found] == [bytes(known.pipeline.encode(each)) for each in chunks]


def test_many_chunks_are_one_request(shared_worker, monkeypatch):
    known, other = Known(codecs.Zstd()), CHUNK * 3
    known.decoded_by(shared_worker)
    asked = []
    ask = shared_worker._link.ask
    monkeypatch.setattr(shared_worker._link, "ask", lambda request: (asked.append(request), ask(request))[1], raising=False)
    out = np.zeros((3, 10, 10), "i4")
    parts = [known.data, known.pipeline.encode(other), known.data]
    shared_worker.decode(*known.names, b"".join(parts), [len(part) for part in parts], memoryview(out).cast("B"))
    assert (out == [CHUNK, other, CHUNK]).all()
    assert len(asked) == 1
    assert [bytes(each) for each in shared_worker.encode(*known.names, [CHUNK, other, CHUNK], SPEC)] == [bytes(each) for each in parts]
    assert len(asked) == 2


def test_what_lies_in_the_shared_memory_is_not_copied(shared_worker, monkeypatch):
    known = Known(codecs.Zstd())
    known.decoded_by(shared_worker)  # from here on the scratch memory of this thread is shared
    copied = []
    monkeypatch.setattr(module, "copy_bytes", lambda source, target: copied.append(len(source)))
    data = scratch.encoded.reserve(1000)[500 : 500 + len(known.data)]
    data[:] = known.data
    out = scratch.decoded.reserve(3 * SPEC.nbytes)
    for number in (2, 0):
        shared_worker.decode(*known.names, data, [len(data)], out[number * SPEC.nbytes : (number + 1) * SPEC.nbytes])
    assert (np.frombuffer(out, "i4").reshape(3, 10, 10)[[0, 2]] == CHUNK).all()
    assert copied == []


def test_pipelines_beyond_what_it_keeps_are_learnt_again(shared_worker, monkeypatch):
    monkeypatch.setattr(module, "PIPELINES", 3)
    pipelines = [Known(Rotate(number)) for number in range(6)]
    for known in [*pipelines, *pipelines[::-1], *pipelines]:
        assert (known.decoded_by(shared_worker) == CHUNK).all()
        assert len(shared_worker._link._known) == 3 or known.names[0] not in pipelines[:3]


def test_an_error_of_a_chunk_costs_the_process_nothing(shared_worker):
    known = Known(Failing(ValueError("bad chunk")))
    Known().decoded_by(shared_worker)
    pid = shared_worker.pid
    for _ in range(3):
        with pytest.raises(CodecError, match="ValueError: bad chunk"):
            known.decoded_by(shared_worker)
    assert shared_worker.pid == pid


def test_errors_that_look_like_a_broken_connection_are_not_taken_for_one(shared_worker):
    known = Known(Failing(module.ZarrError("plain")))
    assert (Known().decoded_by(shared_worker) == CHUNK).all()
    pid = shared_worker.pid
    from azarr.errors import StreamTimeoutError

    for error in (StreamTimeoutError("late"), EOFError("end")):
        known = Known(Failing(error))
        with pytest.raises((StreamTimeoutError, CodecError), match=r"late|end"):
            known.decoded_by(shared_worker)
    assert shared_worker.pid == pid


def test_a_pipeline_that_cannot_be_loaded_is_refused(shared_worker):
    known = Known(Homebound())
    with pytest.raises(PipelineRefusedError) as caught:
        known.decoded_by(shared_worker)
    assert isinstance(caught.value.__cause__, CodecError)
    assert "stays at home" in str(caught.value.__cause__)
    assert (Known().decoded_by(shared_worker) == CHUNK).all()


def test_one_that_was_killed_between_chunks_is_replaced(worker):
    known = Known(Rotate())
    known.decoded_by(worker)
    for _ in range(int(os.environ.get("AZARR_KILLS", "3"))):
        pid = worker.pid
        os.kill(pid, signal.SIGKILL)
        assert (known.decoded_by(worker) == CHUNK).all()
        assert worker.pid != pid
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("lives", range(ATTEMPTS))
def test_a_chunk_outlives_processes(worker, tmp_path, lives):
    (file := tmp_path / "lives").write_bytes(b"x" * lives)
    assert (Known(Deadly(str(file))).decoded_by(worker) == CHUNK).all()
    assert file.read_bytes() == b""


def test_a_chunk_of_which_all_die_fails_alone(worker, tmp_path):
    (file := tmp_path / "lives").write_bytes(b"x" * ATTEMPTS)
    known = Known(Deadly(str(file)))
    with pytest.raises(WorkerError, match="killed by SIGKILL") as caught:
        known.decoded_by(worker)
    assert caught.value.exit_code == -signal.SIGKILL
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.exit_code, copy.coords, str(copy)) == (-signal.SIGKILL, None, str(caught.value))
    assert (known.decoded_by(worker) == CHUNK).all()


def test_one_that_cannot_import_azarr_says_why(worker, tmp_path, monkeypatch):
    (tmp_path / "azarr.py").write_text("raise RuntimeError('the wrong azarr')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(PipelineRefusedError) as caught:
        Known().decoded_by(worker)
    error = caught.value.__cause__
    assert isinstance(error, WorkerError)
    assert error.exit_code == 1
    assert str(error).rstrip().endswith("RuntimeError: the wrong azarr")
    monkeypatch.undo()
    assert (Known().decoded_by(worker) == CHUNK).all()


def test_an_interpreter_that_is_not_there_is_an_error(worker, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(PipelineRefusedError) as caught:
        Known().decoded_by(worker)
    assert "/no/such/python" in str(caught.value.__cause__)


def test_a_frozen_program_has_no_interpreter(worker, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(PipelineRefusedError) as caught:
        Known().decoded_by(worker)
    assert "frozen" in str(caught.value.__cause__)


def test_one_that_never_gets_ready_is_given_up(worker, monkeypatch):
    monkeypatch.setattr(module, "BOOT", "import time; time.sleep(1000)  # {path} {inherited} {main}")
    monkeypatch.setattr(module, "START_SECONDS", 0.05)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    with pytest.raises(PipelineRefusedError) as caught:
        Known().decoded_by(worker)
    assert caught.value.__cause__.exit_code == -signal.SIGKILL


def test_one_that_hangs_is_killed_in_the_end(worker, tmp_path, monkeypatch):
    """The thread is not there any more, so nobody waits for the chunk."""
    known = Known(Stuck(str(tmp_path / "begun")))
    Known().decoded_by(worker)
    worker._link.teach(*known.names)
    worker._memory[0].reserve(len(known.data))[:] = known.data
    worker._link._connection.sendall(module.REQUEST.pack(module.DECODE, known.names[0], 0, 0, 1) + module.SIZE.pack(len(known.data)))
    while not (tmp_path / "begun").exists():
        time.sleep(0.001)
    pid = worker.pid
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    worker._link.close()
    worker._link = None
    assert not psutil.pid_exists(pid)


def test_interrupts_do_not_reach_it(worker):
    listened = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Known().decoded_by(worker)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == listened
    pid = worker.pid
    os.kill(pid, signal.SIGINT)
    assert (Known().decoded_by(worker) == CHUNK).all()
    assert worker.pid == pid


PARENT = """
import sys, threading
sys.path[:0] = [{root!r}]
from tests.test_worker_process import Known, WorkerProcess
from tests.pure_codecs import Stuck
worker = WorkerProcess()
Known().decoded_by(worker)
print(worker.pid, flush=True)
if {stuck}:
    threading.Thread(target=Known(Stuck({begun!r})).decoded_by, args=(worker,), daemon=True).start()
{then}
"""


@pytest.mark.parametrize("then", ["killed", "ends", "exits"])
@pytest.mark.parametrize("stuck", [False, True], ids=["idle", "busy"])
def test_it_goes_with_its_parent(then, stuck, tmp_path):
    root, begun = os.path.dirname(os.path.dirname(__file__)), tmp_path / "begun"
    last = {"killed": "threading.Event().wait()", "ends": "sys.stdin.read()", "exits": "sys.stdin.read(); import os; os._exit(3)"}[then]
    script = PARENT.format(root=root, stuck=stuck, begun=str(begun), then=last)
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        while stuck and not begun.exists():
            time.sleep(0.001)
        if then == "killed":
            parent.kill()
        parent.stdin.close()
        parent.wait()
    gone, alive = psutil.wait_procs([child], timeout=30)
    assert (gone, alive) == ([child], [])


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV"), (-60, "killed by signal 60"), (1, "ended with exit code 1")],
)
def test_how_it_ended_is_said_in_words(exit_code, words):
    assert ending(exit_code) == words
