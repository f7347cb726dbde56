"""The arrays that azarr exchanges with other Zarr libraries, described once and neutrally.

A ``Case`` says what an array is. It hands that on in the words of ``azarr.create_array`` and as the metadata document that the
specification asks for, written down here without azarr's help, which is what the other libraries create their arrays from. The
fixture ``case`` runs through all of them; ``cases`` is a hypothesis strategy of random ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import azarr

INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
DTYPES = ("bool", *INTS, *FLOATS, *COMPLEX)

ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 5}}
CRC32C = {"name": "crc32c"}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}

CNAMES = ("lz4", "lz4hc", "blosclz", "zlib", "zstd")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")


def zstd(level: int, *, checksum: bool = False) -> dict[str, Any]:
    return {"name": "zstd", "configuration": {"level": level, "checksum": checksum}}


def gzip(level: int) -> dict[str, Any]:
    return {"name": "gzip", "configuration": {"level": level}}


def blosc(cname: str, shuffle: str, typesize: int, clevel: int = 5, blocksize: int = 0) -> dict[str, Any]:
    return {
        "name": "blosc",
        "configuration": {"cname": cname, "clevel": clevel, "shuffle": shuffle, "typesize": typesize, "blocksize": blocksize},
    }


def v2_blosc(cname: str, shuffle: int, clevel: int = 5, blocksize: int = 0) -> dict[str, Any]:
    return {"id": "blosc", "cname": cname, "clevel": clevel, "shuffle": shuffle, "blocksize": blocksize}


def sharding(inner, codecs, index_codecs=(LITTLE, CRC32C), location="end") -> dict[str, Any]:
    configuration = {"chunk_shape": list(inner), "codecs": codecs, "index_codecs": list(index_codecs), "index_location": location}
    return {"name": "sharding_indexed", "configuration": configuration}


def bits(array: Any) -> np.ndarray:
    """The elements as the whole numbers that their bytes are, so that -0.0 is not 0.0 and a NaN is itself."""
    native = np.asarray(array)
    native = np.ascontiguousarray(native, native.dtype.newbyteorder("="))
    component = native.dtype.itemsize // (2 if native.dtype.kind == "c" else 1)
    return native.reshape(-1).view(f"u{component}")


@dataclass(frozen=True)
class Case:
    """An array: its metadata in neutral words, and what it holds.

    ``compressors`` are v3 objects with a name, or v2 objects with an id. ``serializer`` takes the place of the ``bytes`` codec.
    ``written`` is the part that is written, everything by default; the rest is left to the fill value.
    """

    name: str = ""
    zarr_format: int = 3
    shape: tuple[int, ...] = (5, 7)
    dtype: str = "int32"
    chunks: tuple[int, ...] = (2, 3)
    shards: tuple[int, ...] | None = None
    index_location: str = "end"
    index_codecs: tuple[Mapping[str, Any], ...] = (LITTLE, CRC32C)
    endian: str = "little"
    transpose: tuple[int, ...] | None = None
    serializer: Mapping[str, Any] | None = None
    compressors: tuple[Mapping[str, Any], ...] = ()
    fill_value: Any = 0
    key_encoding: str = ""
    separator: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dimension_names: tuple[str | None, ...] | None = None
    written: tuple[slice, ...] = ()

    @cached_property
    def native(self) -> np.dtype:
        return np.dtype(self.dtype)

    @cached_property
    def stored(self) -> np.dtype:
        """The NumPy data type with the byte order in which the elements are stored."""
        return self.native.newbyteorder(">" if self.endian == "big" else "<")

    @cached_property
    def fill(self) -> np.generic:
        return np.array([self.fill_value], self.native)[0]

    @property
    def order(self) -> str:
        return "F" if self.transpose is not None and self.transpose == tuple(reversed(range(len(self.shape)))) else "C"

    @property
    def keys(self) -> tuple[str, str]:
        """The chunk key encoding and its separator."""
        name = self.key_encoding or ("default" if self.zarr_format == 3 else "v2")
        return name, self.separator or ("/" if name == "default" else ".")

    @property
    def filters(self) -> list[dict[str, Any]]:
        """The array-to-array codecs of v3."""
        return [] if self.transpose is None else [{"name": "transpose", "configuration": {"order": list(self.transpose)}}]

    @property
    def bytes_codec(self) -> Mapping[str, Any]:
        """What turns the elements into bytes."""
        if self.serializer is not None:
            return self.serializer
        return {"name": "bytes"} if self.native.itemsize == 1 else BIG if self.endian == "big" else LITTLE

    @property
    def sharding(self) -> dict[str, Any]:
        """The codec that turns the elements of a shard into bytes."""
        return sharding(self.chunks, [*self.filters, self.bytes_codec, *self.compressors], self.index_codecs, self.index_location)

    @property
    def needs_sharding_codec(self) -> bool:
        """Whether the shards are of a kind that only the codec itself can describe, not an option of the usual functions."""
        return self.shards is not None and self.index_codecs != (LITTLE, CRC32C)

    # What the array holds

    @cached_property
    def values(self) -> np.ndarray:
        """What is written, of the shape of the whole array: a ramp that compresses, edge cases strewn in, fill value at the end."""
        size, dtype, rng = math.prod(self.shape), self.native, np.random.default_rng(len(self.shape))
        ramp = (np.arange(size) // 3 % 100).astype("f8" if dtype.kind in "fc" else "i8")
        array = (ramp + 1j * ramp[::-1] if dtype.kind == "c" else ramp % 2 if dtype.kind == "b" else ramp).astype(dtype)
        extremes = np.array([self.fill, *extreme(dtype)], dtype)
        strewn = rng.random(size) < 0.2
        array[strewn] = rng.choice(extremes, int(strewn.sum()))
        array = array.reshape(self.shape)
        if any(length > chunk for length, chunk in zip(self.shape, self.chunks, strict=True)):
            array[tuple(slice((length - 1) // chunk * chunk, None) for length, chunk in zip(self.shape, self.chunks, strict=True))] = (
                self.fill
            )
        return array

    @cached_property
    def expected(self) -> np.ndarray:
        """What must be read."""
        array = np.full(self.shape, self.fill, self.native)
        array[self.written] = self.values[self.written]
        return array

    @property
    def updates(self) -> list[tuple[tuple[slice, ...], np.ndarray]]:
        """Two parts that cut through chunks and each other, and what to write to them afterwards."""
        first = tuple(slice(length // 3, max(length - length // 4, length // 3)) for length in self.shape)
        second = tuple(slice((length + 1) // 2) for length in self.shape)
        return [
            (first, self.values[first][..., ::-1].copy() if self.shape else self.values),
            (second, np.full_like(self.values[second], 1)),
        ]

    def check(self, actual: Any, expected: np.ndarray | None = None) -> None:
        """Fail unless ``actual`` is what must be read, bit by bit."""
        expected = self.expected if expected is None else expected
        actual = np.asarray(actual)
        assert actual.shape == expected.shape
        assert actual.dtype.newbyteorder("=") == expected.dtype
        np.testing.assert_array_equal(bits(actual), bits(expected))

    def check_azarr(self, array: azarr.AsyncArray) -> None:
        """Fail unless ``array`` is described as this case is."""
        assert (array.shape, array.dtype, array.chunks, array.shards) == (self.shape, self.native, self.chunks, self.shards)
        assert array.fill_value.dtype == self.native
        np.testing.assert_array_equal(bits(array.fill_value), bits(self.fill))
        assert dict(array.attrs) == dict(self.attributes)
        assert array.dimension_names == self.dimension_names
        assert array.metadata.zarr_format == self.zarr_format
        assert (array.metadata.chunk_key_encoding.name, array.metadata.chunk_key_encoding.separator) == self.keys

    def check_documents(self, actual: dict[str, Any], expected: dict[str, Any]) -> None:
        """Fail unless two metadata documents of another library for this array mean the same."""
        for document in (actual, expected):
            compressor = document.get("compressor")
            if compressor and compressor.get("shuffle") == -1:  # which leaves the choice to the size of the elements
                document["compressor"] = {**compressor, "shuffle": 2 if self.native.itemsize == 1 else 1}
        np.testing.assert_equal(actual, expected)

    # The same in the words of azarr

    async def create(self, store: Any, path: str = "", **options: Any) -> azarr.AsyncArray:
        """The array, created by azarr and with nothing written."""
        if self.needs_sharding_codec:
            codecs = {"chunks": self.shards, "serializer": self.sharding, "compressors": None}
        else:
            codecs = {
                "chunks": self.chunks,
                "shards": None if self.shards is None else {"shape": self.shards, "index_location": self.index_location},
                "filters": [] if self.order == "F" else self.filters,
                "order": self.order,
                "serializer": self.serializer,
                "compressors": [self._azarr_codec(codec) for codec in self.compressors],
            }
        name, separator = self.keys
        return await azarr.create_array(
            store,
            path,
            shape=self.shape,
            dtype=self.stored,
            fill_value=self.fill,
            chunk_key_encoding={"name": name, "separator": separator},
            dimension_names=self.dimension_names,
            attributes=self.attributes,
            zarr_format=self.zarr_format,
            **codecs,
            **options,
        )

    async def write(self, store: Any, path: str = "", **options: Any) -> azarr.AsyncArray:
        """The array, created and written by azarr."""
        array = await self.create(store, path, **options)
        await array[self.written].write(self.values[self.written])
        return array

    def _azarr_codec(self, codec: Mapping[str, Any]) -> Any:
        if "id" not in codec:
            return codec
        configuration = {key: value for key, value in codec.items() if key != "id"}
        if codec["id"] == "blosc":
            shuffle = configuration["shuffle"]
            return azarr.codecs.Blosc(**{**configuration, "shuffle": None if shuffle < 0 else SHUFFLES[shuffle]})
        name = codec["id"] if codec["id"] in {"gzip", "zstd"} else f"numcodecs.{codec['id']}"
        return {"name": name, "configuration": configuration}

    # The same in the words of the specification

    @property
    def document(self) -> dict[str, Any]:
        """``zarr.json``, or ``.zarray`` of v2."""
        return self._v2_document() if self.zarr_format == 2 else self._v3_document()

    def _v3_document(self) -> dict[str, Any]:
        codecs = [*self.filters, self.bytes_codec, *self.compressors] if self.shards is None else [self.sharding]
        name, separator = self.keys
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shards or self.chunks)}},
            "chunk_key_encoding": {"name": name, "configuration": {"separator": separator}},
            "fill_value": self._json_fill_value,
            "codecs": codecs,
            "attributes": dict(self.attributes),
        }
        return document if self.dimension_names is None else {**document, "dimension_names": list(self.dimension_names)}

    def _v2_document(self) -> dict[str, Any]:
        compressors = list(self.compressors)
        return {
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "dtype": self.stored.str,
            "compressor": compressors.pop() if compressors else None,
            "filters": compressors or None,
            "fill_value": self._json_fill_value,
            "order": self.order,
            "dimension_separator": self.keys[1],
        }

    @property
    def _json_fill_value(self) -> Any:
        kind, parts = self.native.kind, [json_float(part) for part in self._float_parts]
        return parts if kind == "c" else parts[0] if kind == "f" else self.fill.item()

    @property
    def _float_parts(self) -> np.ndarray:
        if self.native.kind not in "fc":
            return np.empty(0)
        return np.array([self.fill]).view(f"f{self.native.itemsize // (2 if self.native.kind == 'c' else 1)}")


def json_float(value: np.floating) -> float | str:
    if np.isnan(value):
        usual = bits(value.dtype.type(np.nan))[0] == bits(value)[0]
        return "NaN" if usual else f"0x{int(bits(value)[0]):0{2 * value.dtype.itemsize}x}"
    return ("-Infinity" if value < 0 else "Infinity") if np.isinf(value) else float(value)


def extreme(dtype: np.dtype) -> list[Any]:
    """Elements that a careless library gets wrong."""
    if dtype.kind == "b":
        return [True, False]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return [limits.min, limits.max, limits.max // 2 + 1]
    limits = np.finfo(dtype)
    reals = [np.nan, np.inf, -np.inf, float(limits.max), float(limits.smallest_subnormal), 1 / 3]
    return reals if dtype.kind == "f" else [complex(real, imaginary) for real, imaginary in zip(reals, reversed(reals), strict=True)]


# All cases


def of_data_types():
    for zarr_format, dtype, endian in itertools.product((2, 3), DTYPES, ("little", "big")):
        if endian == "big" and np.dtype(dtype).itemsize == 1:
            continue
        compressor = {"id": "zstd", "level": 3} if zarr_format == 2 else ZSTD
        case = Case(f"{dtype}-{endian}", zarr_format, dtype=dtype, endian=endian, compressors=(compressor,))
        yield case
        if zarr_format == 3:
            yield replace(case, name=f"{case.name}-shards", shards=(4, 6))
            yield replace(case, name=f"{case.name}-plain-shards", shards=(4, 6), compressors=(), transpose=(1, 0))
        else:
            yield replace(case, name=f"{case.name}-plain-F", compressors=(), transpose=(1, 0))


def of_fill_values():
    values = {"bool": [True]}
    for dtype in INTS:
        values[dtype] = [1, np.iinfo(dtype).min, np.iinfo(dtype).max]
    for dtype in FLOATS:
        limits = np.finfo(dtype)
        values[dtype] = [1.5, np.nan, np.inf, -np.inf, -0.0, limits.max, limits.smallest_subnormal, limits.dtype.type(0.1)]
    for dtype in COMPLEX:
        values[dtype] = [1 - 2j, complex(np.nan, -np.inf), complex(np.inf, np.nan), complex(-0.0, 0.0), complex(0.0, -0.0), 0.1 + 0.2j]
    for zarr_format, dtype in itertools.product((2, 3), values):
        for value in values[dtype]:
            case = Case(f"fill-{dtype}-{value}", zarr_format, dtype=dtype, fill_value=value, written=(slice(1, 2), slice(2, 5)))
            yield case
            if zarr_format == 3:
                yield replace(case, name=f"{case.name}-shards", shards=(4, 3))
    for dtype, pattern in {"float16": 0xFE01, "float32": 0x7FC00123, "float64": 0xFFF8000000000001}.items():
        value = np.array([pattern], f"u{np.dtype(dtype).itemsize}").view(dtype)[0]
        yield Case(f"fill-payload-{dtype}", dtype=dtype, fill_value=value, written=(slice(1, 2), slice(2, 5)))


def of_shapes():
    shapes = {
        "0d": ((), (), ()),
        "1d": ((9,), (4,), (8,)),
        "one": ((1,), (1,), (1,)),
        "empty": ((0,), (1,), (2,)),
        "empty-inside": ((3, 0, 2), (2, 1, 2), (2, 3, 2)),
        "exact": ((8, 6), (2, 3), (4, 6)),
        "edges": ((7, 11), (3, 4), (6, 8)),
        "chunk-larger": ((3, 4), (5, 6), (10, 6)),
        "single-elements": ((3, 4), (1, 1), (2, 2)),
        "one-chunk": ((4, 5), (4, 5), (4, 5)),
        "5d": ((3, 2, 4, 1, 5), (2, 1, 3, 1, 2), (2, 2, 3, 1, 4)),
    }
    for name, (shape, chunks, shards) in shapes.items():
        reverse = tuple(reversed(range(len(shape))))
        for zarr_format, order in itertools.product((2, 3), "CF"):
            codecs = ({"id": "gzip", "level": 1},) if zarr_format == 2 else (ZSTD,)
            transpose = reverse if order == "F" and len(shape) > 1 else None
            case = Case(f"{name}-{order}", zarr_format, shape, "float32", chunks, transpose=transpose, compressors=codecs, fill_value=-1)
            yield case
            if zarr_format == 3:
                yield replace(case, name=f"{case.name}-shards-end", shards=shards)
                yield replace(case, name=f"{case.name}-shards-start", shards=shards, index_location="start")
    deep = Case(shape=(4, 5, 6), chunks=(2, 3, 4), compressors=(ZSTD,))
    for order in itertools.permutations(range(3)):
        yield replace(deep, name=f"transpose-{order}", transpose=order)
        yield replace(deep, name=f"transpose-{order}-shards", transpose=order, shards=(4, 3, 4))


def of_codecs():
    grid = Case(shape=(40, 50), chunks=(16, 32))
    codecs = {
        "none": (),
        **{f"gzip-{level}": (gzip(level),) for level in (0, 1, 9)},
        **{f"zstd-{level}": (zstd(level),) for level in (-7, 0, 1, 22)},
        "zstd-checksum": (zstd(3, checksum=True),),
        "crc32c": (CRC32C,),
        "gzip-crc32c": (GZIP, CRC32C),
        "crc32c-zstd": (CRC32C, ZSTD),
        "zstd-gzip-crc32c": (ZSTD, GZIP, CRC32C),
        "blosc-gzip": (blosc("lz4", "shuffle", 4), GZIP),
    }
    for name, compressors in codecs.items():
        case = replace(grid, name=name, compressors=compressors)
        yield case
        yield replace(case, name=f"{name}-shards-end", shards=(32, 32))
        yield replace(case, name=f"{name}-shards-start", shards=(16, 64), index_location="start")
    for cname, shuffle, dtype in itertools.product(CNAMES, SHUFFLES, ("uint8", "int16", "float32", "float64", "complex128")):
        name = f"blosc-{cname}-{shuffle}-{dtype}"
        yield replace(grid, name=name, dtype=dtype, compressors=(blosc(cname, shuffle, np.dtype(dtype).itemsize),))
    for cname, shuffle, typesize in itertools.product(("lz4", "zstd"), SHUFFLES[1:], (1, 3, 8, 24)):
        name = f"blosc-{cname}-{shuffle}-typesize-{typesize}"
        yield replace(grid, name=name, dtype="int32", compressors=(blosc(cname, shuffle, typesize),))
    large = Case(shape=(150, 600), dtype="int16", chunks=(100, 600))
    for cname, shuffle, clevel in itertools.product(CNAMES, SHUFFLES, (1, 9)):
        name = f"blosc-{cname}-{shuffle}-large-{clevel}"
        yield replace(large, name=name, compressors=(blosc(cname, shuffle, 2, clevel),))
    yield replace(large, name="blosc-stored", compressors=(blosc("zstd", "shuffle", 2, 0),))
    yield replace(large, name="blosc-blocksize", compressors=(blosc("zstd", "shuffle", 2, 5, 4096),))
    yield replace(grid, name="blosc-shards", shards=(32, 64), dtype="float64", compressors=(blosc("zstd", "bitshuffle", 8),))


def of_v2_codecs():
    grid = Case(zarr_format=2, shape=(40, 50), chunks=(16, 32))
    codecs = {
        "none": (),
        **{f"zlib-{level}": ({"id": "zlib", "level": level},) for level in (0, 1, 9)},
        **{f"gzip-{level}": ({"id": "gzip", "level": level},) for level in (0, 1, 9)},
        **{f"bz2-{level}": ({"id": "bz2", "level": level},) for level in (1, 9)},
        **{f"lz4-{acceleration}": ({"id": "lz4", "acceleration": acceleration},) for acceleration in (1, 10)},
        **{f"zstd-{level}": ({"id": "zstd", "level": level},) for level in (-7, 0, 1, 22)},
        "zstd-checksum": ({"id": "zstd", "level": 3, "checksum": True},),
    }
    for name, compressors in codecs.items():
        yield replace(grid, name=name, compressors=compressors)
        yield replace(grid, name=f"{name}-F-big", compressors=compressors, transpose=(1, 0), endian="big", dtype="float64")
    for cname, shuffle, dtype in itertools.product(CNAMES, (-1, 0, 1, 2), ("uint8", "int16", "float32", "complex128")):
        name = f"blosc-{cname}-{shuffle}-{dtype}"
        yield replace(grid, name=name, dtype=dtype, compressors=(v2_blosc(cname, shuffle),))
    for cname in CNAMES:
        yield replace(grid, name=f"blosc-{cname}-large", shape=(150, 600), chunks=(100, 600), compressors=(v2_blosc(cname, 1, 9),))


def of_shards():
    grid = Case(shape=(10, 13), dtype="float32", chunks=(4, 6), fill_value=np.nan)
    fine = replace(grid, chunks=(2, 3), shards=(4, 6))
    index = {"big": (BIG, CRC32C), "unchecked": (LITTLE,), "checked-twice": (LITTLE, CRC32C, CRC32C)}
    for location in ("start", "end"):
        for name, codecs in index.items():
            yield replace(fine, name=f"index-{name}-{location}", endian="big", index_codecs=codecs, index_location=location)
        holes = replace(fine, name=f"holes-{location}", compressors=(ZSTD,), index_location=location)
        yield replace(holes, written=(slice(5, 6), slice(3)))
        nested = sharding((2, 3), [LITTLE, GZIP], location=location)
        yield replace(grid, name=f"nested-{location}", serializer=nested, shards=(8, 12), index_location=location)
    plain = sharding((2, 3), [LITTLE])
    yield replace(grid, name="compressed-shard", serializer=plain, compressors=(ZSTD,))
    yield replace(grid, name="checked-shard", serializer=plain, compressors=(CRC32C,))
    yield replace(grid, name="transposed-shard", serializer=sharding((3, 2), [LITTLE]), transpose=(1, 0))


def of_the_rest():
    for zarr_format, encoding, separator in [(2, "v2", "."), (2, "v2", "/"), *((3, e, s) for e in ("default", "v2") for s in "./")]:
        keys = Case(f"keys-{encoding}-{separator}", zarr_format, key_encoding=encoding, separator=separator)
        yield keys
        yield replace(keys, name=f"{keys.name}-0d", shape=(), chunks=())
    attributes = {
        "text": "Zarr – überall 🌍",
        "numbers": [1, -2.5, 1e300, 2**53 + 1],
        "nested": {"": None, "deep": {"list": [True, [], {}]}},
        "_ARRAY_DIMENSIONS": ["y", "x"],
    }
    for zarr_format in (2, 3):
        yield Case("attributes", zarr_format, attributes=attributes)
    for names in [("y", "x"), ("y", None), (None, None), ("", "x")]:
        yield Case(f"names-{names}", dimension_names=names)
    yield Case("names-0d", shape=(), chunks=(), dimension_names=())
    for zarr_format in (2, 3):
        case = Case("partial", zarr_format, (9, 10), "uint16", (4, 3), fill_value=7, written=(slice(3, 7), slice(2, 8)))
        yield case
        yield replace(case, name="nothing-written", written=(slice(0), slice(0)))


GROUPS: dict[str, Callable] = {
    "dtypes": of_data_types,
    "fill": of_fill_values,
    "shapes": of_shapes,
    "codecs": of_codecs,
    "codecs2": of_v2_codecs,
    "shards": of_shards,
    "rest": of_the_rest,
}
CASES = [replace(case, name=f"{group}-v{case.zarr_format}-{case.name}") for group, make in GROUPS.items() for case in make()]


@st.composite
def random_cases(draw, zarr_formats=(2, 3)):
    """Cases of any shape, chunks, shards, data type and codecs, small enough to try many."""
    zarr_format, dtype = draw(st.sampled_from(zarr_formats)), draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    chunks = tuple(draw(st.integers(1, length + 2)) for length in shape)
    itemsize = np.dtype(dtype).itemsize
    fill_value = draw(st.sampled_from([0, 1, *extreme(np.dtype(dtype))]))
    transpose = draw(st.none() | st.just(tuple(reversed(range(len(shape))))))
    choices = {"endian": draw(st.sampled_from(["little", "big"])), "transpose": transpose if len(shape) > 1 else None}
    if zarr_format == 2:
        v2_codecs = [{"id": "zlib", "level": 1}, {"id": "gzip", "level": 5}, {"id": "bz2", "level": 1}, {"id": "lz4", "acceleration": 1}]
        bloscs = st.builds(v2_blosc, st.sampled_from(CNAMES), st.sampled_from([-1, 0, 1, 2]), st.integers(0, 9))
        codec = draw(st.none() | st.sampled_from([*v2_codecs, {"id": "zstd", "level": 3}]) | bloscs)
        choices |= {"compressors": () if codec is None else (codec,), "separator": draw(st.sampled_from("./"))}
    else:
        bloscs = st.builds(blosc, st.sampled_from(CNAMES), st.sampled_from(SHUFFLES), st.just(itemsize), st.integers(0, 9))
        codecs = draw(st.lists(st.sampled_from([GZIP, ZSTD, CRC32C, zstd(1, checksum=True)]) | bloscs, max_size=2))
        shards = draw(st.none() | st.tuples(*(st.integers(1, 3).map(chunk.__mul__) for chunk in chunks)))
        choices |= {"compressors": tuple(codecs), "shards": shards, "index_location": draw(st.sampled_from(["start", "end"]))}
        choices |= {"key_encoding": draw(st.sampled_from(["default", "v2"])), "separator": draw(st.sampled_from("./"))}
        names = st.lists(st.none() | st.text(max_size=3), min_size=len(shape), max_size=len(shape)).map(tuple)
        choices |= {"dimension_names": draw(st.none() | names)}
    edges = [sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length)))) for length in shape]
    written = draw(st.sampled_from([(), tuple(slice(*edge) for edge in edges)]))
    return Case("", zarr_format, shape, dtype, chunks, fill_value=fill_value, written=written, **choices)


@pytest.fixture(params=[pytest.param(case, id=case.name) for case in CASES])
def case(request) -> Case:
    """Every case, one after the other."""
    return request.param


@pytest.fixture(params=[pytest.param(case, id=case.name) for case in CASES if case.zarr_format == 3])
def v3_case(request) -> Case:
    """As ``case``, without those of Zarr v2."""
    return request.param


def is_close_to_another(case: Case) -> bool:
    """Whether a case only adds to a product of options each of which other cases have."""
    name = case.name
    return ("-blosc-" in name and "-zstd-" not in name) or "-plain-" in name or (name.startswith("fill-") and name.endswith("-shards"))


@pytest.fixture(params=[pytest.param(case, id=case.name) for case in CASES if not is_close_to_another(case)])
def fewer(request) -> Case:
    """As ``case``, without those that are close to another."""
    return request.param


@pytest.fixture
def known(request) -> Callable[[Mapping[str, str]], None]:
    """A function that takes the known faults of another library, by case, and expects the test to fail where the case has one."""

    def expect_failure(faults: Mapping[str, str]) -> None:
        if (reason := faults.get(request.node.callspec.id)) is not None:
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason))

    return expect_failure


@pytest.fixture(scope="session")
def make_case() -> type[Case]:
    """How a case of a test's own is made."""
    return Case


@pytest.fixture(scope="session")
def cases() -> Callable[..., st.SearchStrategy[Case]]:
    """A function from the formats to a strategy of cases."""
    return random_cases


@pytest.fixture
def folder(tmp_path) -> azarr.LocalStore:
    """A store in a folder of its own, which need not survive a power cut."""
    return azarr.LocalStore(tmp_path / "data.zarr", durability="none")
