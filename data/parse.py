"""From Arrow or JSON to typed columns. What cannot be read is marked, never defaulted.

Beside each column's values stands a mask of the cells that held something unreadable (None where
there were none): such a cell is not "missing", it is a mistake, and :func:`data.contract.check`
refuses its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import ContractError

if TYPE_CHECKING:  # contract imports this module
    from data.contract import Column

Mask = npt.NDArray[np.bool_]
Parsed = dict[str, tuple[Any, Mask | None]]
"""Column -> its values and the mask of unreadable cells. Arrow's text stays Arrow: see as_typed."""

_NAT = np.datetime64("NaT", "us")
_BAD = object()


def parse_arrow(columns: Sequence[Column], table: pa.Table) -> Parsed:
    """Typed columns of an Arrow table. Raises ContractError on a missing, unknown or mistyped one."""
    declared = {column.name for column in columns}
    absent = [column.name for column in columns if column.name not in table.column_names]
    if absent:
        raise ContractError(f"column missing: {', '.join(absent)}")
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ContractError(f"column that stands twice: {', '.join(twice)}")
    unknown = [name for name in table.column_names if name not in declared]
    if unknown:
        raise ContractError(f"column that the contract does not declare: {', '.join(unknown)}")
    return {column.name: _arrow_column(column, table[column.name]) for column in columns}


def as_typed(values: Any) -> npt.NDArray[Any]:
    """Parsed values as NumPy holds them; a million texts are a million objects."""
    return np.asarray(
        values.to_numpy().astype(object) if isinstance(values, pa.ChunkedArray) else values
    )


def _no_text(values: Any) -> Mask:
    if isinstance(values, pa.ChunkedArray):
        return np.asarray(values.is_null().to_numpy(), dtype=bool)
    return np.array([value is None for value in values], dtype=bool)


MISSING: dict[str, Callable[[npt.NDArray[Any]], Mask]] = {
    "number": np.isnan,
    "integer": np.isnan,
    "flag": np.isnan,
    "category": lambda codes: np.asarray(codes < 0),
    "text": _no_text,
    "time": np.isnat,
}
"""Kind of column -> the mask of its missing cells."""


def nul(texts: Any) -> Mask:
    """True where a text holds the character NUL."""
    if isinstance(texts, pa.ChunkedArray):
        found = pc.fill_null(pc.match_substring(texts, "\0"), fill_value=False)
        return np.asarray(found.to_numpy(), dtype=bool)
    return np.array([text is not None and "\0" in text for text in texts], dtype=bool)


def _arrow_column(column: Column, array: pa.ChunkedArray) -> tuple[Any, Mask | None]:
    kind = array.type
    if pa.types.is_null(kind):
        array = array.cast(_NULLS_AS[column.kind])
        kind = array.type
    fits = _ARROW_FITS[column.kind]
    if not fits(kind):
        raise ContractError(f"column {column.name}: expected {column.kind}, found {kind}")
    match column.kind:
        case "number" | "integer" | "flag":
            return _arrow_floats(column, array)
        case "category":
            return _arrow_codes(column, array)
        case "text":
            return array, None
        case "time":
            return _arrow_times(column, array), None


def _arrow_floats(column: Column, array: pa.ChunkedArray) -> tuple[npt.NDArray[Any], Mask | None]:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    values = array.cast(pa.float64(), safe=False).to_numpy()
    # A NaN or infinity that the file itself holds is not a measurement and not "missing" either.
    bad = ~np.isfinite(values)
    if bad.any():
        bad &= ~array.is_null().to_numpy().astype(bool)
    if column.kind == "flag":
        bad |= np.isfinite(values) & (values != 0) & (values != 1)
    # An unreadable cell breaks that one rule, and no range besides.
    return (np.where(bad, np.nan, values), bad) if bad.any() else (values, None)


def _arrow_times(column: Column, array: pa.ChunkedArray) -> npt.NDArray[Any]:
    try:
        # Nanoseconds lose what is under a microsecond; a coarser unit must still fit.
        fits = array.cast(pa.timestamp("us"), safe=array.type.unit != "ns")
    except pa.ArrowInvalid:  # its message quotes the value
        raise ContractError(f"column {column.name}: a time that no calendar holds") from None
    return np.asarray(fits.to_numpy(), dtype="datetime64[us]")


def _arrow_codes(column: Column, array: pa.ChunkedArray) -> tuple[npt.NDArray[Any], Mask | None]:
    if pa.types.is_dictionary(array.type):
        array = array.cast(pa.string())
    encoded = pc.dictionary_encode(array).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    lookup = np.array([column.codes.get(value, -2) for value in encoded.dictionary.to_pylist()] + [-1])
    indices = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    codes = lookup[indices].astype(np.int16)
    bad = codes == -2
    return codes, bad if bad.any() else None


_NULLS_AS = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "flag": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
}


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_text_dictionary(kind: pa.DataType) -> bool:
    if not pa.types.is_dictionary(kind):
        return False
    return _is_text(kind.value_type) or bool(pa.types.is_null(kind.value_type))


_ARROW_FITS: dict[str, Callable[[pa.DataType], bool]] = {
    "number": _is_number,
    "integer": _is_number,
    "flag": lambda kind: bool(pa.types.is_boolean(kind)) or _is_number(kind),
    "category": lambda kind: _is_text(kind) or _is_text_dictionary(kind),
    "text": _is_text,
    # A zone would have to be turned into the site's wall clock, which the file does not tell.
    "time": lambda kind: bool(pa.types.is_timestamp(kind)) and kind.tz is None,
}


def parse_json(
    columns: Sequence[Column], rows: Sequence[Mapping[str, object]]
) -> tuple[Parsed, list[tuple[str, str, Mask]]]:
    """Typed columns of JSON objects, and the faults of fields that no column declares."""
    parsed: Parsed = {}
    seen = 0
    for column in columns:
        name = column.name
        read = _JSON_CELLS[column.kind]
        cells = []
        bad: list[int] | None = None
        for position, row in enumerate(rows):
            raw = row.get(name)
            seen += name in row
            cell = read(column, raw)
            if cell is _BAD:
                bad = [*(bad or ()), position]
                cell = read(column, None)
            cells.append(cell)
        mask = None
        if bad is not None:
            mask = np.zeros(len(rows), dtype=bool)
            mask[bad] = True
        parsed[name] = (np.array(cells, dtype=_DTYPES[column.kind]), mask)
    if seen == sum(map(len, rows)):
        return parsed, []
    declared = {column.name for column in columns}
    unknown: dict[str, Mask] = {}
    for position, row in enumerate(rows):
        for name in row.keys() - declared:
            unknown.setdefault(name, np.zeros(len(rows), dtype=bool))[position] = True
    return parsed, [(name, "unknown field", unknown[name]) for name in sorted(unknown)]


def _json_number(_: Column, raw: object) -> object:
    if raw is None:
        return np.nan
    if type(raw) is float:
        return raw if math.isfinite(raw) else _BAD
    if type(raw) is not int:
        return _BAD
    try:
        return float(raw)
    except OverflowError:
        return _BAD


def _json_flag(_: Column, raw: object) -> object:
    if raw is None:
        return np.nan
    return float(raw) if type(raw) is bool or (type(raw) is int and raw in (0, 1)) else _BAD


def _json_category(column: Column, raw: object) -> object:
    if raw is None:
        return -1
    return column.codes.get(raw, _BAD) if isinstance(raw, str) else _BAD


def _json_text(_: Column, raw: object) -> object:
    return raw if raw is None or isinstance(raw, str) else _BAD


def _json_time(_: Column, raw: object) -> object:
    if raw is None:
        return _NAT
    if not isinstance(raw, str):
        return _BAD
    try:
        # The hour and weekday that matter are the site's own: keep the wall clock, drop the offset.
        return np.datetime64(datetime.fromisoformat(raw).replace(tzinfo=None), "us")
    except ValueError:
        return _BAD


_JSON_CELLS: dict[str, Callable[[Column, object], object]] = {
    "number": _json_number,
    "integer": _json_number,
    "flag": _json_flag,
    "category": _json_category,
    "text": _json_text,
    "time": _json_time,
}

_DTYPES: dict[str, npt.DTypeLike] = {
    "number": np.float64,
    "integer": np.float64,
    "flag": np.float64,
    "category": np.int16,
    "text": object,
    "time": "datetime64[us]",
}
