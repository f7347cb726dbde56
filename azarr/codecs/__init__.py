"""Codecs: how a chunk becomes bytes and comes back."""

from typing import TYPE_CHECKING

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.own import MODULES
from azarr.deferred import deferred_names

if TYPE_CHECKING:
    from azarr.codecs.astype import AsType
    from azarr.codecs.base64 import Base64
    from azarr.codecs.bitround import BitRound, NumcodecsBitRound
    from azarr.codecs.blosc import Blosc
    from azarr.codecs.bytes import Bytes
    from azarr.codecs.bz2 import Bz2
    from azarr.codecs.cast_value import CastValue
    from azarr.codecs.categorize import Categorize
    from azarr.codecs.checksums import Adler32, Crc32, Fletcher32, JenkinsLookup3, LocatedCrc32c
    from azarr.codecs.conditional import Conditional
    from azarr.codecs.crc32c import Crc32c
    from azarr.codecs.delta import Delta
    from azarr.codecs.fixedscaleoffset import FixedScaleOffset
    from azarr.codecs.gzip import Gzip
    from azarr.codecs.json2 import Json2
    from azarr.codecs.lz4 import Lz4
    from azarr.codecs.lzma import Lzma
    from azarr.codecs.n5_default import N5Default
    from azarr.codecs.of_numcodecs import from_numcodecs
    from azarr.codecs.of_zarr_python import from_zarr_python
    from azarr.codecs.optional import Optional
    from azarr.codecs.packbits import NumcodecsPackBits, PackBits
    from azarr.codecs.pcodec import Pcodec
    from azarr.codecs.quantize import Quantize
    from azarr.codecs.reshape import Reshape
    from azarr.codecs.scale_offset import ScaleOffset
    from azarr.codecs.sharding import Sharding
    from azarr.codecs.shuffle import Shuffle
    from azarr.codecs.snappy import Snappy
    from azarr.codecs.transpose import Transpose
    from azarr.codecs.vlen import VlenArray, VlenBytes, VlenUtf8
    from azarr.codecs.zarrs_vlen import ZarrsVlen, ZarrsVlenV2
    from azarr.codecs.zfp import Zfp, Zfpy
    from azarr.codecs.zlib import Zlib
    from azarr.codecs.zstd import Zstd

__all__ = [
    "Adler32",
    "ArrayToArrayCodec",
    "ArrayToBytesCodec",
    "AsType",
    "Base64",
    "BitRound",
    "Blosc",
    "Bytes",
    "BytesToBytesCodec",
    "Bz2",
    "CastValue",
    "Categorize",
    "Codec",
    "Conditional",
    "Crc32",
    "Crc32c",
    "Delta",
    "FixedScaleOffset",
    "Fletcher32",
    "Gzip",
    "JenkinsLookup3",
    "Json2",
    "LocatedCrc32c",
    "Lz4",
    "Lzma",
    "N5Default",
    "NumcodecsBitRound",
    "NumcodecsPackBits",
    "Optional",
    "PackBits",
    "Pcodec",
    "Quantize",
    "Reshape",
    "ScaleOffset",
    "Sharding",
    "Shuffle",
    "Snappy",
    "Transpose",
    "VlenArray",
    "VlenBytes",
    "VlenUtf8",
    "ZarrsVlen",
    "ZarrsVlenV2",
    "Zfp",
    "Zfpy",
    "Zlib",
    "Zstd",
    "from_numcodecs",
    "from_zarr_python",
]

if not TYPE_CHECKING:
    functions = {"azarr.codecs.of_numcodecs": ("from_numcodecs",), "azarr.codecs.of_zarr_python": ("from_zarr_python",)}
    __getattr__, __dir__ = deferred_names(__name__, __all__, {**MODULES, **functions})
