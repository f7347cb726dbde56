"""The ``zstd`` codec (zarr-extensions, "zstd"): Zstandard frames (RFC 8878)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, frame_content_size

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer, too_large, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import ChecksumError, CodecError, MetadataError
from azarr.types import JSON, Bound, Buffer

SMALL_NBYTES = 64 * 2**10
"""Up to here, decompressing to new bytes and copying them costs less than setting up a reader that fills the destination."""

HEADER_NBYTES = 18
"""The longest header of a frame."""

WINDOW_NBYTES = 4096
"""How much a decompressor is fed at a time where what it has been fed bounds what it may answer."""

END = b"all frames whole"
"""What our own last frame decodes to; see ``_Frames``."""

END_FRAME = ZstdCompressor(level=1).compress(END)


class _Frames:
    """A source for zstd readers: the frames of a value, then ``END_FRAME``.

    A reader that comes to the end of its source in the middle of a frame, or of its checksum, does not say so. ``END``
    arrives only behind frames that are whole.
    """

    __slots__ = ("_rest", "fed")

    def __init__(self, data: Buffer, window: int | None = None) -> None:
        pieces = (data,) if window is None else [data[start : start + window] for start in range(0, max(len(data), 1), window)]
        self._rest = iter((*pieces, END_FRAME))
        self.fed = 0
        """How many bytes have been asked for."""

    def read(self, size: int) -> Buffer:
        del size
        part = next(self._rest, b"")
        self.fed += len(part)
        return part


class _Contexts(threading.local):
    """The contexts of one thread: threads that share one crash.

    Whoever uses a context takes it out meanwhile, since a finalizer or signal handler may decode in the middle of a
    decoding of the same thread. One that met an error is not put back.
    """

    def __init__(self) -> None:
        self.decompressors: list[ZstdDecompressor] = []
        self.compressors: dict[tuple[int, bool], ZstdCompressor] = {}


_contexts = _Contexts()


@dataclass(frozen=True, slots=True)
class Zstd(BytesToBytesCodec):
    """Zstandard compression. ``level`` runs from -131072 (fast) to 22 (small), 0 is the library's default; ``checksum`` adds one."""

    name: ClassVar[str] = "zstd"
    joinable: ClassVar[bool] = True
    level: int = 3
    checksum: bool = False

    def __post_init__(self) -> None:
        integer(self.name, {"level": self.level}, "level", -131072, 22)
        if not isinstance(self.checksum, bool):
            raise MetadataError(f"codec 'zstd': checksum must be true or false, not {self.checksum!r:.100}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"level", "checksum"}))
        # checked by __post_init__
        return cls(cast("int", configuration.get("level", 0)), cast("bool", configuration.get("checksum", False)))

    @classmethod
    def from_numcodecs(cls, configuration: Mapping[str, JSON]) -> Self:
        level = configuration.get("level", 0)
        return cls.from_configuration({**configuration, "level": min(level, 22) if type(level) is int else level})

    def configuration(self) -> dict[str, JSON]:
        return {"level": self.level, "checksum": self.checksum}

    def encode(self, data: Buffer) -> Buffer:
        key = (self.level, self.checksum)
        compressor = _contexts.compressors.pop(key, None) or ZstdCompressor(level=self.level, write_checksum=self.checksum)
        try:
            encoded = compressor.compress(data)
        except ZstdError as error:
            raise CodecError(f"cannot compress {len(data)} bytes ({error})", codec=self.name) from error
        _contexts.compressors[key] = compressor
        return encoded

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        pool = _contexts.decompressors
        decompressor = pool.pop() if pool else ZstdDecompressor()
        source = _Frames(memoryview(data), WINDOW_NBYTES) if bound.expansion else _Frames(data)
        parts: list[bytes] = []
        total = 0
        try:
            # One read suffices where the first frame says its size and is the only one.
            step = max(frame_content_size(data), 0) + len(END) + 1
            reader = decompressor.stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]  # only read() is called
            while (room := bound.after(source.fed) + len(END) + 1 - total) > 0 and (part := reader.read(min(step, room))):
                parts.append(part)
                total += len(part)
                step = max(total, SMALL_NBYTES)
        except ZstdError as error:
            raise _damaged(error) from error
        pool.append(decompressor)
        if room <= 0:
            raise too_large(self.name, bound, source.fed)
        decoded = b"".join(parts)
        if not decoded.endswith(END):
            raise _cut_off()
        return memoryview(decoded)[: -len(END)]

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        pool = _contexts.decompressors
        decompressor = pool.pop() if pool else ZstdDecompressor()
        try:
            if 0 < len(out) <= SMALL_NBYTES and frame_content_size(data) == len(out):
                try:
                    out[:] = decompressor.decompress(data, allow_extra_data=False)
                except ZstdError:
                    pass  # several frames, or damage that is told apart below
                else:
                    pool.append(decompressor)
                    return
            reader = decompressor.stream_reader(_Frames(data), read_across_frames=True)  # type: ignore[arg-type]  # only read() is called
            filled = reader.readinto(out) if out else 0
            rest = reader.read(len(END) + 1)
        except ZstdError as error:
            raise _damaged(error) from error
        pool.append(decompressor)
        if filled < len(out) or rest != END:
            raise _misfit(bytes(out[:filled]) + rest, len(out))

    def decode_joined_into(self, data: Buffer, sizes: Sequence[int], out: memoryview) -> bool:
        # A frame that says its size decodes to that or fails. So if all have their shares, and what is left over is nothing, no value
        # has given anything to another one.
        if not sizes:
            return not out
        view, share, position = memoryview(data), len(out) // len(sizes), 0
        try:
            for size in sizes:
                if frame_content_size(view[position : position + HEADER_NBYTES]) != share:
                    return False
                position += size
            self.decode_into(view[:position], out)
        except (ZstdError, CodecError):
            return False
        return True


def _damaged(error: ZstdError) -> CodecError:
    """The error for what libzstd refuses."""
    if "checksum" in str(error):
        return damaged("zstd", "the bytes do not match their checksum", ChecksumError)
    return damaged("zstd", f"cannot decompress ({error})")


def _misfit(decoded: bytes, expected: int) -> CodecError:
    """The error for ``decoded``, with ``END`` where it arrived, in place of ``expected`` bytes."""
    if len(decoded) > expected + len(END):
        return wrong_size("zstd", expected + 1, expected)
    if decoded.endswith(END):
        return wrong_size("zstd", len(decoded) - len(END), expected)
    return _cut_off()


def _cut_off() -> CodecError:
    return damaged("zstd", "the bytes end in the middle of a frame")
