"""Scratch memory of the calling thread, reused from chunk to chunk so that no chunk pays for fresh pages."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable

KEEP_NBYTES = 64 * 2**20
"""What a thread keeps for next time; larger requests get memory of their own that goes when they are done."""

PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Memory of this process alone has faster pages than memory that could be shared."""


class Scratch(threading.local):
    """One buffer a thread that grows to the largest request. It begins on a page, which the kernel copies to several times faster."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray())
        self.lender: Callable[[int], memoryview] | None = None
        """What reserves in place of this, in this thread: where chunks are on their way to another process, memory that it sees, too."""

    def reserve(self, nbytes: int) -> memoryview:
        """Writable memory of exactly ``nbytes`` bytes, valid until the next call in the same thread; its content is arbitrary."""
        if self.lender is not None:
            return self.lender(nbytes)
        if nbytes > len(self._memory):
            # a quarter more than asked: encoded chunks differ a little in size
            memory = memoryview(mmap.mmap(-1, nbytes + nbytes // 4, **PRIVATE))
            if nbytes > KEEP_NBYTES:
                return memory[:nbytes]
            self._memory = memory
        return self._memory[:nbytes]


encoded = Scratch()
"""For encoded bytes on their way from a store to a codec."""

decoded = Scratch()
"""For a decoded chunk on its way into an array in which it does not lie whole."""
