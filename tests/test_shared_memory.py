"""Memory that two processes see: it grows on both sides, keeps what is looked at, and has no name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from azarr import shared_memory as module
from azarr.shared_memory import KEEP_NBYTES, PAGE_NBYTES, SharedMemory, address_of, copy_bytes


@pytest.fixture
def memory():
    made = SharedMemory()
    yield made
    made.close()


def blocks_of(memory):
    return os.fstat(memory.fileno).st_blocks * 512


def test_what_is_reserved_has_the_size_and_is_shared(memory):
    other = SharedMemory(memory.fileno)
    for nbytes in (0, 1, PAGE_NBYTES, 10 * PAGE_NBYTES, 5, 100 * PAGE_NBYTES + 3):
        reserved = memory.reserve(nbytes)
        assert len(reserved) == nbytes
        reserved[:] = bytes(range(256)) * (nbytes // 256) + bytes(nbytes % 256)
        assert other.view(0, nbytes) == reserved
        other.view(nbytes // 2, nbytes - nbytes // 2)[:] = b"x" * (nbytes - nbytes // 2)
        assert bytes(reserved[nbytes // 2 :]) == b"x" * (nbytes - nbytes // 2)


def test_either_side_lets_it_grow(memory):
    other = SharedMemory(memory.fileno)
    other.reserve(50 * PAGE_NBYTES)[-1] = 7
    assert memory.view(50 * PAGE_NBYTES - 1, 1)[0] == 7
    with pytest.raises(ValueError, match="bytes, not"):
        memory.view(0, 2**30)


def test_views_from_before_it_grew_show_the_same(memory):
    before = memory.reserve(100)
    before[:] = b"a" * 100
    after = memory.reserve(100 * PAGE_NBYTES)
    assert bytes(after[:100]) == b"a" * 100
    after[0] = 0
    assert before[0] == 0


def test_it_knows_what_lies_in_it(memory):
    reserved = memory.reserve(1000)
    assert memory.place_of(reserved) == 0
    assert memory.place_of(reserved[10:20]) == 10
    assert memory.place_of(reserved[10:20].toreadonly()) == 10
    assert memory.place_of(np.frombuffer(reserved, np.uint8)[500:]) == 500
    for elsewhere in (b"", b"abc", bytearray(1000), memoryview(bytes(10)), np.zeros(5)):
        assert memory.place_of(elsewhere) is None
    assert address_of(reserved[3:]) == address_of(reserved) + 3


def test_what_a_large_chunk_took_is_given_back(memory):
    large = memory.reserve(KEEP_NBYTES + 8 * 2**20)
    np.frombuffer(large, np.uint8)[:] = 1
    taken = blocks_of(memory)
    assert taken >= len(large)
    memory.reserve(100)
    if not hasattr(module.mmap, "MADV_REMOVE"):
        pytest.skip("give back: needs Linux")
    assert blocks_of(memory) <= KEEP_NBYTES
    assert large[0] == 1  # what somebody still looks at is there, or reads as zeros
    assert large[-1] == 0
    again = memory.reserve(KEEP_NBYTES + 1)
    again[-1] = 3
    assert again[-1] == 3


def test_it_has_no_name_and_no_descriptor_is_left():
    before, names = sorted(os.listdir("/dev/fd")), os.listdir("/dev/shm") if Path("/dev/shm").is_dir() else []
    memory = SharedMemory()
    view = memory.reserve(100)
    view[0] = 5
    if names:
        assert os.listdir("/dev/shm") == names
    memory.close()
    assert len(os.listdir("/dev/fd")) <= len(before) + 1  # mmap has a copy of its own
    assert view[0] == 5
    del view, memory
    assert sorted(os.listdir("/dev/fd")) == before


def test_without_memory_files_it_is_a_file_without_a_name(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    memory = SharedMemory()
    memory.reserve(10_000)[:] = b"z" * 10_000
    assert SharedMemory(memory.fileno).view(5000, 2) == b"zz"
    assert list(tmp_path.iterdir()) == []
    memory.close()


@pytest.mark.parametrize("nbytes", [0, 1, 100_000])
def test_bytes_are_copied(nbytes, memory):
    source = os.urandom(nbytes)
    copy_bytes(source, memory.reserve(nbytes))
    assert memory.view(0, nbytes) == source
