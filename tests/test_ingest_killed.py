"""A process that is killed while it writes a stream: every chunk is old or new, and another process goes on.

``AZARR_KILLS=200`` kills so many processes; it is ten otherwise.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import azarr

PROGRAM = """
import asyncio, random, sys
import numpy as np
import azarr

SHAPE, CHUNKS, CONCURRENCY = (120, 140), (10, 10), 5
LAYOUTS = {
    "plain": {},
    "sharded": {"shards": (20, 40)},
    "rows": {},
}
DATA = np.random.default_rng(0).integers(1, 2**30, SHAPE, dtype="i4")


def blocks(layout, seed):
    "Where the items belong: chunks in any order, or rows that are parts of chunks."
    step = (10, 10) if layout != "rows" else (3, 140)
    found = [
        (slice(row, min(row + step[0], SHAPE[0])), slice(column, min(column + step[1], SHAPE[1])))
        for row in range(0, SHAPE[0], step[0])
        for column in range(0, SHAPE[1], step[1])
    ]
    if seed % 3 == 1:
        random.Random(seed).shuffle(found)
    return found


async def items(layout, seed):
    for block in blocks(layout, seed):
        await asyncio.sleep(0)
        yield block, DATA[block]


async def write(store, layout, seed, *, resume):
    array = await azarr.open_array(store, "a")
    options = {"checkpoint": store.root + "/checkpoint.json", "batch_size": 1 + seed % 4, "concurrency": CONCURRENCY}
    return await array.write_stream(items(layout, seed), resume=resume, **options)


if __name__ == "__main__":
    store = azarr.LocalStore(sys.argv[1], durability="none")
    print("ready", flush=True)
    asyncio.run(write(store, sys.argv[2], int(sys.argv[3]), resume=sys.argv[4] == "resume"))
"""

KILLS = int(os.environ.get("AZARR_KILLS", "10"))


@pytest.fixture(scope="module")
def program():
    """What both processes know."""
    names = {"__name__": "program"}
    exec(PROGRAM, names)
    return names


@pytest.fixture(scope="module")
def templates(program, tmp_path_factory):
    """An array of old data for each layout."""
    roots = {}

    async def make(root, layout):
        options = {"shape": program["SHAPE"], "chunks": program["CHUNKS"], "dtype": "i4", **program["LAYOUTS"][layout]}
        store = azarr.LocalStore(root, durability="none")
        array = await azarr.create_array(store, "a", compressors=[azarr.codecs.Zstd(), azarr.codecs.Crc32c()], **options)
        await array.write(-program["DATA"])

    for layout in program["LAYOUTS"]:
        roots[layout] = tmp_path_factory.mktemp(layout) / "store"
        asyncio.run(make(roots[layout], layout))
    return roots


def killed(root, layout, seed, how, seconds):
    """Run the program, and kill it when so many seconds have passed since it began to write; whether that was before its end."""
    command = [sys.executable, "-P", "-W", "error", "-c", PROGRAM, str(root), layout, str(seed), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().strip() == b"ready", process.stderr.read()
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        assert process.returncode == 0, errors
        return False


class Counting(azarr.LocalStore):
    """Local files, and the keys of the chunks that were stored."""

    def __init__(self, root):
        super().__init__(root, durability="none")
        self.stored = []

    def set_blocking(self, key, value):
        self.stored.append(key)
        super().set_blocking(key, value)


async def new_keys(root, data):
    """The keys of the chunks or shards that are new. The others must be old, and none may be torn."""
    array = await azarr.open_array(azarr.LocalStore(root, durability="none"), "a")
    new, old = set(), set()
    async with array.stream_chunks() as chunks:
        async for chunk in chunks:  # the checksums are right, or this fails
            is_new = np.array_equal(chunk.data, data[chunk.region])
            assert is_new or np.array_equal(chunk.data, -data[chunk.region])
            unit = tuple(index // count for index, count in zip(chunk.coords, array.source.chunks_per_unit, strict=True))
            (new if is_new else old).add(array.source.key(unit))
    assert not new & old
    return new


async def resumed(root, layout, seed, program):
    """Go on in this process; the keys that are stored by that."""
    store = Counting(root)
    report = await program["write"](store, layout, seed, resume=True)
    assert report.written + report.skipped == len(program["blocks"](layout, seed))
    assert np.array_equal(await (await azarr.open_array(store, "a")).read(), program["DATA"])
    return [key for key in store.stored if key.startswith("a/c")]


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_process_that_is_killed_at_any_moment(program, templates, tmp_path):
    dice, died, layouts = random.Random(1), 0, list(program["LAYOUTS"])
    seconds = {}
    for layout in layouts:
        shutil.copytree(templates[layout], tmp_path / layout)
        begun = time.perf_counter()
        asyncio.run(program["write"](azarr.LocalStore(tmp_path / layout, durability="none"), layout, 0, resume=False))
        seconds[layout] = time.perf_counter() - begun
    for seed in range(KILLS):
        layout, root = layouts[seed % len(layouts)], tmp_path / str(seed)
        shutil.copytree(templates[layout], root)
        for again in range(1 + seed % 2):  # some are killed twice
            died += killed(root, layout, seed, "resume" if again else "begin", dice.uniform(0, 1.2 * seconds[layout]))
            new = asyncio.run(new_keys(root, program["DATA"]))
        stored = asyncio.run(resumed(root, layout, seed, program))
        assert len(stored) == len(set(stored))
        assert len(new & set(stored)) <= program["CONCURRENCY"]
        shutil.rmtree(root)
    assert died >= KILLS // 3
