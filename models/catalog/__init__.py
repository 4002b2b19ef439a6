"""The models, by name. Adding one is adding a file here that declares ``SPEC``."""

from importlib import import_module
from pkgutil import iter_modules

from data.errors import NotFoundError
from models.spec import ModelSpec


def names() -> list[str]:
    """The models of the catalog."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> ModelSpec:
    """The spec of model ``name``. Raises NotFoundError naming the known ones."""
    if name not in names():
        raise NotFoundError(f"no model {name!r}; known: {', '.join(names())}")
    spec: ModelSpec = import_module(f"{__name__}.{name}").SPEC
    return spec
