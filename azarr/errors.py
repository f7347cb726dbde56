"""Every error that azarr raises on purpose, in one tree.

::

    ZarrError
    ├── StoreError (key)                      the store could not do it
    │   ├── TransientStoreError               worth trying again
    │   ├── ThrottledError (retry_after)      the server asks to slow down
    │   └── PreconditionFailedError           somebody else wrote first
    ├── MetadataError (path)                  a metadata document is malformed or out of limits
    │   └── UnknownExtensionError (name)      it names a codec, data type, … that azarr does not have
    ├── NodeNotFoundError (path)              no array or group there; also a FileNotFoundError
    ├── NodeExistsError (path)                something is there already; also a FileExistsError
    ├── CodecError (codec, coords)            a chunk cannot be decoded or encoded
    │   ├── ChecksumError                     its checksum does not match
    │   └── WorkerError (exit_code)           the process that worked on it died
    ├── SelectionError                        an impossible selection; also an IndexError
    ├── WriteError                            a value that does not fit what it is written to; also a ValueError
    ├── CheckpointError (key)                 a checkpoint that cannot be gone on from
    ├── PluginError (name, distribution)      an installed plug-in has the name that is asked for, and cannot be used
    ├── RegistrationError (name)              the name of a codec, data type, … is taken; also a ValueError
    └── StreamError (coords)                  a stream was misused or could not go on
        └── StreamTimeoutError                a chunk took too long; also a TimeoutError

Each survives pickling with its fields and its ``__cause__``.
"""

from __future__ import annotations

from typing import Any


class ZarrError(Exception):
    """Base of every error of azarr."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the fields and the cause, which plain exceptions lose."""
        return type(self), self.args, {**self.__dict__, "__cause__": self.__cause__}


class StoreError(ZarrError):
    """A store could not do what it was asked to; ``key`` says on which value."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class TransientStoreError(StoreError):
    """A failure that may be gone on the next attempt."""


class ThrottledError(StoreError):
    """The store asks to slow down; ``retry_after`` seconds where it said so."""

    def __init__(self, message: str, *, key: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, key=key)
        self.retry_after = retry_after


class PreconditionFailedError(StoreError):
    """A conditional write found another value than the one it was conditioned on."""


class MetadataError(ZarrError):
    """A metadata document is malformed, contradicts itself or exceeds a limit; ``path`` is its node."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class UnknownExtensionError(MetadataError):
    """A metadata document needs an extension that azarr does not have; ``name`` says which."""

    def __init__(self, message: str, *, path: str | None = None, name: str | None = None) -> None:
        super().__init__(message, path=path)
        self.name = name


class NodeNotFoundError(ZarrError, FileNotFoundError):
    """There is no array or group at ``path``."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class NodeExistsError(ZarrError, FileExistsError):
    """There is an array or group at ``path`` already."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class CodecError(ZarrError):
    """A chunk cannot be decoded or encoded; ``codec`` names the codec, ``coords`` the chunk where they are known."""

    def __init__(self, message: str, *, codec: str | None = None, coords: tuple[int, ...] | None = None) -> None:
        super().__init__(message)
        self.codec = codec
        self.coords = coords

    def __str__(self) -> str:
        where = "" if self.coords is None else f"chunk {self.coords}: "
        which = "" if self.codec is None else f"{self.codec}: "
        return f"{where}{which}{super().__str__()}"


class ChecksumError(CodecError):
    """The checksum stored with the bytes is not the checksum of the bytes: they changed since they were written."""


class WorkerError(CodecError):
    """The process that worked on a chunk died, and those that took its place did, too; or none can be started.

    Nothing is known of the chunk itself. ``exit_code`` is that of the last process, negative where a signal ended it.
    """

    def __init__(
        self, message: str, *, codec: str | None = None, coords: tuple[int, ...] | None = None, exit_code: int | None = None
    ) -> None:
        super().__init__(message, codec=codec, coords=coords)
        self.exit_code = exit_code


class SelectionError(ZarrError, IndexError):
    """A selection that the array does not have."""


class WriteError(ZarrError, ValueError):
    """A value whose shape or data type does not fit what it is written to."""


class CheckpointError(ZarrError):
    """A checkpoint that is damaged, or of other work than is to go on; ``key`` says where it is."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class PluginError(ZarrError):
    """A plug-in that is installed cannot be used for ``name``; ``distribution`` says whose it is, where that is one."""

    def __init__(self, message: str, *, name: str | None = None, distribution: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.distribution = distribution


class RegistrationError(ZarrError, ValueError):
    """``name`` stands for something already, which would have been replaced silently."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class StreamError(ZarrError):
    """A stream was used in a way it cannot serve, or could not go on; ``coords`` says at which chunk."""

    def __init__(self, message: str, *, coords: tuple[int, ...] | None = None) -> None:
        super().__init__(message)
        self.coords = coords


class StreamTimeoutError(StreamError, TimeoutError):
    """A chunk took longer than the stream's ``timeout``; ``coords`` says which."""
