"""Identities of stores that are made of those of others."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from azarr.stores.base import identity_of


@dataclass(frozen=True, slots=True)
class Below:
    """The ``identity`` of a store that has what is below ``prefix`` in the data of another ``identity``, by the rest of its keys.

    Whoever writes through the one excludes who writes the same value through the other.
    """

    whole: Hashable
    prefix: str


@dataclass(frozen=True, slots=True)
class Overlaid:
    """The ``identity`` of a store that writes to the data of ``above``, and reads those of ``below`` where there are none."""

    above: Hashable
    below: Hashable


def is_private(store: object) -> bool:
    """Whether the data are in the memory of this process, or nobody can tell where they are: then no other process writes to them."""
    identity = identity_of(store)
    while isinstance(identity, Below | Overlaid):
        identity = identity.whole if isinstance(identity, Below) else identity.above
    return isinstance(identity, tuple) and identity[:1] in {("memory",), ("object",)}
