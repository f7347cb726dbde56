"""Packages that only some arrays need; they are imported by whoever first needs one."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from azarr.errors import CodecError


class Extra(NamedTuple):
    """A ``package``, and the extra of azarr by whose ``name`` pip installs it."""

    package: str
    name: str

    @property
    def installed(self) -> bool:
        """Whether the package is there; found out without importing it."""
        try:
            return find_spec(self.package) is not None
        except ModuleNotFoundError:  # that in which it would be
            return False

    def module(self, codec: str) -> ModuleType:
        """The package, for ``codec``; ``CodecError`` says which extra brings it."""
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            message = f'needs the package {self.package}, which cannot be imported ({error}); pip install "azarr[{self.name}]"'
            raise CodecError(message, codec=codec) from error

    def missing(self, what: str, error: ImportError) -> ImportError:
        """The error for ``what``, which cannot do without the package: it says which extra brings it."""
        return ImportError(f'{what} need the package {self.package}, which cannot be imported ({error}); pip install "azarr[{self.name}]"')
