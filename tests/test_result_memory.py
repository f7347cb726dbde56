"""Memory of results is used again once nobody has the result, and not a moment before."""

from __future__ import annotations

import asyncio
import copy
import gc
import mmap
import pickle
import threading
import weakref

import numpy as np
import pytest

import azarr
from azarr.result_memory import KEPT_NBYTES, LARGEST_NBYTES, SIZES, SMALLEST_NBYTES, ResultMemory

SHAPE, DTYPE = (64, 64, 32), np.dtype("f4")
NBYTES = 64 * 64 * 32 * 4


@pytest.fixture
def memory():
    return ResultMemory()


@pytest.fixture
def mapped(monkeypatch):
    """Sizes of the mappings that were made."""
    sizes, make = [], mmap.mmap

    def counted(number, nbytes, **rest):
        sizes.append(nbytes)
        return make(number, nbytes, **rest)

    monkeypatch.setattr(mmap, "mmap", counted)
    return sizes


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_is_like_any_other(memory):
    array = memory.empty(SHAPE, DTYPE)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (SHAPE, DTYPE)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    array[...] = np.arange(array.size).reshape(SHAPE)
    for same in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array), array.copy()):
        np.testing.assert_array_equal(same, array)
        assert not np.shares_memory(same, array)


def test_memory_is_used_again_when_the_array_is_gone(memory, mapped):
    for _ in range(20):
        array = memory.empty(SHAPE, DTYPE)
        del array
    assert mapped == [NBYTES]
    again = memory.empty((64 * 32, 64), np.dtype(">u4"))  # another array of as many bytes
    assert mapped == [NBYTES]
    assert again.dtype == ">u4"


@pytest.mark.parametrize(
    "keep",
    [
        lambda array: array,
        lambda array: array[3:, ::2],
        lambda array: array[1:][2:].T.view("u4")[..., ::-1],
        lambda array: array.reshape(-1),
        memoryview,
        lambda array: np.asarray(memoryview(array).cast("B")),
        lambda array: array.base,
        lambda array: array.base[10:],
        lambda array: np.frombuffer(array, "u1"),
        np.from_dlpack,
        lambda array: (array.flat, np.nditer(array)),
    ],
    ids=["itself", "slice", "views", "reshaped", "memoryview", "cast", "base", "of the base", "buffer", "dlpack", "iterators"],
)
def test_memory_is_not_used_again_while_anything_looks_at_it(memory, mapped, keep):
    array = memory.empty(SHAPE, DTYPE)
    held, where = keep(array), address(array)
    del array
    gc.collect()
    for _ in range(3):
        other = memory.empty(SHAPE, DTYPE)
        assert address(other) != where
        del other
    assert len(mapped) == 2
    del held
    gc.collect()
    assert {address(memory.empty(SHAPE, DTYPE))} == {where}


def test_arrays_that_are_there_at_once_have_memory_of_their_own(memory):
    arrays = [memory.empty(SHAPE, DTYPE) for _ in range(50)]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [set(np.unique(array)) for array in arrays] == [{number} for number in range(50)]


def test_no_more_is_kept_than_said(memory, mapped):
    arrays = [memory.empty(SHAPE, DTYPE) for _ in range(2 * KEPT_NBYTES // NBYTES)]
    arrays.clear()
    again = [memory.empty(SHAPE, DTYPE) for _ in range(2 * KEPT_NBYTES // NBYTES)]
    assert len(mapped) == 3 * KEPT_NBYTES // NBYTES
    del again
    for more in range(SIZES):
        memory.empty((SMALLEST_NBYTES + more,), np.dtype("u1"))
    memory.empty(SHAPE, DTYPE)
    assert mapped.count(NBYTES) == 3 * KEPT_NBYTES // NBYTES + 1, "that size was used longest ago"


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((SMALLEST_NBYTES - 1,), "u1"),
        ((LARGEST_NBYTES,), "u1"),
        ((0, 2**40), "f8"),
        ((), "f8"),
        ((20_000,), "O"),
        ((20_000,), np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else ((), "U1"),
        ((20_000,), [("a", "i4"), ("b", "O")]),
    ],
)
def test_other_arrays_are_numpys(memory, mapped, shape, dtype):
    array = memory.empty(shape, np.dtype(dtype))
    assert array.base is None
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert mapped == []


def test_where_nothing_more_can_be_mapped_there_is_the_heap(memory, monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert memory.empty(SHAPE, DTYPE).base is None


def test_what_is_kept_can_be_let_go(memory, mapped):
    array = memory.empty(SHAPE, DTYPE)
    memory.empty(SHAPE, DTYPE)
    memory.clear()
    array[...] = 5
    memory.empty(SHAPE, DTYPE)
    assert len(mapped) == 3
    del array
    assert (memory.empty(SHAPE, DTYPE) != 5).all(), "not that of an array from before"
    assert len(mapped) == 3


async def test_a_closed_engine_keeps_no_memory():
    engine = azarr.Engine()
    kept = weakref.ref(engine.results.empty(SHAPE, DTYPE).base.kept)
    assert kept() is not None
    await engine.aclose()
    assert kept() is None


def test_threads_share_it(memory):
    wrong = []

    def work(number):
        for turn in range(300):
            arrays = [memory.empty(SHAPE, DTYPE) for _ in range(3)]
            for each in arrays:
                each[0, 0, :] = (number, turn) * 16
            wrong.extend(each for each in arrays if (each[0, 0, ::2] != number).any() or (each[0, 0, 1::2] != turn).any())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


async def test_what_is_read_stays_as_it_was_read():
    chunk, count = 2**17, 12
    data = np.arange(chunk * count, dtype="i4")
    async with azarr.Engine(workers=2) as engine:
        array = await azarr.create_array(azarr.MemoryStore(), "a", shape=data.shape, chunks=(chunk,), dtype="i4", engine=engine)
        await array.write(data)

        async def read(number):
            return number, (await array[number * chunk : (number + 1) * chunk])[7:]

        kept = [await asyncio.gather(*map(read, range(turn, count, 3))) for turn in (0, 1, 2, 0)]
        async with array.stream_chunks() as chunks:
            kept.append([(part.coords[0], part.data[7:]) async for part in chunks])
        await asyncio.gather(*map(read, range(count)))
    for number, values in [each for some in kept for each in some]:
        np.testing.assert_array_equal(values, data[number * chunk + 7 : (number + 1) * chunk])


async def test_reading_chunk_after_chunk_takes_the_memory_of_few(mapped):
    chunk, count = 2**20, 32
    async with azarr.Engine(workers=2) as engine:
        array = await azarr.create_array(azarr.MemoryStore(), "a", shape=(count * chunk,), chunks=(chunk,), dtype="u1", engine=engine)
        await array.write(np.arange(count * chunk, dtype="u4").astype("u1"))
        for number in range(count):
            await array[number * chunk : (number + 1) * chunk]
        assert mapped.count(chunk) <= 3
        async with array.stream_chunks(concurrency=4) as chunks:
            async for part in chunks:
                assert part.data[5] == 5
        assert mapped.count(chunk) <= 8
