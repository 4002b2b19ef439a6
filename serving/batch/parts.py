"""A result that is made in parts, so that who is stopped goes on where he was.

Beside ``OUT`` stands the folder ``OUT.parts`` with the plan and a Parquet file for each finished part.
A part is written under another name, brought to the disk and renamed: what bears a part's name is
whole. ``OUT`` itself appears in one step, when all parts are there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from data.errors import CaremodelsError, ConflictError, UsageError

OURS = b"caremodels"
"""Key of the Parquet metadata that says what a file is; other files are never replaced."""
GROUP = 65_536
"""Rows of a row group, whatever batches an engine hands out: equal rows make equal bytes."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The open folder of one result. Use :func:`opened`."""

    out: Path
    folder: Path
    schema: pa.Schema

    def missing(self, sizes: Sequence[int]) -> list[int]:
        """Numbers of the parts that are not there whole, of parts with ``sizes`` rows."""
        return [number for number, size in enumerate(sizes) if not self._whole(number, size)]

    def write(self, number: int, tables: Iterable[pa.Table], *, size: int) -> None:
        """Part ``number``, of ``size`` rows. Raises CaremodelsError where the tables hold others."""
        draft = self.folder / "draft"
        written = _write(draft, self.schema, _groups(tables, self.schema))
        if written != size:
            raise CaremodelsError("the mart changed while its rows were scored: run the command again")
        _rename(draft, self._part(number))

    def join(self, count: int, heard: Callable[[pa.Table], None]) -> None:
        """Make ``OUT`` of all ``count`` parts and remove the folder. ``heard``: of each row group."""

        def groups() -> Iterator[pa.Table]:
            for number in range(count):
                with parquet.ParquetFile(self._part(number)) as part:
                    for group in range(part.num_row_groups):
                        table = part.read_row_group(group)
                        yield table
                        heard(table)

        draft = self.folder / "draft"
        _write(draft, self.schema, groups())
        _rename(draft, self.out)
        shutil.rmtree(self.folder)

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:05d}.parquet"

    def _whole(self, number: int, size: int) -> bool:
        try:
            with parquet.ParquetFile(self._part(number)) as part:
                fits: bool = part.metadata.num_rows == size and part.schema_arrow.equals(self.schema)
                return fits
        except (OSError, pa.ArrowInvalid):
            return False


@contextmanager
def opened(out: Path, plan: bytes, schema: pa.Schema, *, say: Callable[[str], None]) -> Iterator[Parts]:
    """The parts of ``out`` made under the same ``plan`` and ``schema``; parts of another are removed.

    Raises ConflictError where another process makes the same result.
    """
    folder = out.with_name(f"{out.name}.parts")
    with _locked(folder):
        made = folder / "plan.json"
        if not made.is_file() or made.read_bytes() != plan:
            if any(folder.iterdir()):
                say(f"{folder} is of another version, period or state of the mart: starting anew")
            for old in folder.iterdir():
                old.unlink()
            draft = folder / "draft"
            draft.write_bytes(plan)
            _rename(draft, made)
        yield Parts(out=out, folder=folder, schema=schema)


def hold(out: Path) -> None:
    """Refuse a place where no result can go. Raises UsageError."""
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}")
    if not out.exists():
        return
    try:
        ours = OURS in (parquet.read_metadata(out).metadata or {})
    except (OSError, pa.ArrowInvalid):
        ours = False
    if not ours:
        raise UsageError(f"--out: {out} is there and no result of caremodels score: name another file")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, for this process alone; ends with the process."""
    while True:
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{folder} is needed for unfinished parts, and is a file") from None
        handle = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"another run is writing into {folder}") from None
            # Another run may have finished and removed the folder since it was opened here.
            if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
                yield
                return
        finally:
            os.close(handle)


def _groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of ``GROUP``."""
    waiting = schema.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table.cast(schema)])
        while len(waiting) >= GROUP:
            yield waiting.slice(0, GROUP)
            waiting = waiting.slice(GROUP)
    if len(waiting):
        yield waiting


def _write(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> int:
    """The groups as a Parquet file that is on the disk; returns its rows."""
    rows = 0
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with path.open("wb") as file:
        with parquet.ParquetWriter(
            file, schema, compression="zstd", compression_level=1, use_dictionary=texts
        ) as writer:
            for table in groups:
                # Of one piece, because the pages follow the pieces.
                writer.write_table(table.combine_chunks(), row_group_size=GROUP)
                rows += len(table)
        file.flush()
        os.fsync(file.fileno())
    return rows


def _rename(draft: Path, place: Path) -> None:
    draft.replace(place)
    handle = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
