"""Files that are written under a temporary name and then take the place of another, so that nobody ever sees half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from azarr.stores.files import CREATE
from azarr.stores.folders import TEMPORARY, sync_folder


class NewFile:
    """A file for ``path`` that ``write`` fills. It is open until the end of a ``with`` block, which removes what has not been placed."""

    __slots__ = ("_path", "_temporary", "descriptor")

    def __init__(self, path: str, write: Callable[[int], None]) -> None:
        # In the same folder, for a file can only take the place of another within one file system.
        self._path, self._temporary = path, f"{os.path.dirname(path)}/{TEMPORARY}{os.urandom(8).hex()}"
        self.descriptor = os.open(self._temporary, CREATE, 0o666)
        try:
            write(self.descriptor)
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self._remove()

    def _remove(self) -> None:
        try:
            self.close()
        finally:
            with suppress(OSError):
                os.unlink(self._temporary)

    def close(self) -> None:
        """Close the descriptor: some systems do not give an open file another name."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def place(self, place: Callable[[str, str], None], *, durable: bool) -> None:
        """Have ``place`` give the file its name; ``durable``, so that this survives a crash of the machine."""
        place(self._temporary, self._path)
        if durable:
            sync_folder(os.path.dirname(self._path))
