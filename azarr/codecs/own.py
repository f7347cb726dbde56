"""The codecs that azarr has itself: the names that they have in metadata, and the modules that are imported when one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from azarr.deferred import Deferred

MODULES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "azarr.codecs.astype": {"AsType": ("numcodecs.astype",)},
    "azarr.codecs.base64": {"Base64": ("numcodecs.base64",)},
    "azarr.codecs.bitround": {"BitRound": ("bitround",), "NumcodecsBitRound": ("numcodecs.bitround",)},
    "azarr.codecs.blosc": {"Blosc": ("blosc", "numcodecs.blosc")},
    "azarr.codecs.bytes": {"Bytes": ("bytes",)},
    "azarr.codecs.bz2": {"Bz2": ("numcodecs.bz2",)},
    "azarr.codecs.cast_value": {"CastValue": ("cast_value",)},
    "azarr.codecs.categorize": {"Categorize": ("numcodecs.categorize",)},
    "azarr.codecs.checksums": {
        "Adler32": ("numcodecs.adler32",),
        "Crc32": ("numcodecs.crc32",),
        "Fletcher32": ("numcodecs.fletcher32",),
        "JenkinsLookup3": ("numcodecs.jenkins_lookup3",),
        "LocatedCrc32c": ("numcodecs.crc32c",),
    },
    "azarr.codecs.conditional": {"Conditional": ("conditional",)},
    "azarr.codecs.crc32c": {"Crc32c": ("crc32c",)},
    "azarr.codecs.delta": {"Delta": ("numcodecs.delta",)},
    "azarr.codecs.fixedscaleoffset": {"FixedScaleOffset": ("numcodecs.fixedscaleoffset",)},
    "azarr.codecs.gzip": {"Gzip": ("gzip", "numcodecs.gzip")},
    "azarr.codecs.json2": {"Json2": ("numcodecs.json2",)},
    "azarr.codecs.lz4": {"Lz4": ("numcodecs.lz4",)},
    "azarr.codecs.lzma": {"Lzma": ("numcodecs.lzma",)},
    "azarr.codecs.n5_default": {"N5Default": ("n5_default",)},
    "azarr.codecs.optional": {"Optional": ("optional",)},
    "azarr.codecs.packbits": {"NumcodecsPackBits": ("numcodecs.packbits",), "PackBits": ("packbits",)},
    "azarr.codecs.pcodec": {"Pcodec": ("numcodecs.pcodec",)},
    "azarr.codecs.quantize": {"Quantize": ("numcodecs.quantize",)},
    "azarr.codecs.reshape": {"Reshape": ("reshape",)},
    "azarr.codecs.scale_offset": {"ScaleOffset": ("scale_offset",)},
    "azarr.codecs.sharding": {"Sharding": ("sharding_indexed",)},
    "azarr.codecs.shuffle": {"Shuffle": ("numcodecs.shuffle",)},
    "azarr.codecs.snappy": {"Snappy": ("snappy",)},
    "azarr.codecs.transpose": {"Transpose": ("transpose",)},
    "azarr.codecs.vlen": {"VlenArray": ("numcodecs.vlen-array",), "VlenBytes": ("vlen-bytes",), "VlenUtf8": ("vlen-utf8",)},
    "azarr.codecs.zarrs_vlen": {"ZarrsVlen": ("zarrs.vlen",), "ZarrsVlenV2": ("zarrs.vlen_v2",)},
    "azarr.codecs.zfp": {"Zfp": ("zfp",), "Zfpy": ("numcodecs.zfpy",)},
    "azarr.codecs.zlib": {"Zlib": ("numcodecs.zlib",)},
    "azarr.codecs.zstd": {"Zstd": ("zstd", "numcodecs.zstd")},
}
"""The classes of each module, and the names of each; the first is the one that is written."""

PREFIX: Final = "imagecodecs_"

IMAGES: Final = (
    "apng", "avif", "bmp", "ccittfax3", "ccittfax4", "ccittrle", "dds", "dicomrle", "eer", "gif", "heif", "jetraw", "jpeg",
    "jpeg2k", "jpegls", "jpegxl", "jpegxr", "jpegxs", "lerc", "ljpeg", "png", "qoi", "rgbe", "sperr", "spng", "sz3", "tiff", "ultrahdr",
    "webp", "zfp",
)  # fmt: skip
"""What makes arrays of bytes and knows their shape: by what the bytes say, or by their configuration.

``htj2k`` is not there, because damaged bytes bring its library, and with it the process, down.
"""

PREDICTORS: Final = ("byteshuffle", "delta", "floatpred")
"""What makes as many bytes of an array, of a shape in their configuration; they stand before a compressor."""

COMPRESSORS: Final = (
    "bitorder", "bitshuffle", "blosc", "blosc2", "brotli", "bz2", "deflate", "lz4", "lz4f", "lz4h5", "lzf", "lzfse", "lzham", "lzma", "lzo",
    "lzw", "packbits", "snappy", "zlib", "zlibng", "zopfli", "zstd",
)  # fmt: skip

OWN_CODECS: Final[Mapping[tuple[str, ...], Deferred]] = MappingProxyType(
    {
        **{names: Deferred(module, kind) for module, kinds in MODULES.items() for kind, names in kinds.items()},
        **{
            (f"{PREFIX}{format_}", f"numcodecs.{PREFIX}{format_}"): Deferred("azarr.codecs.imagecodecs", "imagecodec", (format_,))
            for format_ in (*IMAGES, *PREDICTORS, *COMPRESSORS)
        },
    }
)
"""Every codec by its names; what v2 calls ``x`` is ``numcodecs.x`` in v3, unless that has a codec of that name itself."""
