"""How far an array reaches, as its stored metadata say: read again, and changed by one at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from azarr import documents
from azarr.chunk_sources import ChunkSource
from azarr.claims import OvertakenError, claim_of
from azarr.engine import Engine
from azarr.errors import NodeNotFoundError, PreconditionFailedError
from azarr.metadata.model import ArrayMetadata
from azarr.stores.base import ReadableStore
from azarr.turns import Turn
from azarr.types import JSON

T = TypeVar("T")

ATTEMPTS = 100
"""How often a change of the shape starts again because another process has changed it without waiting for its turn."""


Stored: TypeAlias = Callable[[ArrayMetadata, ArrayMetadata], None]
"""Called with an array's metadata before and after its shape was changed, as soon as that is stored."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array is, and with what it is worked on."""

    store: ReadableStore
    path: str
    engine: Engine
    source_of: Callable[[ArrayMetadata], ChunkSource]

    def turn(self, own: ArrayMetadata) -> Turn:
        """The turn at this array."""
        return Turn(self.store, self.path, name_of(own), self.engine.limits)


def name_of(own: ArrayMetadata) -> str:
    """The document that says what shape the array has."""
    return "zarr.json" if own.zarr_format == 3 else ".zarray"


async def in_turn(place: Place, own: ArrayMetadata, work: Callable[[Turn], Awaitable[T]]) -> T:
    """What ``work`` answers when it is its turn; it starts again where somebody else did not wait for theirs."""
    for _ in range(ATTEMPTS):
        async with place.turn(own) as turn:
            with suppress(OvertakenError):
                return await work(turn)
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - no secret
    raise PreconditionFailedError(
        f"the shape of {place.path or '/'!r} has been changed by others {ATTEMPTS} times while this process tried to", key=place.path
    )


async def publish(
    place: Place, own: ArrayMetadata, turn: Turn, reshape: Callable[[ArrayMetadata], tuple[int, ...]], stored: Stored, *, last: bool
) -> None:
    """Have the array's stored shape become what ``reshape`` makes of its metadata. ``last`` ends a claim."""
    before = own

    def edit(metadata: documents.Metadata, members: Mapping[str, JSON]) -> Mapping[str, JSON]:
        nonlocal before
        before = expect_array(metadata, place)
        after = before.with_shape(reshape(before))
        grid = {} if after.chunk_grid.chunk_lengths == before.chunk_grid.chunk_lengths else {"chunk_grid": after.chunk_grid.to_json()}
        return {**members, "shape": list(after.shape), **grid}

    def published(metadata: documents.Metadata) -> None:
        if turn.claim is not None and last:
            turn.claim.over()
        stored(before, expect_array(metadata, place))

    claim = claim_of if turn.claim is None else turn.claim.close if last else turn.claim.keep
    await documents.change(place.store, place.path, name_of(own), edit, place.engine.limits, own, claim=claim, stored=published)


def expect_array(metadata: documents.Metadata | None, place: Place) -> ArrayMetadata:
    """``metadata``, if it is that of an array."""
    if not isinstance(metadata, ArrayMetadata):
        raise NodeNotFoundError(f"there is no array at {place.path or '/'!r} in {place.store!r} any more", path=place.path)
    return metadata


async def refresh(place: Place, own: ArrayMetadata, take: Callable[[ArrayMetadata], None]) -> None:
    """Have ``take`` called with the array's metadata as they are stored now, in the order in which they are changed in this process."""
    async with documents.hold(place.store, place.path):
        take(expect_array(await documents.read(place.store, place.path, place.engine.limits, own.zarr_format), place))
