"""What is imported when it is first asked for, so that programs pay for the parts that they use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from azarr.extras import Extra


class Deferred(NamedTuple):
    """What is called ``name`` in ``module``, or what that makes of ``args`` where there are any."""

    module: str
    name: str
    args: tuple[str, ...] = ()
    extra: Extra | None = None
    """What the module cannot be imported without."""

    @property
    def is_imported(self) -> bool:
        """Whether ``load`` takes no time."""
        return self.module in sys.modules

    def load(self) -> Any:
        """It; the module is imported unless it has been."""
        found = getattr(import_module(self.module), self.name)
        return found(*self.args) if self.args else found

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What it answers, as it stands for a function."""
        return self.load()(*args, **options)


class DeferredModule:
    """Stands for the module ``name`` where another one would import it, until one of its attributes is asked for.

    Attributes are those that the module has at that moment, and nothing of it is kept here. Type checkers, and the test that imports point
    down, see a plain import beside it::

        if TYPE_CHECKING:
            from azarr import streaming
        else:
            streaming = DeferredModule("azarr.streaming")
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<DeferredModule {self._name}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


def missing(modules: Iterable[object]) -> list[str]:
    """The names of those of ``modules`` that are deferred, and have not been imported by anybody."""
    return [each._name for each in modules if isinstance(each, DeferredModule) and each._name not in sys.modules]  # noqa: SLF001 - of this file


def deferred_names(
    package: str, public: Sequence[str], modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a ``package`` (PEP 562) whose ``public`` names are looked up when they are first used.

    ``modules`` say which of the names they have; one that none has, and that the package has not bound itself, is a submodule.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = Deferred(homes[name], name).load() if name in homes else import_module(f"{package}.{name}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return find, names
