"""What an engine tells of reads, writes and streams: the events, and through them the cost of each operation."""

from __future__ import annotations

import asyncio
import gc
import pickle

import numpy as np
import pytest

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, MemoryStore
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, StoreError
from azarr.observing import ObservedPipeline
from azarr.testing import TelemetryRecorder

DATA = np.arange(16 * 24, dtype="i4").reshape(16, 24) + 1
ENDS = ("stop", "exception")


@pytest.fixture
async def engine():
    async with Engine(workers=2) as engine:
        yield engine


async def filled(store, engine, **options):
    """An array at ``a`` with chunks of 4 × 6, 64 bytes each before compression."""
    array = await azarr.create_array(store, "a", shape=DATA.shape, dtype=DATA.dtype, engine=engine, **{"chunks": (4, 6), **options})
    await array.write(DATA)
    return array


def assert_told_to_the_end(recorder):
    """Every span has one start and one end, in this order."""
    spans = {}
    for event in recorder.events():
        spans.setdefault(event.span, []).append(event)
    for events in spans.values():
        phases = [event.phase for event in events if event.phase != "chunk"]
        assert phases[0] == "start"
        assert phases[1:] in (["stop"], ["exception"])
        assert len({(event.subject, event.path, event.store) for event in events}) == 1
    assert all(event.seconds > 0 for event in recorder.events() if event.phase in ENDS)
    assert all(event.seconds == 0 for event in recorder.events() if event.phase == "start")


def kind_of(store):
    return type(store).__name__


def stored(recorder, **fields):
    """The requests that stored something: where the store can tell, under the condition that nobody else has meanwhile."""
    return [each for operation in ("set", "set_if") for each in recorder.events("store.request.stop", operation=operation, **fields)]


async def test_a_read_tells_what_it_costs(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        assert (await array[2:6, 0:12] == DATA[2:6, 0:12]).all()
    assert_told_to_the_end(recorder)
    (read,) = recorder.events("read.stop")
    assert (read.path, read.store, read.nbytes) == ("a", kind_of(store), 4 * 12 * 4)
    assert recorder.count("store.request.stop", operation="get", path="a", store=kind_of(store)) == 4
    assert recorder.count("store.request.stop") == 4
    assert {event.key for event in recorder.events("store.request.stop")} == {"a/c/0/0", "a/c/0/1", "a/c/1/0", "a/c/1/1"}
    assert sorted(event.coords for event in recorder.events("chunk.read.stop")) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {event.nbytes for event in recorder.events("chunk.read.stop")} == {96}
    decoded = recorder.events("codec.stop", operation="decode", path="a", nbytes=96)
    assert len(decoded) == 4
    received = recorder.events("store.request.stop")
    assert sorted(event.encoded_nbytes for event in decoded) == sorted(event.nbytes for event in received)


@pytest.mark.parametrize("compressors", [(), "auto"])
async def test_a_whole_array_is_told_chunk_by_chunk(store, engine, compressors):
    array = await filled(store, engine, **({"compressors": compressors} if compressors != "auto" else {}))
    with TelemetryRecorder(engine.telemetry) as recorder:
        assert (await array == DATA).all()
    assert_told_to_the_end(recorder)
    assert recorder.count("store.request.stop", operation="get") == 16
    assert len({event.coords for event in recorder.events("chunk.read.stop")}) == recorder.count("chunk.read.stop") == 16
    read, chunks = recorder.events("read.stop")[0], recorder.events("chunk.read.stop")
    assert all(event.seconds <= read.seconds for event in chunks)
    copied = compressors == () and kind_of(store) != "LatencyStore"  # straight into place, without a codec
    assert recorder.count("codec.stop") == (0 if copied else 16)


async def test_missing_chunks_are_told_and_nothing_is_decoded(store, engine):
    array = await azarr.create_array(store, "a", shape=(8,), chunks=(4,), dtype="i4", fill_value=7, engine=engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        assert (await array == 7).all()
    assert_told_to_the_end(recorder)
    assert recorder.count("store.request.stop", missing=True, nbytes=0) == 2
    assert recorder.count("chunk.read.stop") == 2
    assert recorder.count("codec") == 0


async def test_a_write_tells_what_it_costs(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        await array[0:4, 0:12].write(5)
        await array[4:6, 0:6].write(6)
        await array[8:12, 0:6].write(0)
    assert_told_to_the_end(recorder)
    assert [event.nbytes for event in recorder.events("write.stop", path="a")] == [192, 48, 96]
    assert sorted(event.coords for event in recorder.events("chunk.write.stop")) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert {event.nbytes for event in recorder.events("chunk.write.stop")} == {96}
    assert [event.key for event in recorder.events("store.request.stop", operation="get")] == ["a/c/1/0"]
    assert len(stored(recorder)) == 3
    assert [event.key for event in recorder.events("store.request.stop", operation="erase")] == ["a/c/2/0"]
    assert recorder.count("codec.stop", operation="decode") == 1
    encoded = recorder.events("codec.stop", operation="encode")
    sent = stored(recorder)
    assert sorted(event.encoded_nbytes for event in encoded) == sorted(event.nbytes for event in sent)


async def test_a_stream_that_is_written_tells_what_it_costs(store, engine):
    source = await filled(MemoryStore(), engine)
    target = await azarr.create_array(store, "b", like=source, engine=engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        await target.write_stream(source.stream_chunks())
    assert_told_to_the_end(recorder)
    (written,) = recorder.events("write.stop")
    assert (written.path, written.store, written.nbytes) == ("b", kind_of(store), DATA.nbytes)
    assert recorder.count("chunk.write.stop", path="b") == 16
    assert len(stored(recorder, path="b")) == 16
    assert recorder.count("stream.stop", path="a", chunks=16) == 1


async def test_shards_tell_their_requests_and_their_chunks(store, engine):
    with TelemetryRecorder(engine.telemetry) as recorder:
        array = await filled(store, engine, shards=(8, 12))
        assert sorted(event.coords for event in recorder.events("chunk.write.stop")) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert {event.nbytes for event in recorder.events("chunk.write.stop")} == {4 * 96}
        assert recorder.count("codec.stop", operation="encode") == 16
        recorder.clear()
        assert (await array[0, 0:12] == DATA[0, 0:12]).all()
    assert recorder.count("chunk.read.stop", nbytes=96) == 2
    assert recorder.count("codec.stop", operation="decode") == 2
    index, *chunks = recorder.events("store.request.stop", operation="get", key="a/c/0/0")
    assert index.nbytes == 4 * 16 + 4
    assert len(chunks) == 1
    assert recorder.count("store.request.stop") == 2


async def test_chunks_of_different_lengths_tell_their_own_sizes(engine):
    array = await azarr.create_array(MemoryStore(), shape=(7,), chunks=[[2, 5]], dtype="i4", engine=engine)
    await array[0:2].write(1)  # makes pipelines that tell nothing
    with TelemetryRecorder(engine.telemetry) as recorder:
        await array.write(np.arange(7))
        assert (await array == np.arange(7)).all()
    assert_told_to_the_end(recorder)
    for name in ("chunk.write.stop", "chunk.read.stop"):
        assert {event.coords: event.nbytes for event in recorder.events(name)} == {(0,): 8, (1,): 20}
    for operation in ("encode", "decode"):
        assert sorted(event.nbytes for event in recorder.events("codec.stop", operation=operation)) == [8, 20]


async def test_a_stream_tells_its_chunks(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        stream = array[0:8].stream_chunks()
        assert recorder.names() == []
        async for _ in stream:
            pass
    assert_told_to_the_end(recorder)
    assert recorder.names()[0] == "stream.start"
    assert recorder.names()[-1] == "stream.stop"
    handed_out = recorder.events("stream.chunk")
    assert [event.coords for event in handed_out] == [(row, column) for row in range(2) for column in range(4)]
    assert [event.chunks for event in handed_out] == list(range(1, 9))
    assert [event.nbytes for event in handed_out] == [96 * count for count in range(1, 9)]
    assert all(0 <= event.buffered_nbytes <= 7 * 96 and 0 <= event.in_flight < 8 for event in handed_out)
    (stop,) = recorder.events("stream.stop", path="a", store=kind_of(store))
    assert (stop.chunks, stop.nbytes, stop.in_flight, stop.buffered_nbytes) == (8, 768, 0, 0)
    for name in ("chunk.read.stop", "codec.stop", "store.request.stop"):
        assert recorder.count(name) == 8


async def test_a_stream_that_is_left_early_has_stopped(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        async with array.stream_chunks() as chunks:
            async for _ in chunks:
                break
    assert_told_to_the_end(recorder)
    (stop,) = recorder.events("stream.stop")
    assert stop.chunks == 1


async def test_a_stream_that_is_dropped_has_stopped(engine):
    array = await filled(MemoryStore(), engine)
    with TelemetryRecorder(engine.telemetry, events="stream") as recorder:
        stream = array.stream_chunks()
        await anext(stream)
        del stream
        gc.collect()
        await asyncio.sleep(0)
    assert recorder.names() == ["stream.start", "stream.chunk", "stream.stop"]


async def test_a_stream_that_is_never_asked_tells_nothing(engine):
    array = await filled(MemoryStore(), engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        async with array.stream_chunks():
            pass
    assert recorder.names() == []


async def test_slices_tell_their_stream_and_their_reads(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        async with array.stream_slices(0) as slices:
            assert len([each async for each in slices]) == 16
    assert_told_to_the_end(recorder)
    assert [event.coords for event in recorder.events("stream.chunk")] == [(row,) for row in range(16)]
    assert recorder.count("chunk.read.stop") == 16
    assert recorder.count("read.stop", path="a") >= 1


async def test_what_fails_tells_so(faulty_store, engine):
    store = faulty_store
    array = await filled(store, engine)
    store.failing.add("a/c/1/1")
    with TelemetryRecorder(engine.telemetry) as recorder:
        with pytest.raises(StoreError):
            await array.read()
        with pytest.raises(StoreError):
            await array[4:8, 6:12].write(3)
        with pytest.raises(StoreError):
            async for _ in array.stream_chunks():
                pass
    assert_told_to_the_end(recorder)
    for name in ("read", "write", "stream", "chunk.write"):
        assert [event.error for event in recorder.events(f"{name}.exception")] == ["azarr.errors.StoreError"]
        assert recorder.count(f"{name}.stop") == 0
    assert {event.error for event in recorder.events("store.request.exception")} == {"azarr.errors.StoreError"}
    assert (1, 1) in {event.coords for event in recorder.events("chunk.read.exception")}


@pytest.mark.parametrize("latency", [False, True])
async def test_a_damaged_chunk_tells_so(engine, latency):
    memory = MemoryStore()
    store = LatencyStore(memory, 0.0) if latency else memory
    array = await filled(store, engine)
    await memory.set("a/c/0/1", b"damaged")
    with TelemetryRecorder(engine.telemetry) as recorder:
        with pytest.raises(CodecError):
            await array[0:4, 6:12].read()
        async with array[0:4].stream_chunks(on_error="skip") as chunks:
            assert len([chunk async for chunk in chunks]) == 3
    assert_told_to_the_end(recorder)
    assert {event.error for event in recorder.events("codec.exception")} == {"azarr.errors.CodecError"}
    assert [event.coords for event in recorder.events("chunk.read.exception")] == [(0, 1)] * 2
    assert recorder.count("chunk.read.stop") == 3
    assert recorder.count("stream.stop", chunks=3) == 1


async def test_a_chunk_that_is_late_tells_so(engine):
    array = await filled(LatencyStore(MemoryStore(), 0.0), engine)
    array.store._seconds = 3600.0
    with TelemetryRecorder(engine.telemetry) as recorder, pytest.raises(azarr.StreamTimeoutError):
        await anext(array[0:4, 0:6].stream_chunks(timeout=0.001))
    assert_told_to_the_end(recorder)
    assert [event.error for event in recorder.events("chunk.read.exception")] == ["azarr.errors.StreamTimeoutError"]
    assert [event.cancelled for event in recorder.events("store.request.exception")] == [True]


def test_what_is_cancelled_tells_so(cancelled_everywhere, how_cancelled):
    recorders = []

    async def prepare():
        engine = Engine(executor=InlineExecutor())
        array = await filled(LatencyStore(MemoryStore(), 0.0), engine)
        recorder = TelemetryRecorder(engine.telemetry)
        recorders.append(recorder)

        async def work():
            await array[0:8].read()
            await array[2:6].write(1)
            async with array[0:4].stream_chunks() as chunks:
                async for _ in chunks:
                    pass

        return work(), lambda: assert_told_to_the_end(recorder)

    assert cancelled_everywhere(prepare, how_cancelled) >= 3
    assert any(recorder.count("read.exception") for recorder in recorders)
    assert any(recorder.count("write.exception") for recorder in recorders)
    assert any(recorder.count("stream.exception") for recorder in recorders)
    ends = [event for recorder in recorders for event in recorder.events() if event.phase == "exception"]
    assert all(event.cancelled for event in ends)


async def test_metadata_are_told_as_requests(store, engine):
    with TelemetryRecorder(engine.telemetry, events="store.request.stop") as recorder:
        group = await azarr.create_group(store, "g", engine=engine)
        array = await group.create_array("a", shape=(4,), dtype="i4")
        assert len(stored(recorder)) >= 2
        recorder.clear()
        await azarr.open_array(store, "g/a", zarr_format=3, engine=engine)
        (request,) = recorder.events()
        assert (request.operation, request.key, request.path) == ("get", "g/a/zarr.json", "g/a")
        recorder.clear()
        await array.update_attributes({"units": "K"})
        assert len(stored(recorder, key="g/a/zarr.json")) == 1
        await group.update_attributes({"title": "t"})
        recorder.clear()
        assert [name async for name, _ in group.members()] == ["a"]
        assert recorder.count() >= 2
        recorder.clear()
        await group.copy("a", (store, "b"))
        assert len(stored(recorder, key="b/zarr.json")) == 1
        recorder.clear()
        await group.delete("a")
        assert recorder.count(operation="erase_prefix") == 1


async def test_chunks_that_are_copied_as_they_are_are_told(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry, events="store.request.stop") as recorder:
        await azarr.copy(array, store, "b")
    assert recorder.count(operation="get", path="a") == 16
    assert len(stored(recorder, path="b")) == 16 + 1


async def test_what_is_held_is_never_an_observed_store(store, engine):
    with TelemetryRecorder(engine.telemetry):
        array = await filled(store, engine)
        opened = await azarr.open(store, "a", engine=engine)
        group = await azarr.create_group(store, "g", engine=engine)
        copied = await group.copy("", (store, "h"))
        converted = await azarr.convert(store, "g", zarr_format=2, engine=engine)
        saved = await azarr.save(store, DATA, "s", engine=engine)
        hierarchy = await azarr.create_hierarchy(store, {"x/y": {}}, engine=engine)
    for node in (array, opened, group, copied, converted, saved, *hierarchy.values()):
        assert node.store is store


async def test_a_handler_that_fails_does_not_break_anything(store, engine, caplog):
    array = await filled(store, engine)

    def fail(event):
        raise ValueError(event.name)

    for _ in range(3):
        engine.telemetry.subscribe(fail)
    assert (await array == DATA).all()
    assert not engine.telemetry.active
    assert len(caplog.records) == 3


async def test_only_what_somebody_wants_is_observed(store, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry, events="read"):
        source = array.source.operation(engine.telemetry)
        assert source.store is store
        assert source.pipeline is array.source.pipeline
    assert array.source.operation(engine.telemetry).observer is None


async def test_who_subscribes_later_hears_of_the_next_operation(engine):
    array = await filled(MemoryStore(), engine)
    stream = array.stream_chunks()
    await anext(stream)
    with TelemetryRecorder(engine.telemetry) as recorder:
        async for _ in stream:
            pass
        assert recorder.names() == []
        await array[0, 0]
    assert recorder.count("read.stop") == 1


async def test_engines_tell_only_of_their_own(engine):
    array = await filled(MemoryStore(), engine)
    async with Engine() as other:
        same = await azarr.open_array(array.store, "a", engine=other)
        with TelemetryRecorder(other.telemetry) as recorder:
            await array.read()
            assert recorder.names() == []
            await same.read()
            assert recorder.count("read.stop") == 1


async def test_nothing_secret_is_told(engine):
    class SecretStore(MemoryStore):
        def __repr__(self):
            return "SecretStore(token='s3cr3t')"

        def get_blocking(self, key, byte_range=None, reserve=None):
            if key.endswith("c/0/0"):
                raise StoreError("the token s3cr3t has expired", key=key)
            return super().get_blocking(key, byte_range, reserve)

    array = await filled(SecretStore(), engine)
    with TelemetryRecorder(engine.telemetry) as recorder, pytest.raises(StoreError):
        await array.read()
    assert recorder.count("read.exception") == 1
    assert "s3cr3t" not in repr(recorder.events())


def test_an_observed_pipeline_is_pickled_as_the_pipeline():
    from azarr.codecs import Bytes
    from azarr.types import ChunkSpec

    plain = CodecPipeline([Bytes()], ChunkSpec((2,), np.dtype("i4"), 0))
    assert type(pickle.loads(pickle.dumps(ObservedPipeline(plain, None)))) is CodecPipeline
