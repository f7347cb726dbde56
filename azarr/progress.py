"""Progress of streams: a function that is told how far they are, or a bar in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

ProgressOption: TypeAlias = Callable[[Any], object] | Literal["rich", "tqdm"] | None
"""A function, which may be ``async``, that is called with the stats after every chunk; or the library that draws a bar."""


class Stats(Protocol):
    """What a bar shows."""

    @property
    def done(self) -> int:
        """What has been done."""

    @property
    def total(self) -> int:
        """What there is to do."""


class Progress(Protocol):
    """Is told how far something is."""

    def update(self, stats: Any) -> object:
        """So far; what can be awaited is awaited."""

    def close(self, stats: Any) -> object:
        """At the end."""

    def abandon(self) -> None:
        """Before the end, or after ``close``: let go of the terminal."""


class Callback:
    """Tells a function."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.update = self.close = function

    def abandon(self) -> None:
        """Nothing to let go of."""


class RichBar:
    """A bar that rich draws."""

    def __init__(self, description: str) -> None:
        try:
            import rich.progress as rich  # noqa: PLC0415 - an extra
        except ImportError:
            raise missing("rich") from None
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
        )
        self._bar = rich.Progress(*columns)
        self._task = self._bar.add_task(description, total=None)

    def update(self, stats: Stats) -> None:
        """Move the bar."""
        self._bar.start()
        self._bar.update(self._task, completed=stats.done, total=stats.total)

    def close(self, stats: Stats) -> None:
        """Move the bar to where it ends, and leave it there."""
        self.update(stats)
        self._bar.stop()

    def abandon(self) -> None:
        """Leave the bar where it is."""
        if self._bar.live.is_started:  # rich ends the line each time that it is told to stop
            self._bar.stop()


class TqdmBar:
    """A bar that tqdm draws."""

    def __init__(self, description: str) -> None:
        try:
            from tqdm import tqdm  # noqa: PLC0415 - an extra
        except ImportError:
            raise missing("tqdm") from None
        self._make: Callable[[], Any] = lambda: tqdm(desc=description, unit="chunk")
        self._bar: Any = None

    def update(self, stats: Stats) -> None:
        """Move the bar."""
        self._bar = self._make() if self._bar is None else self._bar
        self._bar.total = stats.total
        self._bar.update(stats.done - self._bar.n)

    def close(self, stats: Stats) -> None:
        """Move the bar to where it ends, and leave it there."""
        self.update(stats)
        self._bar.refresh()
        self._bar.close()

    def abandon(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()


def missing(library: str) -> ImportError:
    """The error where ``library`` is not installed."""
    return ImportError(f'progress="{library}" needs {library}: pip install "azarr[progress]"', name=library)


def progress_of(option: ProgressOption, description: str) -> Progress | None:
    """What is told of the progress of something that is called ``description``; ``None`` where nothing is."""
    if option is None:
        return None
    if callable(option):
        return Callback(option)
    if option not in BARS:
        raise ValueError(f"progress must be a function, 'rich' or 'tqdm', not {option!r:.60}")
    return BARS[option](description)


BARS: dict[str, Callable[[str], Progress]] = {"rich": RichBar, "tqdm": TqdmBar}
