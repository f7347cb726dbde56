"""What codecs have in common that encode elements of any length."""

from __future__ import annotations

from abc import abstractmethod

from azarr.codecs.base import ArrayToBytesCodec
from azarr.data_types.base import DataType
from azarr.errors import CodecError
from azarr.types import Buffer, ChunkSpec


class VariableLengthCodec(ArrayToBytesCodec):
    """A codec for elements that vary in length, which are objects or NumPy's strings in memory."""

    @property
    @abstractmethod
    def object_type(self) -> DataType: ...

    @property
    def releases_gil(self) -> bool:
        return False

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None

    def max_encoded_size(self, spec: ChunkSpec) -> int:
        return spec.limit

    def within_limit(self, data: Buffer, spec: ChunkSpec) -> Buffer:
        """``data``; ``CodecError`` where there is more of it than reading accepts."""
        if len(data) > spec.limit:
            message = f"the chunk takes {len(data)} bytes where {spec.limit} are accepted; use smaller chunks"
            raise CodecError(message, codec=self.name)
        return data
