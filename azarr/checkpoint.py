"""Checkpoints: what of an array a stream has stored so far, in a JSON document that a later run goes on from.

::

    {"azarr_checkpoint": 1,
     "array": {"path": "t2m", "zarr_format": 3, "shape": [8760, 721], "chunk_grid": {"name": "regular", …},
               "chunks_per_shard": [1, 1], "data_type": "float32", "field": [],
               "selection": [[0, 8760, 1], [0, 721, 1]]},
     "source": "era5-2024",
     "chunks": [[0, 12], [14, 15]],
     "parts": [[13, [[[48, 60], [0, 721]]]]]}

``chunks`` are runs of whole chunks: their numbers in C order of the array's chunk grid, from the first up to, not including, the second.
``parts`` are the boxes of chunks that are stored in part: the number of the chunk, and where each box starts and stops along every axis of
the array, counted in the view that is written to. ``array`` and ``source`` say what the checkpoint is of; ``selection`` is the view, start,
length and step along each axis, and ``field`` the names that lead to the field of a structure.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from azarr.coverage import Box, Coverage
from azarr.engine import Engine
from azarr.errors import CheckpointError, StoreError
from azarr.metadata.model import ArrayMetadata
from azarr.placement import Target
from azarr.stores.base import ReadableStore, WritableStore
from azarr.stores.local import LocalStore
from azarr.types import JSON, Buffer, ByteRange

CheckpointOption: TypeAlias = Callable[[Any], object] | str | os.PathLike[str] | tuple[Any, str] | None
"""A function, which may be ``async``; the path of a local file; or a store and a key."""

VERSION = 1

MOST_NBYTES = 64 * 2**20
"""The size of a checkpoint at most: millions of runs of chunks."""

MOST_BOXES = 50_000
"""Boxes that a checkpoint has at most. Those beyond are left out, which costs a later run no more than writing them again."""

SMALL = 1000
"""Up to so many runs and boxes, a document is made on the loop, which takes less than a hop to a worker."""


class Checkpoint(Protocol):
    """Where it is noted what has been stored."""

    async def save(self, report: Any, done: Coverage) -> None:
        """Note ``done``, all that is stored."""


class Callback:
    """Tells a function how far a stream is."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    async def save(self, report: Any, done: Coverage) -> None:
        """Call it."""
        del done
        answer = self._function(report)
        if inspect.isawaitable(answer):
            await answer


class StoredCheckpoint:
    """A checkpoint at ``key`` in ``store``, of a target that ``array`` describes and of the ``source``."""

    def __init__(self, store: Any, key: str, array: Mapping[str, JSON], source: str | None, engine: Engine, timeout: float | None) -> None:
        self._store, self._key, self._engine, self._timeout = store, key, engine, timeout
        self._heading: dict[str, JSON] = {"azarr_checkpoint": VERSION, "array": array, "source": source}

    async def load(self, target: Target) -> Coverage | None:
        """What is stored of ``target``, ``None`` where there is no checkpoint.

        Raises ``CheckpointError`` where it is damaged, or of another array, view or source.
        """
        async with asyncio.timeout(self._timeout):
            document = await self._store.get(self._key, ByteRange(0, MOST_NBYTES + 1))
        return None if document is None else await self._engine.call(self._parsed, document, target)

    async def save(self, report: Any, done: Coverage) -> None:
        """Store what is ``done`` in place of what was stored."""
        del report
        runs = list(done.whole)
        parts = [(number, list(part.boxes)) for number, part in done.parts.items()]
        if len(runs) + sum(len(boxes) for _, boxes in parts) > SMALL:
            document = await self._engine.call(self._dumped, runs, parts)
        else:
            document = self._dumped(runs, parts)
        async with asyncio.timeout(self._timeout):
            await self._store.set(self._key, document)

    def _dumped(self, runs: list[tuple[int, int]], parts: list[tuple[int, list[Box]]]) -> bytes:
        kept, left = [], MOST_BOXES
        for number, boxes in sorted(parts):
            if left >= len(boxes):
                kept.append((number, boxes))
                left -= len(boxes)
        members = {**self._heading, "chunks": runs, "parts": kept}
        document = json.dumps(members, separators=(",", ":")).encode()
        if len(document) > MOST_NBYTES:
            raise CheckpointError(
                f"the checkpoint {self._key!r} would have {len(document)} bytes where {MOST_NBYTES} are accepted, for the "
                f"{len(runs)} runs of chunks stored so far do not follow each other; let the source come more nearly in order",
                key=self._key,
            )
        return document

    def _parsed(self, document: Buffer, target: Target) -> Coverage:
        if len(document) > MOST_NBYTES:
            raise self._error(f"has more than {MOST_NBYTES} bytes")
        try:
            members = json.loads(str(document, "utf-8"))
        except (ValueError, RecursionError):
            raise self._error("is not JSON in UTF-8") from None
        if not isinstance(members, dict) or type(members.get("azarr_checkpoint")) is not int:
            raise self._error("is not a checkpoint")
        if members["azarr_checkpoint"] != VERSION:
            raise self._error(f"is of version {members['azarr_checkpoint']}, and this azarr knows {VERSION}")
        self._check_same(members)
        return self._coverage(members.get("chunks"), members.get("parts"), target)

    def _check_same(self, members: Mapping[str, Any]) -> None:
        """Raise ``CheckpointError`` unless the checkpoint is of this array, view and source."""
        here = json.loads(json.dumps(self._heading))
        there = members.get("array")
        if not isinstance(there, dict):
            raise self._error("does not say of which array it is")
        for name in [*here["array"], *there]:
            if there.get(name) != here["array"].get(name):
                raise self._error(f"is of another array or view: {name} is {there.get(name)!r:.100}, here {here['array'].get(name)!r:.100}")
        if members.get("source") != here["source"]:
            raise self._error(f"is of another source: {members.get('source')!r:.100}, here {here['source']!r:.100}")

    def _coverage(self, chunks: Any, parts: Any, target: Target) -> Coverage:
        done = Coverage()
        count = math.prod(target.grid_shape)
        if not isinstance(chunks, list) or not isinstance(parts, list):
            raise self._error("does not say what is stored")
        for run in chunks:
            if not is_span(run) or not run[0] < run[1] <= count:
                raise self._error(f"has chunks {run!r:.100}, which is not a run of the {count} chunks there are")
        for first, stop in sorted(chunks):  # in order, as adding in between takes longer
            done.whole.add(first, stop)
        left = MOST_BOXES
        for part in parts:
            if not isinstance(part, list) or len(part) != 2 or type(part[0]) is not int or not isinstance(part[1], list):
                raise self._error(f"has parts {part!r:.100}, which is not a chunk and its boxes")
            if not 0 <= part[0] < count or (left := left - len(part[1])) < 0:
                raise self._error(f"has parts of a chunk {part[0]}, of which there is none, or more than {MOST_BOXES} boxes")
            bounds = target.bounds(target.coords(part[0]))
            for box in part[1]:
                if not is_box(box, bounds):
                    raise self._error(f"has a box {box!r:.100} in the chunk {part[0]}, which is {bounds}")
                done.add(part[0], tuple(map(tuple, box)), bounds)
        return done

    def _error(self, what: str) -> CheckpointError:
        hint = "begin without resume=True, which replaces it, or name another checkpoint"
        return CheckpointError(f"cannot go on from {self._key!r}, which {what}; {hint}", key=self._key)


def is_span(value: Any) -> bool:
    """Whether ``value`` is a list of two whole numbers."""
    return isinstance(value, list) and len(value) == 2 and all(type(each) is int and each >= 0 for each in value)


def is_box(value: Any, bounds: Box) -> bool:
    """Whether ``value`` is a list of where a block within ``bounds`` starts and stops along each axis."""
    if not isinstance(value, list) or len(value) != len(bounds) or not all(map(is_span, value)):
        return False
    return all(low <= start < stop <= high for (start, stop), (low, high) in zip(value, bounds, strict=True))


def describe(path: str, metadata: ArrayMetadata, target: Target) -> dict[str, JSON]:
    """What tells the target of a checkpoint from others."""
    return {
        "path": path,
        "zarr_format": metadata.zarr_format,
        "shape": metadata.shape,
        "chunk_grid": metadata.chunk_grid.to_json(),
        "chunks_per_shard": target.source.chunks_per_unit,
        "data_type": metadata.data_type.name if metadata.data_type.dtype.names is None else str(metadata.data_type.dtype),
        "field": target.source.pipeline.field,
        "selection": [[axis.start, axis.length, axis.step] for axis in cast("Any", target.selection).axes],
    }


def located(option: Any) -> tuple[Any, str]:
    """The store and key of a checkpoint."""
    if isinstance(option, str | os.PathLike):
        path = Path(option).expanduser().absolute()
        return LocalStore(path.parent), path.name
    store, key = option if isinstance(option, tuple) and len(option) == 2 else (None, "")
    if not isinstance(store, ReadableStore):
        raise TypeError(f"checkpoint must be a function, a path, or a store and a key, not {option!r:.100}")
    if not isinstance(store, WritableStore):
        raise StoreError(f"{store!r} cannot be written to", key=key)
    return store, key


def checkpoint_of(
    option: CheckpointOption, path: str, metadata: ArrayMetadata, target: Target, source: str | None, engine: Engine, timeout: float | None
) -> Callback | StoredCheckpoint | None:
    """Where it is noted what of ``target`` has been stored; ``None`` where it is not."""
    if option is None:
        return None
    if callable(option):
        return Callback(option)
    if not target.made_of_blocks:
        raise ValueError("a checkpoint is of an array or of a view that integers and slices select")
    store, key = located(option)
    return StoredCheckpoint(store, key, describe(path, metadata, target), source, engine, timeout)
