"""Files as their publishers ship them, made ready for DuckDB to read.

Parquet, CSV and PSV (``|``, also ``.gz``) are read where they lie. DuckDB reads neither zip, Stata
nor SAS: a zip is unpacked and Stata and SAS become Parquet, piece by piece, in a folder that lasts
as long as the load. :func:`ready` refuses what cannot be read, and repeats no value.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import CaremodelsError, ContractError, NotFoundError, UsageError

PIECE = 10_000
"""Rows of Stata or SAS in memory at once: with a thousand columns some 80 MiB."""
FREE_SHARE = 0.5
"""What a zip says that it holds may take this share of the free disk, so that none fills it."""
COLUMN = "source_file"
"""The column of every row that names the file, without folder and suffix, from which it came."""

_READ = "{options}union_by_name=true, filename='" + COLUMN + "'"
_PARQUET = "read_parquet({files}, " + _READ + ")"
_CSV = "read_csv({files}, " + _READ + ")"
_PSV = "read_csv({files}, delim='|', header=true, " + _READ + ")"
# Told what is in them, DuckDB reads thousands of small files thirty times faster.
_SAME_PSV = (
    "read_csv({files}, delim='|', header=true, auto_detect=false, {options}columns={columns}, "
    f"filename='{COLUMN}')"
)
KINDS = {
    ".parquet": ("Parquet", _PARQUET),
    ".csv": ("CSV", _CSV),
    ".csv.gz": ("CSV", _CSV),
    ".psv": ("PSV", _PSV),
    ".psv.gz": ("PSV", _PSV),
    ".dta": ("Stata", _PARQUET),
    ".sas7bdat": ("SAS", _PARQUET),
    ".xpt": ("SAS", _PARQUET),
}
"""Suffix -> what people call it, and how DuckDB reads it once it is ready."""
READABLE = (*KINDS, ".zip")
# What zipfile raises on a file that was cut, changed, or packed in a way that it does not know.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Files of one kind that DuckDB can read, and under which name each of them came."""

    label: str
    reader: str
    files: list[tuple[Path, str]] = field(repr=False)

    def of(self, stem: str) -> Ready:
        """Those whose name is ``stem``, whatever its case."""
        files = [(path, name) for path, name in self.files if stem_of(path).lower() == stem.lower()]
        return Ready(label=self.label, reader=self.reader, files=files)

    def sql(self, *, text: bool, only: Path | None = None) -> str:
        """DuckDB's table of the files, or of ``only`` one; ``text`` leaves the cells unread."""
        paths = [path for path, _ in self.files] if only is None else [only]
        # The list is a list of globs to DuckDB.
        quoted = ", ".join("'" + escape(str(path)).replace("'", "''") + "'" for path in paths)
        # Left to itself DuckDB goes by the name, and knows no .GZ.
        packed = "compression='gzip', " if all(path.suffix.lower() == ".gz" for path in paths) else ""
        if text and self.reader == _PSV and (names := _common_header(paths)):
            columns = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
            return _SAME_PSV.format(files=f"[{quoted}]", options=packed, columns=f"{{{columns}}}")
        typed = "all_varchar=true, " if text and self.reader != _PARQUET else ""
        head = "header=true, " if text and self.reader == _CSV else ""
        return self.reader.format(files=f"[{quoted}]", options=typed + head + packed)


def _common_header(paths: list[Path]) -> list[str] | None:
    """The header that all of the files have; None where they differ or one cannot be read."""
    headers = set()
    for path in paths:
        try:
            opened = gzip.open if path.suffix.lower() == ".gz" else Path.open
            with opened(path, "rt", encoding="utf-8") as lines:
                headers.add(lines.readline(1 << 20).rstrip("\r\n"))
        except (OSError, EOFError, UnicodeDecodeError, zlib.error):
            return None
    names = headers.pop().split("|") if len(headers) == 1 else [""]
    plain = all(re.fullmatch(r"\w+", name) for name in names)
    return names if plain and len({name.lower() for name in names}) == len(names) else None


def suffix_of(path: Path) -> str:
    """The last suffix in lower case, with what a ``.gz`` holds: ``.csv.gz``."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


def stem_of(path: Path) -> str:
    """The name without folder and suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def listed(folder: Path) -> list[Path]:
    """The files in the folder that can be read. Raises NotFoundError where there is none."""
    found = sorted(f for f in folder.rglob("*") if suffix_of(f) in READABLE and _visible(f, folder))
    if not found:
        raise NotFoundError(f"no file in {folder} ends in {', '.join(READABLE)}")
    return found


def _visible(file: Path, folder: Path) -> bool:
    return file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)


def ready(files: list[Path], scratch: Path, *, member: str = "", tables: Iterable[str] = ()) -> Ready:
    """The files for DuckDB; what had to be unpacked or turned into Parquet lies in ``scratch``.

    ``member`` is a pattern for the files inside a zip. With ``tables`` only the files whose name is
    one of these count. Raises UsageError where the files are of several kinds or of none, and
    ContractError naming the one that cannot be read.
    """
    space = _Space(scratch)
    wanted = {table.lower() for table in tables}
    plain = []
    for file in files:
        if suffix_of(file) == ".zip":
            plain += _unzipped(file, space, member=member, wanted=wanted)
        elif not wanted or stem_of(file).lower() in wanted:
            plain.append((file, str(file)))
    kinds = {KINDS.get(suffix_of(path), ("", ""))[0] for path, _ in plain}
    if wanted and not plain:
        raise ContractError(f"no file for any of the tables {', '.join(sorted(wanted))}")
    if len(kinds) != 1 or "" in kinds:
        raise UsageError(f"files must be all of one kind: {', '.join(KINDS)}, or zips of one of these")
    for path, name in plain:
        _hold_to_its_end(path, name)
    label, reader = KINDS[suffix_of(plain[0][0])]
    if convert := _PIECES.get(label):
        plain = [part for path, name in plain for part in _as_parquet(path, name, space, label, convert)]
    return Ready(label=label, reader=reader, files=plain)


def _hold_to_its_end(path: Path, name: str) -> None:
    """Refuse a ``.gz`` that was cut: DuckDB would read as far as it goes and say nothing."""
    if path.suffix.lower() != ".gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        raise ContractError(f"{name} cannot be read as gzip") from None


class _Space:
    """A folder in which files of one name lie in different folders, so that each keeps its name."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.seen: Counter[str] = Counter()

    def place(self, name: str) -> Path:
        folder = self.scratch / str(self.seen[name.lower()])
        self.seen[name.lower()] += 1
        folder.mkdir(exist_ok=True)
        return folder / name


def _unzipped(file: Path, space: _Space, *, member: str, wanted: set[str]) -> list[tuple[Path, str]]:
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = _chosen(file, archive, member=member, wanted=wanted)
            _hold_to_free_space(file, chosen, space.scratch)
            return [_unpacked(file, archive, info, space) for info in chosen]
    except _BROKEN_ZIP:
        raise ContractError(f"{file} cannot be read as a zip") from None
    except OSError as error:
        raise _of_the_disk(error, file) from None


def _chosen(
    file: Path, archive: zipfile.ZipFile, *, member: str, wanted: set[str]
) -> list[zipfile.ZipInfo]:
    """The members to read. Of several kinds only a person can choose."""
    inside = [info for info in archive.infolist() if _is_data(info)]
    if not inside:
        raise ContractError(f"{file} holds no file that ends in {', '.join(KINDS)}")
    if member:
        inside = [info for info in inside if fnmatchcase(info.filename.lower(), member.lower())]
        if not inside:
            raise ContractError(f"{file} holds no file like {member!r}")
    if wanted:
        inside = [info for info in inside if stem_of(Path(info.filename)).lower() in wanted]
    if len({KINDS[suffix_of(Path(info.filename))][0] for info in inside}) > 1:
        raise UsageError(
            f"{file} holds files of several kinds: name one in the query's head, -- member: *.csv"
        )
    if any(info.flag_bits & 0x1 for info in inside):
        raise ContractError(f"{file} is encrypted: unpack it first")
    return inside


def _is_data(info: zipfile.ZipInfo) -> bool:
    """Whether it can be read; macOS packs a hidden twin of every file."""
    parts = re.split(r"[/\\]", info.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts if part != "..")
    return not info.is_dir() and not hidden and suffix_of(Path(info.filename)) in KINDS


def _hold_to_free_space(file: Path, chosen: list[zipfile.ZipInfo], scratch: Path) -> None:
    # What a member says of its size holds: zipfile reads no further.
    size, free = sum(info.file_size for info in chosen), shutil.disk_usage(scratch).free
    if size > FREE_SHARE * free:
        raise CaremodelsError(
            f"{file} unpacks to {size / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB "
            f"that are free in {scratch.parent}: set TMPDIR to a larger disk"
        )


def _unpacked(
    file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, space: _Space
) -> tuple[Path, str]:
    # Never by the member's own path: it may lead anywhere.
    name = re.sub(r"[^\w.-]", "_", re.split(r"[/\\]", info.filename)[-1])
    target = space.place(name)
    with archive.open(info) as packed, target.open("xb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    return target, f"{name} in {file}"


def _as_parquet(
    path: Path, name: str, space: _Space, label: str, pieces: Callable[[Path], Iterator[Any]]
) -> list[tuple[Path, str]]:
    """One Parquet file a piece: a column is whole numbers in one piece and has gaps in the next."""
    parts = []
    try:
        for piece in pieces(path):
            part = space.place(f"{stem_of(path)}.parquet")
            pq.write_table(pa.Table.from_pandas(piece, preserve_index=False), part)
            parts.append((part, name))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _of_the_disk(error, name) from None
        raise ContractError(f"{name} cannot be read as {label}") from None
    except Exception:  # noqa: BLE001 on a torn file pandas raises whatever it stumbles over
        raise ContractError(f"{name} cannot be read as {label}") from None
    if space.scratch in path.parents:
        path.unlink()
    return parts


def _of_the_disk(error: OSError, name: object) -> CaremodelsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CaremodelsError(
            f"{name}: the disk for temporary files is full: set TMPDIR to a larger one"
        )
    return ContractError(f"{name} cannot be read ({type(error).__name__})")


def _stata(path: Path) -> Iterator[Any]:
    import pandas as pd

    with pd.read_stata(path, chunksize=PIECE, convert_categoricals=False) as reader:
        # not "yield from", which would close the reader behind pandas' back
        for piece in reader:  # noqa: UP028
            yield piece


def _sas(path: Path) -> Iterator[Any]:
    import pandas as pd

    # A transport file does not say how its text is encoded.
    form, encoding = ("xport", "utf-8") if path.suffix.lower() == ".xpt" else ("sas7bdat", "infer")
    with pd.read_sas(path, format=form, encoding=encoding, chunksize=PIECE) as reader:
        for piece in reader:  # noqa: UP028 see above
            yield piece


_PIECES: dict[str, Callable[[Path], Iterator[Any]]] = {"Stata": _stata, "SAS": _sas}
