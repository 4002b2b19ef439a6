"""The marts, by name. Adding one is adding a file here that declares ``MART``."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from data.contract import Mart
from data.errors import NotFoundError


def names() -> list[str]:
    """Modules of this package that declare a mart."""
    return sorted(m.name for m in iter_modules(__path__) if hasattr(_module(m.name), "MART"))


def load(name: str) -> Mart:
    """The mart ``name``. Raises NotFoundError naming the known ones."""
    if name not in names():
        raise NotFoundError(f"no mart {name!r}; known: {', '.join(names())}")
    mart: Mart = _module(name).MART
    return mart


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
