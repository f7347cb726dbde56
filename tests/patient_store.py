"""A store that writes in two steps, as one does that waits for a disk."""

from __future__ import annotations

import asyncio
import threading

import pytest

import azarr
from azarr.errors import StoreError


class PatientStore(azarr.MemoryStore):
    """A store whose writes end when ``go`` is set; ``begun`` and ``ended`` are their keys. That of ``failing`` fails."""

    def __init__(self):
        super().__init__()
        self.go, self.begun, self.ended = threading.Event(), [], []
        self.failing = None

    def set_blocking(self, key, value):
        super().set_blocking(key, value)
        self.ended.append(key)

    def begin_set(self, key, value):
        value = bytes(value)
        self.begun.append(key)

        def end():
            assert self.go.wait(30)
            if key == self.failing:
                raise StoreError(f"cannot write {key!r}", key=key)
            self.set_blocking(key, value)

        return end


async def chunks_of(store, count, engine):
    """An array of ``count`` chunks of one element each, of which nothing is stored."""
    array = await azarr.create_array(store, shape=(count,), dtype="i4", chunks=(1,), compressors=[], fill_value=0, engine=engine)
    store.ended.clear()
    return array


async def cancel(writing, store):
    """Cancel a write, which ends only when what has begun has ended."""
    for _ in range(3):
        writing.cancel()
        await asyncio.sleep(0)
    assert not writing.done()
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert sorted(store.ended) == sorted(store.begun)
