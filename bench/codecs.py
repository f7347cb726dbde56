"""Codecs by themselves: chunks through a pipeline, in one thread."""

from __future__ import annotations

import time

import numpy as np

from azarr import codecs
from azarr.codecs.pipeline import CodecPipeline
from azarr.types import ChunkSpec
from bench.arrays import CUBES, check, weather

COMPRESSORS = {
    "none": [],
    "zstd, level 3": [codecs.Zstd(level=3)],
    "zstd, level 1": [codecs.Zstd(level=1)],
    "blosc, lz4, shuffle": [codecs.Blosc(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)],
    "blosc, zstd, shuffle": [codecs.Blosc(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)],
    "lz4": [codecs.Lz4()],
    "snappy": [codecs.Snappy()],
    "gzip, level 1": [codecs.Gzip(level=1)],
    "crc32c": [codecs.Crc32c()],
    "zstd, crc32c": [codecs.Zstd(level=3), codecs.Crc32c()],
    "shuffle, zstd": [codecs.Shuffle(elementsize=4), codecs.Zstd(level=3)],
}


async def run(bench) -> None:
    kib = bench.pick(1024, 256, 16)
    chunk = np.ascontiguousarray(weather(CUBES[kib]))
    times = bench.pick(16, 8, 1)
    cases = []
    for name, compressors in COMPRESSORS.items():
        pipeline = CodecPipeline((codecs.Bytes(), *compressors), ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0)))
        cases.append(({"codec": name, "chunk KiB": kib}, both_ways(pipeline, chunk, times)))
    await bench.compare(cases, bench.pick(5, 3, 1))


def both_ways(pipeline, chunk, times):
    out = np.empty_like(chunk)

    async def way():
        begun = time.perf_counter()
        for _ in range(times):
            data = pipeline.encode(chunk)
        encoding = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(times):
            pipeline.decode_into(data, out)
        decoding = time.perf_counter() - begun
        check(out, chunk)
        mib = times * chunk.nbytes / 2**20
        return {"decode MiB/s": mib / decoding, "encode MiB/s": mib / encoding, "ratio": chunk.nbytes / len(data)}

    return way
