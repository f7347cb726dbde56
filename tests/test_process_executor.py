"""Arrays whose codecs work in processes: everything comes out as it does from threads, whatever happens to the processes."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest

import azarr
from azarr import Engine, MemoryStore, ProcessExecutor, ThreadExecutor, WorkerError
from azarr import process_executor as module
from azarr.codecs import Zstd
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError
from azarr.process_executor import AutoExecutor, executor_of
from azarr.process_pipeline import ProcessPipeline
from azarr.testing import TelemetryRecorder
from azarr.types import ChunkSpec
from azarr.worker_process import WorkerProcess
from tests.pure_codecs import Deadly, Gated, Homebound, Picky, Rotate, Unpicklable, Whereabouts

PATIENCE = 60
DATA = np.arange(48 * 40, dtype="i4").reshape(48, 40)
CHUNKS = (8, 20)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Even the small chunks here go to processes."""
    monkeypatch.setattr(module, "SMALL_NBYTES", 1)
    monkeypatch.setattr(module, "SMALL_HELD_NBYTES", 1)


@pytest.fixture(scope="module")
def shared_executor():
    """Processes that outlive a test; nothing is left of them in the end."""
    before = psutil.Process().num_fds(), names_in_shm()
    executor = ProcessExecutor(2)
    yield executor
    executor.close()
    executor.join()
    gc.collect()
    assert (psutil.Process().num_fds(), names_in_shm()) == before


@pytest.fixture(scope="module", autouse=True)
def _known_codecs():
    """Arrays name the codecs here in their metadata."""
    with ExitStack() as stack:
        for codec in (Deadly, Gated, Homebound, Picky, Rotate, Unpicklable, Whereabouts):
            stack.enter_context(azarr.register_codec(codec))
        yield


class Lasting:
    """An executor that engines do not close."""

    def __init__(self, inner) -> None:
        self.inner, self.workers, self.submit, self.pipeline = inner, inner.workers, inner.submit, inner.pipeline

    def close(self) -> None:
        pass


@pytest.fixture
def engine(shared_executor):
    return Engine(executor=Lasting(shared_executor))


def names_in_shm():
    return sorted(name for name in os.listdir("/dev/shm") if not name.startswith("sem.")) if Path("/dev/shm").is_dir() else []


def children():
    """The worker processes, dead ones that nobody has asked for included."""
    return psutil.Process().children()


@pytest.fixture
def made(_known_codecs):
    """Makes executors, of which nothing is left in the end."""
    before, executors = children(), []

    def make(kind=ProcessExecutor, workers=2):
        executors.append(kind(workers))
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()
        executor.join()
    assert [child for child in children() if child not in before] == []


async def filled(engine, store=None, **options):
    options = {"chunks": CHUNKS, "compressors": [Rotate(7), Zstd()], **options}
    array = await azarr.create_array(
        MemoryStore() if store is None else store, "a", shape=DATA.shape, dtype=DATA.dtype, engine=engine, **options
    )
    await array.write(DATA)
    return array


@pytest.mark.parametrize("shards", [None, (16, 40)], ids=["plain", "sharded"])
async def test_reading_and_writing(engine, store, shards):
    array = await filled(engine, store, shards=shards)
    expected = DATA.copy()
    assert (await array == expected).all()
    expected[3:17, 5:33] = 5
    await array[3:17, 5:33].write(5)
    expected[40:, :7] = 0
    await array[40:, :7].write(0)
    assert (await array == expected).all()
    assert (await array[::3, 7:35:2] == expected[::3, 7:35:2]).all()
    assert (await array.oindex[[1, 30, 44], 5:8] == expected[[1, 30, 44], 5:8]).all()
    threads = await azarr.open_array(store, "a")
    assert (await threads == expected).all()


async def test_the_codecs_work_elsewhere(engine):
    array = await azarr.create_array(MemoryStore(), "a", shape=(64,), chunks=(8,), dtype="u8", compressors=[Whereabouts()], engine=engine)
    await array.write(np.arange(64))
    assert set(np.unique(await array)) <= {child.pid for child in children()}
    async with Engine() as threads:
        view = await azarr.create_array(MemoryStore(), "a", shape=(8,), dtype="u8", compressors=[Whereabouts()], engine=threads)
        await view.write(np.arange(8))
        assert set(await view) == {os.getpid()}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("shards", [None, (16, 40)], ids=["plain", "sharded"])
async def test_streams(engine, store, shards, ordered, complaints):
    array = await filled(engine, store, shards=shards)
    seen = np.zeros_like(DATA)
    async with array.stream_chunks(ordered=ordered) as chunks:
        async for chunk in chunks:
            seen[chunk.region] = chunk.data
    assert (seen == DATA).all()
    async with array.stream_chunks(ordered=ordered) as chunks:
        async for chunk in chunks:
            assert (chunk.data == DATA[chunk.region]).all()
            break
    stream = array[5:, 3:].stream_chunks(ordered=ordered)
    await anext(stream)
    await stream.aclose()
    totals = [chunk.data async for chunk in array.map_chunks(np.sum)]
    assert sum(totals) == DATA.sum()


async def test_a_stream_that_is_written(engine, store):
    source = await filled(engine)
    target = await azarr.create_array(store, "b", like=source, shards=(16, 40), engine=engine)
    await target.write_stream(source.stream_chunks())
    assert (await target == DATA).all()


async def test_cancellation_waits_for_the_chunk_and_leaves_nothing(engine, tmp_path, complaints):
    gate = tmp_path / "gate"
    array = await filled(engine, compressors=[Gated(gate=str(gate))])
    task = asyncio.create_task(array.read())
    while not list(tmp_path.iterdir()):  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.001)
    task.cancel()
    gate.touch()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await array == DATA).all()


async def test_a_timeout_gives_up_on_a_chunk_that_takes_long(engine, tmp_path):
    gate = tmp_path / "gate"
    array = await filled(engine, compressors=[Gated(gate=str(gate))])
    with pytest.raises(azarr.StreamTimeoutError):
        async with array.stream_chunks(timeout=0.2) as chunks:
            async for _ in chunks:
                pass
    gate.touch()
    assert (await array == DATA).all()


async def test_fields_and_chunks_of_unequal_shape(engine, store):
    dtype = np.dtype([("x", "i4"), ("y", "f8")])
    data = np.zeros((20, 10), dtype)
    data["x"], data["y"] = np.arange(200).reshape(20, 10), 0.5
    array = await azarr.create_array(store, "s", shape=data.shape, chunks=[6, [3, 7]], dtype=dtype, compressors=[Rotate()], engine=engine)
    await array.write(data)
    assert (await array == data).all()
    assert (await array["x"] == data["x"]).all()
    await array["y", 3:15, 2:6].write(4.0)
    data["y"][3:15, 2:6] = 4
    assert (await array == data).all()


async def test_a_row_of_chunks_is_one_request(engine, monkeypatch, tmp_path):
    data = np.arange(1, 17, dtype="u1").repeat(2**20).reshape(2, -1)
    options = {"chunks": (1, 2**20), "dtype": "u1", "compressors": [Zstd()]}
    array = await azarr.create_array(str(tmp_path), shape=data.shape, engine=engine, **options)
    await array.write(data)
    rows = []
    decode = WorkerProcess.decode

    def counting(worker, number, pickled, encoded, sizes, out):
        rows.append(len(sizes))
        decode(worker, number, pickled, encoded, sizes, out)

    monkeypatch.setattr(WorkerProcess, "decode", counting)
    assert (await array == data).all()
    assert rows == [8, 8]


@pytest.mark.parametrize("kind", ["plain", "sharded", "without fill value"])
async def test_chunks_that_are_encoded_together_are_those_that_threads_encode(engine, kind, monkeypatch):
    data = np.arange(1, 90 * 47 + 1, dtype="i4").reshape(90, 47)
    data[16:32, 20:] = 0
    together, encode = [], WorkerProcess.encode
    monkeypatch.setattr(WorkerProcess, "encode", lambda *args: (together.append(len(args[3])), encode(*args))[1])
    stores = []
    for each in (engine, None):
        stores.append(store := MemoryStore())
        options = {"shape": data.shape, "dtype": "i4", "chunks": CHUNKS, "compressors": [Rotate(7), Zstd()]}
        if kind == "without fill value":
            options = {**options, "zarr_format": 2, "compressors": [Zstd()]}
        await azarr.create_array(store, "a", shards=(16, 40) if kind == "sharded" else None, **options)
        if kind == "without fill value":
            document = json.loads(await store.get("a/.zarray"))
            await store.set("a/.zarray", json.dumps({**document, "fill_value": None}).encode())
        array = await azarr.open_array(store, "a", engine=each)
        await array.write(data)
        await array[3:77, 5:].write(data[3:77, 5:])
        assert (await array == data).all()
    assert max(together) > 1
    found, expected = [{key: bytes(await store.get(key)) async for key in store.list_prefix("")} for store in stores]
    assert found == expected
    assert {"plain": "a/c/2/1" not in found, "sharded": True, "without fill value": "a/2.1" in found}[kind]


async def test_units_of_a_stream_are_encoded_together(engine, monkeypatch):
    together, encode = [], WorkerProcess.encode
    monkeypatch.setattr(WorkerProcess, "encode", lambda *args: (together.append(len(args[3])), encode(*args))[1])
    source = await filled(engine)
    together.clear()
    target = await azarr.create_array(MemoryStore(), "b", like=source, engine=engine)
    await target.write_stream([chunk async for chunk in source.stream_chunks()])
    assert (await target == DATA).all()
    assert max(together) > 1


@pytest.mark.parametrize("options", [{"refused": 200}, {"deadly": 200}], ids=["refused", "deadly"])
@pytest.mark.parametrize("shards", [None, (8,)], ids=["plain", "sharded"])
async def test_of_chunks_that_are_encoded_together_one_fails_alone(engine, shards, options):
    data = np.arange(256, dtype="u1").reshape(64, 4).repeat(2, axis=1).reshape(-1)  # 200 begins the eighth part of the sixth shard
    given = {"shape": data.shape, "chunks": (4,), "dtype": "u1", "compressors": [Picky(**options)], "engine": engine}
    array = await azarr.create_array(MemoryStore(), "a", shards=shards, **given)
    with pytest.raises(CodecError) as caught:
        await array.write(data)
    assert caught.value.coords == (100,)
    failed = []
    parts = (((slice(start, start + 8),), data[start : start + 8]) for start in range(0, len(data), 8))
    await array.write_stream(parts, on_error=lambda coords, error: failed.append(coords))
    assert failed == [(100,)]
    expected = data.copy()
    expected[400:408] = 0
    found = await array.read()
    assert (found == expected).sum() >= len(data) - 8
    assert (found[:400] == data[:400]).all()
    assert (found[408:] == data[408:]).all()


async def test_what_stays_in_the_threads(engine, shared_executor, monkeypatch):
    strings = await azarr.create_array(MemoryStore(), "t", shape=(10,), dtype="str", compressors=[Zstd()], engine=engine)
    await strings.write(np.array([f"text {number}" for number in range(10)], object))
    assert list(await strings) == [f"text {number}" for number in range(10)]
    for pipeline in (CodecPipeline([azarr.codecs.Bytes()], spec_of(1000)), CodecPipeline([azarr.codecs.VlenUtf8()], text_spec())):
        assert shared_executor.pipeline(pipeline) is pipeline
    compressed = CodecPipeline([azarr.codecs.Bytes(), Zstd()], spec_of(1000))
    assert isinstance(shared_executor.pipeline(compressed), ProcessPipeline)
    monkeypatch.setattr(module, "SMALL_NBYTES", 4001)
    assert shared_executor.pipeline(compressed) is compressed
    held = CodecPipeline([azarr.codecs.Bytes(), Rotate()], spec_of(1000))
    assert isinstance(shared_executor.pipeline(held), ProcessPipeline)
    monkeypatch.setattr(module, "SMALL_HELD_NBYTES", 4001)
    assert shared_executor.pipeline(held) is held


def spec_of(count):
    return ChunkSpec((count,), np.dtype("i4"), np.int32(0))


def text_spec():
    return ChunkSpec((1000,), np.dtype(object), "")


async def test_telemetry_hears_of_codecs_and_chunks(engine):
    array = await filled(engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        assert (await array == DATA).all()
        await array.write(DATA)
    operations = [event.operation for event in recorder.events("codec.stop")]
    assert operations.count("decode") == operations.count("encode") == 12


async def test_damage_says_which_chunk(engine):
    store = MemoryStore()
    await filled(engine, store)
    await store.set("a/c/2/1", b"not a frame")
    array = await azarr.open_array(store, "a", engine=engine)
    with pytest.raises(CodecError) as caught:
        await array.read()
    assert caught.value.coords == (2, 1)


async def test_killed_processes_lose_no_chunk(engine, tmp_path):
    """Each kill happens in the middle of a chunk."""
    (lives := tmp_path / "lives").touch()
    array = await filled(engine, compressors=[Deadly(str(lives))])
    for _ in range(int(os.environ.get("AZARR_KILLS", "2"))):
        lives.write_bytes(b"x")
        assert (await array == DATA).all()
        assert lives.read_bytes() == b""
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in children())


async def test_a_chunk_that_kills_fails_and_the_others_come(made, tmp_path):
    (lives := tmp_path / "lives").touch()
    async with Engine(executor=made(workers=1)) as engine:
        array = await filled(engine, compressors=[Deadly(str(lives))])
        lives.write_bytes(b"xxxxxx")  # for the row that it is in, and for the chunk alone
        with pytest.raises(WorkerError) as caught:
            await array.read()
        assert caught.value.coords is not None
        assert caught.value.exit_code == -signal.SIGKILL
        lives.write_bytes(b"xxx")
        failures, seen = [], 0
        async with array.stream_chunks(on_error=lambda coords, error: failures.append((coords, error))) as chunks:
            async for chunk in chunks:
                seen += 1
                assert (chunk.data == DATA[chunk.region]).all()
        assert seen == 11
        assert [type(error) for _, error in failures] == [WorkerError]


async def test_a_process_that_dies_damages_nothing_that_is_written(made, tmp_path):
    """What hangs over the edge of the array may be another's; it is not given up because nothing could be read."""
    (lives := tmp_path / "lives").touch()
    store = MemoryStore()
    async with Engine(executor=made(workers=1)) as engine:
        options = {"chunks": (8,), "dtype": "i4", "compressors": [Deadly(str(lives))], "engine": engine}
        array = await azarr.create_array(store, "a", shape=(12,), **options)
        await array.write(np.arange(12))
        before = await store.get("a/c/1")
        lives.write_bytes(b"xxx")
        with pytest.raises(WorkerError):
            await array[8:].write(5)
        assert await store.get("a/c/1") == before


@pytest.mark.parametrize("codec", [Unpicklable(), Homebound()])
async def test_codecs_that_cannot_go_there(engine, made, codec):
    with pytest.raises(CodecError, match=r"cannot be pickled|stays at home"):
        await filled(engine, compressors=[codec])
    async with Engine(executor=made(AutoExecutor)) as automatic:
        array = await filled(automatic, compressors=[codec])
        assert (await array == DATA).all()


async def test_automatically_those_go_that_hold_the_lock(made):
    before = children()
    async with Engine(executor=made(AutoExecutor)) as engine:
        array = await filled(engine, compressors=[Zstd()])
        assert (await array == DATA).all()
        assert children() == before
        array = await azarr.create_array(MemoryStore(), "p", shape=(64,), dtype="u8", compressors=[Whereabouts()], engine=engine)
        await array.write(np.arange(64))
        assert set(await array) <= {child.pid for child in children()}


async def test_automatically_threads_take_over_where_no_process_starts(made, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    async with Engine(executor=made(AutoExecutor)) as engine:
        array = await filled(engine)
        assert (await array == DATA).all()
    async with Engine(executor=made()) as engine:
        with pytest.raises(WorkerError, match="/no/such/python"):
            await filled(engine)


def test_executors_have_names(monkeypatch):
    assert type(executor_of(None, 3)) is type(executor_of("threads", 3)) is ThreadExecutor
    assert isinstance(executor_of("inline", None), azarr.InlineExecutor)
    assert executor_of("processes", 3).workers == executor_of("auto", 3).workers == 3
    assert type(executor_of("auto", 3)) is AutoExecutor
    with pytest.raises(ValueError, match="'processes'"):
        Engine(executor="process")
    monkeypatch.setattr(module, "POSIX", False)
    assert type(executor_of("auto", 3)) is ThreadExecutor
    with pytest.raises(NotImplementedError, match="threads"):
        Engine(executor="processes")


def test_starting_and_stopping_leaves_nothing():
    async def main():
        async with Engine(executor=executor) as engine:
            array = await filled(engine, chunks=DATA.shape)
            assert (await array == DATA).all()

    asyncio.run(asyncio.sleep(0))
    gc.collect()
    before = psutil.Process().num_fds(), names_in_shm(), children(), threading.active_count()
    for _ in range(int(os.environ.get("AZARR_STARTS", "2"))):
        executor = ProcessExecutor(1)
        asyncio.run(main())
        executor.join()
        assert children() == before[2]
    gc.collect()
    assert (psutil.Process().num_fds(), names_in_shm(), children(), threading.active_count()) == before


def test_an_executor_that_nobody_has_any_more_ends():
    async def main():
        array = await filled(Engine(executor=ProcessExecutor(1)))
        assert (await array == DATA).all()

    before, threads = children(), set(threading.enumerate())
    asyncio.run(main())
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)
    assert children() == before


async def test_loops_in_several_threads_share_the_processes(shared_executor):
    def use():
        async def main():
            engine = Engine(executor=Lasting(shared_executor))
            assert (await (await filled(engine)) == DATA).all()

        asyncio.run(main())

    await asyncio.gather(*(asyncio.to_thread(use) for _ in range(4)))


def use_after_fork(engine, array, answers):
    async def main():
        assert (await array == DATA).all()
        answers.put([os.getpid(), len(psutil.Process().children())])
        engine.executor.close()
        engine.executor.join()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads is what this is about
def test_a_forked_process_has_processes_of_its_own(made):
    executor = made(workers=1)

    async def main():
        engine = Engine(executor=executor)
        array = await filled(engine)
        assert (await array == DATA).all()
        return engine, array

    engine, array = asyncio.run(main())
    mine = {child.pid for child in children()}
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    forked = context.Process(target=use_after_fork, args=(engine, array, answers))
    forked.start()
    forked.join(PATIENCE)
    assert forked.exitcode == 0
    assert answers.get() == [forked.pid, 1]
    answers.close()
    forked.close()
    assert mine <= {child.pid for child in children()}
    asyncio.run(again(array))


async def again(array):
    assert (await array == DATA).all()


PROGRAM = """
import asyncio, sys
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import azarr

@dataclass(frozen=True)
class Own(azarr.codecs.BytesToBytesCodec):
    name: ClassVar[str] = "own"
    from_configuration = classmethod(lambda cls, configuration: cls())
    configuration = lambda self: {{}}
    encode = lambda self, data: bytes(data)[::-1]
    decode = lambda self, data, limit: bytes(data)[::-1]

async def main():
    asyncio.get_running_loop().slow_callback_duration = 60.0  # modules are imported with their first use, and this is no test of how fast
    azarr.register_codec(Own)
    engine = azarr.Engine(executor="processes")
    array = await azarr.create_array(azarr.MemoryStore(), "a", shape=(9000,), dtype="i4", compressors=[Own()], engine=engine)
    await array.write(np.arange(9000))
    assert (await array == np.arange(9000)).all()
    print("done", flush=True)
    {then}

if __name__ == "__main__":
    asyncio.run(main())
print("main" if __name__ == "__main__" else "worker", file=sys.stderr)
"""


@pytest.mark.parametrize("then", ["await engine.aclose()", "pass", "raise SystemExit(0)"], ids=["closed", "left", "exits"])
def test_a_program_with_a_codec_of_its_own(then, tmp_path):
    """Its main file needs no guard but the usual one, and is run once more for each process, which all are gone in the end."""
    (tmp_path / "program.py").write_text(PROGRAM.format(then=then))
    before = names_in_shm()
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "done\n")
    assert set(run.stderr.split()) <= {"main", "worker"}, run.stderr
    assert names_in_shm() == before
