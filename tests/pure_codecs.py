"""Codecs in plain Python, which hold the interpreter lock, for tests; worker processes import them from here."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from azarr.codecs import BytesToBytesCodec


@dataclass(frozen=True)
class PureCodec(BytesToBytesCodec):
    """What these have in common: they change nothing, and are configured by their fields."""

    @property
    def releases_gil(self) -> bool:
        return False

    @classmethod
    def from_configuration(cls, configuration):
        return cls(**configuration)

    def configuration(self):
        return dict(vars(self))

    def encode(self, data):
        return bytes(data)

    def decode(self, data, limit):
        return bytes(data)

    def encoded_size(self, nbytes):
        return nbytes


@dataclass(frozen=True)
class Rotate(PureCodec):
    """Adds ``key`` to every byte, one after the other."""

    name: ClassVar[str] = "test.rotate"
    key: int = 1

    def encode(self, data):
        return bytes([(byte + self.key) & 255 for byte in bytes(data)])

    def decode(self, data, limit):
        return bytes([(byte - self.key) & 255 for byte in bytes(data)])


@dataclass(frozen=True)
class Whereabouts(PureCodec):
    """Decodes to the number of its process, over and over."""

    name: ClassVar[str] = "test.whereabouts"

    def decode(self, data, limit):
        return (os.getpid().to_bytes(8, "little") * (len(data) // 8 + 1))[: len(data)]


@dataclass(frozen=True)
class Deadly(PureCodec):
    """Decoding dies as many times as there are bytes in the file ``lives``; in ``home`` it refuses to."""

    name: ClassVar[str] = "test.deadly"
    lives: str = ""
    home: int = field(default_factory=os.getpid)

    def decode(self, data, limit):
        if os.getpid() == self.home:
            raise AssertionError("decoded at home")
        if size := Path(self.lives).stat().st_size:
            os.truncate(self.lives, size - 1)
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(data)


@dataclass(frozen=True)
class Failing(PureCodec):
    """Decoding raises ``error``."""

    name: ClassVar[str] = "test.failing"
    error: BaseException = field(default_factory=ValueError)

    def decode(self, data, limit):
        raise self.error


@dataclass(frozen=True)
class Picky(PureCodec):
    """Does not encode chunks that begin with the byte ``refused``, and dies of those that begin with ``deadly``, unless it is at home."""

    name: ClassVar[str] = "test.picky"
    refused: int = 256
    deadly: int = 256
    home: int = field(default_factory=os.getpid)

    def encode(self, data):
        first = bytes(data[:1])[0]
        if first == self.refused:
            raise ValueError("not this one")
        if first == self.deadly:
            if os.getpid() == self.home:
                raise AssertionError("encoded at home")
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(data)


@dataclass(frozen=True)
class Gated(PureCodec):
    """Decoding makes a file named ``<gate>.<process>`` and goes on when there is a file ``gate``."""

    name: ClassVar[str] = "test.gated"
    gate: str = ""

    def decode(self, data, limit):
        Path(f"{self.gate}.{os.getpid()}").touch()
        while not Path(self.gate).exists():
            time.sleep(0.005)
        return bytes(data)


@dataclass(frozen=True)
class Stuck(PureCodec):
    """Decoding never ends, and nothing but a signal ends it."""

    name: ClassVar[str] = "test.stuck"
    begun: str = ""

    def decode(self, data, limit):
        Path(self.begun).write_text(str(os.getpid()))
        while True:
            pass


@dataclass(frozen=True)
class Homebound(PureCodec):
    """Can be pickled, but not in another process loaded."""

    name: ClassVar[str] = "test.homebound"
    home: int = field(default_factory=os.getpid)

    def __reduce__(self):
        return arrive, (self.home,)


def arrive(home):
    if os.getpid() != home:
        raise RuntimeError("this one stays at home")
    return Homebound(home)


@dataclass(frozen=True)
class Unpicklable(PureCodec):
    """Cannot be pickled."""

    name: ClassVar[str] = "test.unpicklable"

    def __reduce__(self):
        raise TypeError("not this one")
