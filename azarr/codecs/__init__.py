"""Codecs: how a chunk becomes bytes and comes back."""

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.blosc import Blosc
from azarr.codecs.bytes import Bytes
from azarr.codecs.bz2 import Bz2
from azarr.codecs.crc32c import Crc32c
from azarr.codecs.gzip import Gzip
from azarr.codecs.lz4 import Lz4
from azarr.codecs.sharding import Sharding
from azarr.codecs.transpose import Transpose
from azarr.codecs.zlib import Zlib
from azarr.codecs.zstd import Zstd

__all__ = [
    "ArrayToArrayCodec",
    "ArrayToBytesCodec",
    "Blosc",
    "Bytes",
    "BytesToBytesCodec",
    "Bz2",
    "Codec",
    "Crc32c",
    "Gzip",
    "Lz4",
    "Sharding",
    "Transpose",
    "Zlib",
    "Zstd",
]
