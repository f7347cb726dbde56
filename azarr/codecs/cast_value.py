"""The ``cast_value`` codec (zarr-extensions, "cast_value"): the same numbers in another data type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.codecs.number_formats import EXACT, ROUND, FloatFormat, Rounding, WholeFormat, number_format, round_big, round_to_float
from azarr.data_types import DataType, data_type_for, parse_data_type
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec

WHO: Final = "codec 'cast_value'"

MAX_PAIRS: Final = 256
"""Numbers that may be mapped one by one: all that a byte can be. Each of them costs a look at every element."""

OutOfRange = Literal["clamp", "wrap"]
Number: TypeAlias = int | float | str
Pairs: TypeAlias = tuple[tuple[Number, Number], ...]
"""What single numbers become, both in the form of fill values."""


@dataclass(frozen=True, slots=True)
class CastValue(ArrayToArrayCodec):
    """Numbers stored as ``data_type``, rounded where it does not have them.

    What is out of its range is an error, or becomes the nearest number there is (``"clamp"``), or is taken modulo its number
    of values (``"wrap"``, whole numbers only). ``encode_map`` and ``decode_map`` say what single numbers become instead.
    """

    name: ClassVar[str] = "cast_value"
    data_type: DataType
    rounding: Rounding = "nearest-even"
    out_of_range: OutOfRange | None = None
    encode_map: Pairs = ()
    decode_map: Pairs = ()

    def __post_init__(self) -> None:
        target = number_format(WHO, self.data_type.dtype)
        if self.rounding not in ROUND:
            raise MetadataError(f"{WHO}: rounding must be one of {', '.join(ROUND)}, not {self.rounding!r:.100}")
        if self.out_of_range not in ("clamp", "wrap", None):
            raise MetadataError(f"{WHO}: out_of_range must be 'clamp' or 'wrap', not {self.out_of_range!r:.100}")
        if self.out_of_range == "wrap" and not isinstance(target, WholeFormat):
            raise MetadataError(f"{WHO}: only whole numbers wrap around, not {self.data_type.name}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        check_keys(cls.name, configuration, frozenset({"data_type", "rounding", "out_of_range", "scalar_map"}), frozenset({"data_type"}))
        rounding, out_of_range = configuration.get("rounding", "nearest-even"), configuration.get("out_of_range")
        if not isinstance(rounding, str) or not isinstance(out_of_range, str | None):
            raise MetadataError(f"{WHO}: rounding and out_of_range must be strings, not {rounding!r:.60} and {out_of_range!r:.60}")
        maps = configuration.get("scalar_map", {})
        if not isinstance(maps, Mapping) or not maps.keys() <= {"encode", "decode"}:
            raise MetadataError(f"{WHO}: scalar_map must be an object with 'encode' and 'decode', not {maps!r:.100}")
        return cls(
            parse_data_type(configuration["data_type"], WHO),
            rounding,  # type: ignore[arg-type]  # checked by __post_init__
            out_of_range,  # type: ignore[arg-type]  # likewise
            _parse_pairs(maps.get("encode", ())),
            _parse_pairs(maps.get("decode", ())),
        )

    def configuration(self) -> dict[str, JSON]:
        document: dict[str, JSON] = {"data_type": self.data_type.to_json(), "rounding": self.rounding}
        if self.out_of_range is not None:
            document["out_of_range"] = self.out_of_range
        both = {"encode": self.encode_map, "decode": self.decode_map}
        maps: dict[str, JSON] = {key: [list(pair) for pair in pairs] for key, pairs in both.items() if pairs}
        return {**document, "scalar_map": maps} if maps else document

    def bind(self, spec: ChunkSpec) -> Self:
        number_format(WHO, spec.dtype)
        source = data_type_for(spec.dtype)
        try:
            for pairs, key, value in ((self.encode_map, source, self.data_type), (self.decode_map, self.data_type, source)):
                for one, other in pairs:
                    key.parse_fill_value(one)
                    value.parse_fill_value(other)
        except MetadataError as error:
            raise MetadataError(f"{WHO}: scalar_map: {error}") from None
        self.resolve(spec)
        return self

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        fill = np.full(1, spec.fill_value, spec.dtype)
        try:
            encoded = self.encode(fill, spec)
            decoded = self.decode(encoded, spec)
        except CodecError as error:
            raise MetadataError(f"{WHO}: the fill value {spec.fill_value} cannot be cast to {self.data_type.name}: {error}") from None
        if not _same(decoded, fill).all():
            raise MetadataError(f"{WHO}: the fill value {spec.fill_value} comes back from {self.data_type.name} as {decoded[0]}")
        return replace(spec, dtype=self.data_type.dtype, fill_value=encoded[0])

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return self._cast(chunk, data_type_for(spec.dtype), self.data_type, self.encode_map)

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return self._cast(chunk, self.data_type, data_type_for(spec.dtype), self.decode_map)

    def _cast(self, chunk: Array, source: DataType, target: DataType, pairs: Pairs) -> Array:
        chunk = chunk.astype(source.dtype, copy=False)  # in native byte order
        values = chunk.reshape(-1)
        if not pairs:
            return self._convert(values, target).reshape(chunk.shape)
        out = np.empty(values.shape, target.dtype)
        left = np.ones(values.shape, bool)
        for one, other in pairs:
            found = left & _same(values, np.full(1, source.parse_fill_value(one), source.dtype))
            out[found] = target.parse_fill_value(other)
            left &= ~found
        out[left] = self._convert(values[left], target)
        return out.reshape(chunk.shape)

    def _convert(self, values: Array, target: DataType) -> Array:
        if values.dtype == target.dtype:
            return values
        source_format, target_format = number_format(WHO, values.dtype), number_format(WHO, target.dtype)
        out_of_range = None if self.out_of_range == "wrap" and isinstance(target_format, FloatFormat) else self.out_of_range
        with np.errstate(all="ignore"):
            if isinstance(target_format, FloatFormat):
                return _to_float(values, source_format, target_format, self.rounding, out_of_range)
            if isinstance(source_format, FloatFormat):
                return _float_to_whole(values, target_format, self.rounding, out_of_range)
            return _whole_to_whole(values, source_format, target_format, out_of_range)


def _parse_pairs(document: JSON) -> Pairs:
    if not isinstance(document, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in document):
        raise MetadataError(f"{WHO}: scalar_map must hold lists of pairs, not {document!r:.100}")
    if len(document) > MAX_PAIRS:
        raise MetadataError(f"{WHO}: scalar_map may map {MAX_PAIRS} numbers, not {len(document)}")
    pairs: list[Any] = [tuple(pair) for pair in document]
    if any(isinstance(item, bool) or not isinstance(item, int | float | str) for pair in pairs for item in pair):
        raise MetadataError(f"{WHO}: scalar_map must map numbers to numbers, not {document!r:.100}")
    return tuple(pairs)


def _same(values: Array, other: Array) -> Array:
    """Which values are the other ones; NaN is NaN, and 0.0 is -0.0."""
    same: Array = (values == other) | ((values != values) & (other != other))  # noqa: PLR0124 - NaN
    return same


def _refuse(values: Array, wrong: Array, target: np.dtype[Any]) -> None:
    """Raise ``CodecError`` where any value is ``wrong``."""
    if wrong.any():
        message = f"{values[wrong][0]} has no place in {target}; map it with scalar_map, or say what becomes of it with out_of_range"
        raise CodecError(message, codec=CastValue.name)


def _wrapped(bits: Array, target: WholeFormat) -> Array:
    """The numbers whose last bits are those of ``bits``, which are unsigned 64-bit numbers."""
    if target.bits >= 8:
        return bits.astype(f"u{target.dtype.itemsize}").view(target.dtype)
    low = (bits & np.uint64((1 << target.bits) - 1)).astype(np.int16)
    if target.signed:
        low = np.where(low > target.highest, low - (1 << target.bits), low)
    return low.astype(np.int8).astype(target.dtype)


def _whole_to_whole(values: Array, source: WholeFormat, target: WholeFormat, out_of_range: OutOfRange | None) -> Array:
    if source.bits < 8:
        values = values.astype(np.int8)
    low, high = max(source.lowest, target.lowest), min(source.highest, target.highest)
    if (low, high) != (source.lowest, source.highest):
        wrong = (values < low) | (values > high)
        if out_of_range == "wrap":
            return _wrapped(values.astype(np.int64 if source.signed else np.uint64).view(np.uint64), target)
        if out_of_range is None:
            _refuse(values, wrong, target.dtype)
        values = np.clip(values, low, high)
    return values.astype(np.int8).astype(target.dtype) if target.bits < 8 else values.astype(target.dtype)


def _float_to_whole(values: Array, target: WholeFormat, rounding: str, out_of_range: OutOfRange | None) -> Array:
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    # an infinity is out of the range of every whole type, and can be clamped; nothing can become of a NaN
    _refuse(values, np.isnan(numbers) if out_of_range == "clamp" else ~finite, target.dtype)
    rounded = ROUND[rounding](numbers)
    below, above = rounded < float(target.lowest), rounded >= float(target.highest + 1)
    if out_of_range is None:
        _refuse(values, below | above, target.dtype)
    if out_of_range == "wrap":
        rest = np.fmod(rounded, 2.0**64)
        bits = np.abs(rest).astype(np.uint64)
        return _wrapped(np.where(rest < 0, np.uint64(0) - bits, bits), target)
    inside = np.where(below | above, 0.0, rounded)
    # whole numbers of a float64 within the range: exact in either 64-bit type
    whole = inside.astype(np.int64 if target.signed else np.uint64)
    out = whole.astype(np.int8).astype(target.dtype) if target.bits < 8 else whole.astype(target.dtype)
    out[below], out[above] = target.lowest, target.highest
    return out


def _to_float(
    values: Array, source: WholeFormat | FloatFormat, target: FloatFormat, rounding: str, out_of_range: OutOfRange | None
) -> Array:
    if target.holds(source):
        return values.astype(target.dtype)
    if isinstance(source, WholeFormat) and source.bits < 8:
        values = values.astype(np.int8)
    numbers = values.astype(np.float64)
    special = ~np.isfinite(numbers)
    rounded = round_to_float(np.where(special, 0.0, numbers), target, rounding)
    if isinstance(source, WholeFormat) and source.bits == 64:
        big = (values > EXACT) | (values < -EXACT) if source.signed else values > np.uint64(EXACT)
        if big.any():
            rounded[big] = round_big(values[big], target, rounding)
    infinite, nan = np.isinf(numbers), np.isnan(numbers)
    if not target.has_nan:
        _refuse(values, nan, target.dtype)
    below, above = rounded < target.lowest, rounded > target.highest
    if not target.has_infinity:
        below, above = below | (infinite & (numbers < 0)), above | (infinite & (numbers > 0))
    if out_of_range is None:
        _refuse(values, below | above, target.dtype)
    rounded[below] = -np.inf if target.has_infinity else target.lowest
    rounded[above] = np.inf if target.has_infinity else target.highest
    if target.has_infinity:
        rounded[infinite] = numbers[infinite]
    if not target.has_negative_zero:
        rounded += 0.0
    out = rounded.astype(target.dtype)
    if nan.any():
        out[nan] = values[nan].astype(target.dtype)
    return out
