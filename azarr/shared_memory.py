"""Memory that two processes see, and that no name leads to: it is gone with the last of them, however they end."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

from azarr.types import Array, Buffer

KEEP_NBYTES = 64 * 2**20
"""What is kept for next time; what a larger chunk took besides is given back before a smaller one."""

PAGE_NBYTES = mmap.PAGESIZE


class SharedMemory:
    """Memory behind a file descriptor that another process inherits. It grows on both sides, and reaches as far as the file."""

    def __init__(self, fileno: int | None = None) -> None:
        self.fileno = anonymous_file() if fileno is None else fileno
        self._most = 0
        if fileno is None:
            os.ftruncate(self.fileno, PAGE_NBYTES)
        self._map()

    def reserve(self, nbytes: int) -> memoryview:
        """The first ``nbytes`` bytes, for writing; their content is arbitrary, and they are the caller's until the next call."""
        if self._most > KEEP_NBYTES >= nbytes:
            self._give_back()
        if nbytes > len(self._memory):
            self.grow(nbytes + nbytes // 4)  # encoded chunks differ a little in size
        return self.view(0, nbytes)

    def view(self, start: int, nbytes: int) -> memoryview:
        """The bytes from ``start`` on; ``ValueError`` where there are fewer than ``nbytes``."""
        if start + nbytes > len(self._memory):
            self._map()  # the other side has let it grow
            if start + nbytes > len(self._memory):
                raise ValueError(f"there are {len(self._memory)} bytes, not {start} and {nbytes}")
        self._most = max(self._most, start + nbytes)
        return self._memory[start : start + nbytes]

    def grow(self, nbytes: int) -> None:
        """Reach ``nbytes`` bytes at least. Views from before stay what they are."""
        os.ftruncate(self.fileno, -(-nbytes // PAGE_NBYTES) * PAGE_NBYTES)
        self._map()

    def place_of(self, data: Buffer | Array) -> int | None:
        """Where ``data`` starts in this memory; ``None`` where it lies elsewhere."""
        address = address_of(data)
        return address - self._address if self._address <= address < self._address + len(self._memory) else None

    def close(self) -> None:
        """Give back the descriptor; the memory goes with the last view."""
        os.close(self.fileno)
        self._memory = memoryview(b"")
        del self._mapped

    def _map(self) -> None:
        self._mapped = mmap.mmap(self.fileno, 0)
        self._memory = memoryview(self._mapped)
        self._address = address_of(self._memory)

    def _give_back(self) -> None:
        # The file keeps its length: pages that went while somebody looks at them would kill, holes read as zeros.
        if hasattr(mmap, "MADV_REMOVE"):
            self._mapped.madvise(mmap.MADV_REMOVE, KEEP_NBYTES, len(self._memory) - KEEP_NBYTES)
        self._most = 0


def anonymous_file() -> int:
    """A descriptor of an empty file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("azarr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def address_of(data: Buffer | Array) -> int:
    """Where the first byte lies."""
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    return int(array.__array_interface__["data"][0])


def copy_bytes(source: Buffer, target: memoryview) -> None:
    """Fill ``target``, of the same size; where that takes long, without the interpreter lock, which slices of memory keep."""
    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))
