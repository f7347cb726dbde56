"""What the items of a stream that is written come from: advanced one by one, and closed once."""

from __future__ import annotations

from collections.abc import AsyncIterable, Generator, Iterable, Sized
from typing import Any, Final

from azarr.errors import StreamError
from azarr.runners import TaskRunner

END: Final = object()
"""Stands for the item after the last."""


class Feed:
    """The items of an iterable, asynchronous or not."""

    def __init__(self, given: AsyncIterable[Any] | Iterable[Any]) -> None:
        self._given = given
        if isinstance(given, AsyncIterable):
            self._next: Any = given.__aiter__()
        elif isinstance(given, Iterable):
            self._next = iter(given)
        else:
            raise StreamError(f"{given!r:.60} is neither an asynchronous nor a plain iterable of items")
        self._waits = isinstance(given, AsyncIterable)
        self.closed = False
        """Whether it is closed, or being closed."""

    @property
    def fingerprint(self) -> str | None:
        """What tells the source from others, where it says so."""
        found = getattr(self._given, "fingerprint", None)
        return found if isinstance(found, str) else None

    @property
    def total(self) -> int | None:
        """How many items there are in all, as far as is known by now."""
        stats = getattr(self._given, "stats", None)
        found = len(self._given) if isinstance(self._given, Sized) else getattr(stats, "total", None)
        return found if isinstance(found, int) else None

    async def next(self) -> Any:
        """The next item, or ``END``."""
        if not self._waits:
            return next(self._next, END)
        try:
            return await self._next.__anext__()
        except StopAsyncIteration:
            return END

    async def aclose(self) -> None:
        """Close the iterator, and what it is of."""
        self.closed = True
        for each in dict.fromkeys((id(self._next), id(self._given))):
            closable = self._next if each == id(self._next) else self._given
            if hasattr(closable, "aclose"):
                await closable.aclose()
            elif isinstance(closable, Generator):
                closable.close()

    async def abandon(self) -> None:
        """Close what was never begun, however often the task is cancelled meanwhile; something else has gone wrong, and is to come out."""
        if not self.closed:
            closer: TaskRunner[Feed, None] = TaskRunner(Feed.aclose)
            closer.start(self, lambda _, __: None)
            await closer.stopped()
