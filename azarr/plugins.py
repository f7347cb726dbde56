"""Plug-ins: what other distributions offer azarr by entry points, found without importing any of them.

Whoever is asked for the name of an extension that azarr does not have looks here. Nothing is looked for when azarr is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from azarr.errors import PluginError

T = TypeVar("T")

Offers: TypeAlias = Mapping[str, tuple[EntryPoint, ...]]
"""Entry points by name; several where more than one distribution has it."""


def offered(group: str) -> Offers:
    """What the installed distributions offer in ``group``."""
    return _scan(group, tuple((path, _changed(path)) for path in sys.path))


def waiting(groups: tuple[str, ...], known: Container[str]) -> tuple[EntryPoint, ...]:
    """What the installed distributions offer in ``groups`` by names that are not ``known``."""
    offers = [offered(group) for group in groups]
    return tuple(point for offer in offers for name, points in sorted(offer.items()) if name not in known for point in points)


def brought(kind: str, groups: tuple[str, ...], name: str, accept: Callable[[str, object], T]) -> tuple[T, str] | None:
    """What is offered as ``name`` in the first of ``groups`` that has it, loaded and as ``accept`` takes it, and its distribution.

    ``None`` where nobody offers it; ``PluginError`` where it cannot be loaded, or ``accept`` raises ``TypeError`` as it is no ``kind``.
    """
    point = next((point for group in groups if (point := find(group, name)) is not None), None)
    if point is None:
        return None
    value = load(point)
    try:
        return accept(name, value), distribution(point)
    except TypeError as error:
        raise refused(point, f"is not a {kind}: {error}") from error


def find(group: str, name: str) -> EntryPoint | None:
    """The entry point ``name`` of ``group``; ``None`` where there is none, ``PluginError`` where several distributions have it."""
    points = offered(group).get(name, ())
    if len(points) > 1:
        owners = " and ".join(sorted(map(distribution, points)))
        raise PluginError(f"{owners} all bring {name!r} ({group}); uninstall all but one, or register the one that is meant", name=name)
    return points[0] if points else None


def load(point: EntryPoint) -> object:
    """What ``point`` stands for; ``PluginError`` names the distribution where it cannot be imported."""
    try:
        loaded: object = point.load()
    except Exception as error:
        raise refused(point, f"cannot be loaded: {type(error).__name__}: {error}; update or uninstall it") from error
    return loaded


def refused(point: EntryPoint, why: str) -> PluginError:
    """The error for a plug-in that cannot be used."""
    owner = distribution(point)
    return PluginError(f"the plug-in {point.name!r} of {owner} ({point.group}: {point.value}) {why}", name=point.name, distribution=owner)


def distribution(point: EntryPoint) -> str:
    """The distribution that brings ``point``, with its version."""
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _changed(path: str) -> int | None:
    """When a distribution was last installed in a folder, or removed from it."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return None


@lru_cache(maxsize=8)
def _scan(group: str, _state: tuple[tuple[str, int | None], ...]) -> Offers:
    """The entry points of ``group``, and of groups inside it, which zarr-python allows: ``zarr.codecs.gzip`` offers what is called gzip.

    Reading them takes tens of milliseconds, so it is done again only where a folder has changed.
    """
    found: dict[str, dict[str, EntryPoint]] = {}
    everything = entry_points()
    for each in everything.groups:
        if f"{each}.".startswith(f"{group}."):
            for point in everything.select(group=each):
                found.setdefault(each[len(group) + 1 :] or point.name, {})[f"{distribution(point)} {point.value}"] = point
    return MappingProxyType({name: tuple(points.values()) for name, points in found.items()})
