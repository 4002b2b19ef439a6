"""Inputs, explanations and groups of drawn predictions: from the log's JSON to typed columns.

A row that cannot be read is marked and harms no other. A patient's values go no further than the
arrays that are counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.contract import Column, Rows
from models.artifact import Artifact
from models.groups import NOT_RECORDED

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_GROUPS = msgspec.json.Decoder(dict[str, str | None])


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Typed columns of the rows asked for, in their order; what could not be read is missing.

    ``contributions``: (rows, features), NaN where there is none. ``groups``: attribute -> level of each
    row. ``readable``: whose inputs were read; ``sound``: whose explanation and groups were, or are none.
    """

    inputs: Rows
    contributions: FloatArray
    groups: dict[str, Texts]
    readable: BoolArray
    sound: BoolArray


def draw(names: pa.Array, salt: int = 0) -> FloatArray:
    """A number from 0 to 1 for each prediction, the same whenever it is drawn with the same ``salt``.

    The last characters of its id are random; a checksum spreads ids of any other kind too.

    >>> draw(pa.array(["019a-4dea", "019a-4deb"])).round(3).tolist()
    [0.332, 0.805]
    """
    start = zlib.crc32(str(salt).encode()) if salt else 0
    marks = (zlib.crc32(name.encode(errors="surrogatepass"), start) for name in names.to_pylist())
    return np.fromiter(marks, np.float64, len(names)) / 2.0**32


class Opener:
    """Reads what one version left in the log."""

    def __init__(self, loaded: Artifact) -> None:
        self._columns = [loaded.mart[binned.column] for binned in loaded.reference.columns]
        self._features = [feature.name for feature in loaded.features.features]
        self._attributes = [
            name
            for name in loaded.spec.subgroups
            if name not in {column.name for column in self._columns} and name != loaded.mart.site
        ]
        self._inputs = _decoder(
            {column.name: _json_type(column) for column in self._columns}, needed=False
        )
        self._said = _decoder(dict.fromkeys(self._features, float), needed=True)

    def read(self, batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Opened:
        """``batches`` hold the predictions ``names``, in any order and perhaps not all."""
        place = {name: position for position, name in enumerate(names)}
        readable, sound = np.zeros(len(names), dtype=bool), np.ones(len(names), dtype=bool)
        inputs = {column.name: _missing(column, len(names)) for column in self._columns}
        said = np.full((len(names), len(self._features)), np.nan)
        groups = {name: np.full(len(names), NOT_RECORDED, dtype=object) for name in self._attributes}
        for batch in batches:
            at = np.array([place[name] for name in batch["prediction_id"].to_pylist()], dtype=np.intp)
            rows, mask = _decode(self._inputs, batch["inputs"].to_pylist())
            readable[at] = mask
            for column, values in zip(self._columns, _turned(rows), strict=False):
                inputs[column.name][at[mask]] = _typed(column, values)
            texts = batch["contributions"].to_pylist()
            found, mask = _decode(self._said, texts)
            sound[at] = mask | np.array([text is None for text in texts])
            if found:
                told = np.array([msgspec.structs.astuple(one) for one in found], dtype=np.float64)
                told[~np.isfinite(told).all(axis=1)] = np.nan
                said[at[mask]] = told
            for position, text in zip(at.tolist(), batch["groups"].to_pylist(), strict=True):
                sound[position] &= self._group(groups, position, text)
        return Opened(inputs=inputs, contributions=said, groups=groups, readable=readable, sound=sound)

    def _group(self, groups: dict[str, Texts], position: int, text: str | None) -> bool:
        """Put down the groups of one row; whether they could be read."""
        if not self._attributes or text is None:
            return True
        try:
            told = _GROUPS.decode(text)
        except msgspec.MsgspecError:
            return False
        # Of the attributes that the spec declares alone: a caller may put anything into a name.
        for name in self._attributes:
            if level := told.get(name):
                groups[name][position] = level
        return True


def _decoder(kinds: dict[str, Any], *, needed: bool) -> msgspec.json.Decoder[list[msgspec.Struct]]:
    """Typed: a text in the place of a number makes its row unreadable, and nothing fails."""
    # Numbered, since a feature may be called what no attribute can be.
    fields = [
        (f"f{place}", kind) if needed else (f"f{place}", kind, None)
        for place, kind in enumerate(kinds.values())
    ]
    renamed = {f"f{place}": name for place, name in enumerate(kinds)}
    row: Any = msgspec.defstruct("Row", fields, rename=renamed)
    return msgspec.json.Decoder(list[row])


def _json_type(column: Column) -> Any:
    match column.kind:
        case "number" | "integer":
            return float | None
        case "flag":
            return bool | None
        case "category":
            return Literal[*column.codes] | None if column.codes else str | None
        case _:
            return str | None


def _decode(
    decoder: msgspec.json.Decoder[list[_Struct]], texts: list[str | None]
) -> tuple[list[_Struct], BoolArray]:
    """The rows that can be read, and the mask of them."""
    readable = np.array([text is not None for text in texts], dtype=bool)
    joined = ",".join(text for text in texts if text is not None)
    with suppress(msgspec.MsgspecError, UnicodeError):
        rows = decoder.decode(f"[{joined}]")
        if len(rows) == readable.sum():
            return rows, readable
    rows = []
    for position in np.flatnonzero(readable):
        alone: list[_Struct] = []
        with suppress(msgspec.MsgspecError, UnicodeError):
            alone = decoder.decode(f"[{texts[position]}]")
        readable[position] = len(alone) == 1
        rows += alone if len(alone) == 1 else []
    return rows, readable


def _turned(rows: Sequence[msgspec.Struct]) -> list[tuple[Any, ...]]:
    return list(zip(*map(msgspec.structs.astuple, rows), strict=True))


def _missing(column: Column, rows: int) -> npt.NDArray[Any]:
    match column.kind:
        case "category":
            return np.full(rows, -1, dtype=np.int16)
        case "number" | "integer" | "flag":
            return np.full(rows, np.nan)
        case _:
            return np.full(rows, None, dtype=object)


def _typed(column: Column, values: Sequence[Any]) -> npt.NDArray[Any]:
    match column.kind:
        case "category":
            codes = column.codes
            return np.array([-1 if v is None else codes[v] for v in values], dtype=np.int16)
        case "number" | "integer" | "flag":
            return np.array(values, dtype=np.float64)  # None becomes NaN
        case _:
            return np.array(values, dtype=object)
