"""What only a person can say of a model: a file of texts beside its spec, one key a field."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path

from data.errors import ContractError
from models import catalog


def place(model: str) -> Path:
    """Where the texts of ``model`` are written: beside its spec."""
    return Path(catalog.__path__[0], f"{model}.toml")


def read(path: Path, known: Collection[str]) -> dict[str, str]:
    """Field id -> text; nothing where there is no file. An empty text is one not yet written.

    Raises ContractError naming the file and the key that is not ``known`` or holds no text.
    """
    if not path.is_file():
        return {}
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path.name} is no TOML: {error}") from None
    if unknown := sorted(given.keys() - set(known)):
        raise ContractError(f"{path.name}: no field is called {', '.join(unknown)}")
    for name, text in given.items():
        if not isinstance(text, str):
            raise ContractError(f"{path.name}: {name} must be a text in quotes")
    return {name: text.strip() for name, text in given.items() if text.strip()}
