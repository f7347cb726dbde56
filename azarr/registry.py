"""What the names in metadata and URLs stand for: what azarr has, what a program registers, and what plug-ins bring."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from azarr.deferred import Deferred
from azarr.errors import RegistrationError
from azarr.extras import Extra

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from azarr.plugins import brought, waiting
else:  # to read entry points takes 15 ms to import, and is not needed where all names are known
    brought, waiting = Deferred("azarr.plugins", "brought"), Deferred("azarr.plugins", "waiting")

T = TypeVar("T")

Accept = Callable[[str, object], T]
"""What a registry takes for the entry of a name: ``TypeError`` says why an object cannot be one."""

OWN = "azarr"
"""The source of what azarr has itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[T]):
    """What ``names`` stand for, of which the first is the usual one, and where it comes from."""

    names: tuple[str, ...]
    held: T | Deferred
    source: str

    @property
    def value(self) -> T:
        """What they stand for; it is imported where nobody has asked for it yet."""
        return cast("T", self.held.load()) if isinstance(self.held, Deferred) else self.held

    @property
    def extra(self) -> Extra | None:
        """What importing it needs."""
        return self.held.extra if isinstance(self.held, Deferred) else None


class Registration:
    """An entry that a program has made: ``undo`` it, or use it with ``with``, and what was there before is there again."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def undo(self) -> None:
        """Take the entry out; fine where that has been done."""
        self._undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


class Registry(Generic[T]):
    """Entries of one kind by name, in layers: azarr's own, above them those of plug-ins and programs, the latest uppermost.

    Readers look at a mapping that never changes and is replaced as a whole, so they need no lock. A name that is in none of the
    layers is looked for among the entry points of ``groups``, one after the other, and loaded by whoever first asks for it.
    """

    def __init__(self, kind: str, own: Iterable[Entry[T]], groups: tuple[str, ...], accept: Accept[T]) -> None:
        self.kind = kind
        self.groups = groups
        self._accept = accept
        self._own = tuple(own)
        self._added: tuple[Entry[T], ...] = ()
        self._by_name = self._layered()
        self._lock = threading.Lock()

    def _layered(self) -> Mapping[str, Entry[T]]:
        return MappingProxyType({name: entry for entry in (*self._own, *self._added) for name in entry.names})

    @property
    def names(self) -> tuple[str, ...]:
        """The names that need no plug-in to be loaded."""
        return tuple(self._by_name)

    @property
    def entries(self) -> tuple[Entry[T], ...]:
        """The entries that need no plug-in to be loaded, each with the names that lead to it."""
        names: dict[Entry[T], list[str]] = {}
        for name, entry in self._by_name.items():
            names.setdefault(entry, []).append(name)
        return tuple(replace(entry, names=tuple(own)) for entry, own in names.items())

    @property
    def waiting(self) -> tuple[EntryPoint, ...]:
        """The plug-ins that nobody has asked for yet."""
        return waiting(self.groups, self._by_name)

    def find(self, name: str) -> Entry[T] | None:
        """The entry of ``name``, ``None`` where nobody knows it; ``PluginError`` where a plug-in has it and cannot be used."""
        return self._by_name.get(name) or self._plugin(name)

    def get(self, name: str) -> T | None:
        """What ``name`` stands for; otherwise as ``find``."""
        entry = self.find(name)
        return None if entry is None else entry.value

    def register(self, name: str, value: object, *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
        """Make ``value`` the entry of ``name`` and ``aliases`` in this process.

        ``RegistrationError`` where one of them has an entry, unless it is to be replaced; ``TypeError`` where ``value`` cannot be one.
        """
        accepted = self._accept(name, value)
        names = tuple(dict.fromkeys((name, *aliases)))
        if not all(type(each) is str and each for each in names):
            raise TypeError(f"the names of a {self.kind} must be strings, not {names!r:.100}")
        entry = Entry(names, accepted, getattr(value, "__module__", type(value).__module__))
        with self._lock:
            for each in names:
                if not replace and (taken := self._by_name.get(each)) is not None:
                    raise RegistrationError(
                        f"the {self.kind} {each!r} is that of {taken.source} already ({taken.value!r:.100}); "
                        "choose another name, or pass replace=True to take its place",
                        name=each,
                    )
            self._set((*self._added, entry))
        return Registration(lambda: self._remove(entry))

    def _set(self, added: tuple[Entry[T], ...]) -> None:
        self._added = added
        self._by_name = self._layered()

    def _remove(self, entry: Entry[T]) -> None:
        with self._lock:
            self._set(tuple(each for each in self._added if each is not entry))

    def _plugin(self, name: str) -> Entry[T] | None:
        # without the lock: what is imported may register something itself
        offer = brought(self.kind, self.groups, name, self._accept)
        if offer is None:
            return None
        with self._lock:
            if name not in self._by_name:
                self._set((*self._added, Entry((name,), *offer)))
            return self._by_name[name]


def callable_of(what: str) -> Accept[Callable[..., T]]:
    """An ``Accept`` for functions; ``what`` says which."""

    def accept(name: str, value: object) -> Callable[..., T]:
        if not callable(value):
            raise TypeError(f"{name!r} needs {what}, not {value!r:.100}")
        return cast("Callable[..., T]", value)

    return accept
