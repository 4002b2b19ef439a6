"""A stretch of the prediction log as one Parquet file, for a reviewer or an evaluation elsewhere.

The file holds what the log does, sealed or not: inputs are opened unless they are left out. It is for
its owner alone, and whoever takes it elsewhere answers for it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from sqlalchemy import Engine

from data.errors import ConflictError, NotEnoughDataError, UsageError
from data.log import audit
from data.log.read import SCHEMA, batches, count
from data.log.seal import Keyring
from data.period import Period


@dataclass(frozen=True, kw_only=True)
class Exported:
    model: str
    rows: int
    out: str


def export(
    engine: Engine,
    keyring: Keyring,
    model: str,
    period: Period,
    out: Path,
    *,
    inputs: bool = True,
    overwrite: bool = False,
    done: Callable[[float], None] = lambda share: None,  # noqa: ARG005 nobody listens
) -> Exported:
    """Write every prediction of ``model`` in ``period`` (UTC, by ``at``) into the new file ``out``.

    Rows of champions and challengers, told apart by ``pointer``, as :data:`data.log.read.SCHEMA`
    says; without ``inputs`` that column is left out. They are streamed, from one moment of the log,
    and the file appears whole or not at all. Inputs that no key here opens are null, and logged. The
    log keeps who took what.

    Raises:
        ConflictError: ``out`` is there, and is not to be overwritten.
        UsageError: ``out`` cannot be there.
        NotEnoughDataError: the period holds no prediction.
        UnavailableError: the log cannot be read, or not written down in it who took what.
    """
    if out.exists() and not overwrite:
        raise ConflictError(f"{out} is there already")
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"--out: {out} is no place for a file")
    span: dict[str, Any] = {
        "model": model,
        "start": period.start,
        "end": period.end,
        "pointer": None,
    }
    expected = count(engine, **span)
    if not expected:
        raise NotEnoughDataError(f"the log holds no prediction of {model} for {period}")
    asked = {"model": model, "period": str(period), "inputs": inputs}
    audit.record(engine, "export", asked)
    kept = [field for field in SCHEMA if inputs or field.name != "inputs"]
    draft = out.with_name(f".{out.name}.{secrets.token_hex(8)}")
    rows = 0
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with parquet.ParquetWriter(file, pa.schema(kept), compression="zstd") as writer:
                for batch in batches(engine, keyring=keyring if inputs else None, **span):
                    writer.write_batch(batch.select([field.name for field in kept]))
                    rows += batch.num_rows
                    done(rows / max(rows, expected))
            file.flush()
            os.fsync(file.fileno())
        _place(draft, out, overwrite=overwrite)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(model=model, rows=rows, out=str(out))


def _place(draft: Path, out: Path, *, overwrite: bool) -> None:
    if overwrite:
        draft.replace(out)
        return
    # A link fails where a rename would replace what somebody put there meanwhile.
    try:
        os.link(draft, out)
    except FileExistsError:
        raise ConflictError(f"{out} is there already") from None
