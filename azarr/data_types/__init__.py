"""Data types and their fill values (Zarr v3 core, "Data types" and "Fill value").

A data type knows its name in metadata, the NumPy data type that holds its elements in memory, how its fill value stands in JSON,
and which values may be written to it. It has no byte order: that belongs to the ``bytes`` codec.
"""

from azarr.data_types.base import DataType
from azarr.data_types.registry import DATA_TYPES, NUMPY_TYPES, data_type_for, is_data_type, parse_data_type, register_data_type

__all__ = ["DATA_TYPES", "NUMPY_TYPES", "DataType", "data_type_for", "is_data_type", "parse_data_type", "register_data_type"]
