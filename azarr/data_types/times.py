"""Points and spans of time (zarr-extensions, "numpy.datetime64" and "numpy.timedelta64")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from azarr.data_types.base import DataType, check_keys, whole_number
from azarr.errors import MetadataError, WriteError
from azarr.types import JSON, Array, FillValue

UNITS: Final = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
"""Years, months, weeks, days, hours, minutes, seconds and their parts; generic stands for none of them."""

NAT: Final = -(2**63)
"""The number of ticks that means "not a time"."""


class Time(DataType):
    """A point in time (``numpy.datetime64``) or a span of it (``numpy.timedelta64``): a number of ticks of a unit."""

    __slots__ = ()

    def to_json(self) -> JSON:
        """The unit, and how many of it make a tick."""
        unit, scale = np.datetime_data(self.dtype)
        return {"name": self.name, "configuration": {"unit": unit, "scale_factor": scale}}

    @property
    def default_fill_value(self) -> FillValue:
        """Not a time, so that a missing one is not taken for the year 1970."""
        return self._at(NAT)

    @property
    def undefined(self) -> FillValue:
        """Not a time: zarr-python 3 means it and does not store chunks of it; version 2 stored all chunks and gave what was in memory."""
        return self._at(NAT)

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The time of a number of ticks, or of ``"NaT"``."""
        if document == "NaT":
            return self._at(NAT)
        if isinstance(document, bool) or not isinstance(document, int) or not NAT <= document < 2**63:
            raise self._illegal(document, "a whole number of ticks within 64 bits, or 'NaT'")
        return self._at(document)

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """``"NaT"``, or a number of ticks."""
        ticks = int(np.asarray(value, self.dtype).astype(np.int64))
        return "NaT" if ticks == NAT else ticks

    def fill_value_of(self, value: object) -> FillValue:
        """The time that a user gives as such, as a number of ticks, or as NumPy's text for it."""
        if isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64):
            return self.parse_fill_value(int(value))
        if isinstance(value, str):
            try:
                value = np.array(value, "M8" if value != "NaT" and self.dtype.kind == "M" else self.dtype)
            except ValueError:
                raise MetadataError(f"fill_value {value!r:.60} is not a {self.name}") from None
        return DataType.fill_value_of(self, value)

    def conform(self, array: Array) -> Array:
        """``array`` in the unit of this type; ``WriteError`` where that would lose a part of a time."""
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind == "O":  # datetime.datetime and its kin
            try:
                array = array.astype(f"{self.dtype.kind}8")
            except (ValueError, TypeError) as error:
                raise WriteError(f"the value is not made of times: {error}") from error
        if array.dtype.kind != self.dtype.kind:
            raise self._misfit(array, f"convert it yourself, with astype('{self.dtype}'), if that is meant")
        if np.datetime_data(array.dtype)[0] == "generic" and not np.isnat(array).all():
            raise self._misfit(array, "it has no unit")
        with np.errstate(all="ignore"):
            try:
                converted = array.astype(self.dtype)
                same = (converted.astype(array.dtype) == array) | (np.isnat(converted) & np.isnat(array))
            except (OverflowError, ValueError, TypeError) as error:
                raise self._misfit(array, str(error)) from error
        if not same.all():
            raise self._misfit(array, "it has times between two ticks, or beyond the last one; round it yourself if that is meant")
        return converted

    def _at(self, ticks: int) -> FillValue:
        return np.array([ticks], np.int64).view(self.dtype)[0]


def time_for(dtype: np.dtype[np.generic]) -> Time:
    """The data type of times that NumPy describes as ``dtype``; ``MetadataError`` for ticks of no length."""
    if np.datetime_data(cast("Any", dtype))[1] < 1:  # NumPy takes them and divides by zero, which ends the process
        raise MetadataError("a tick of time must be at least one of its unit, not 0")
    return Time("numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64", dtype)


def make_time(name: str, configuration: Mapping[str, JSON]) -> Time:
    """The data type of times with the unit and scale in ``configuration``."""
    check_keys(name, configuration, "unit", "scale_factor")
    unit = {"μs": "us", "µs": "us"}.get(str(configuration["unit"]), configuration["unit"])  # both of the letters for micro
    if unit not in UNITS:
        raise MetadataError(f"data type {name!r}: unit must be one of {', '.join(UNITS)}, not {unit!r:.100}")
    scale = whole_number(name, configuration, "scale_factor", 1, 2**31 - 1)
    kind = "M8" if name == "numpy.datetime64" else "m8"
    if unit == "generic" and scale == 1:
        return Time(name, np.dtype(kind))
    return Time(name, np.dtype(f"{kind}[{scale}{unit}]"))
