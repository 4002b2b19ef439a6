"""Rows of the mart in, a Parquet file of answers out: the command ``caremodels score``.

The period is scored a block at a time where the rows are, on DuckDB, PostgreSQL or Spark. Memory does
not grow with the mart, and who is stopped goes on after the last finished block.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data import marts
from data.contract import Mart
from data.errors import CaremodelsError, IntegrityError, NotFoundError
from data.home import Home
from data.period import Period
from data.store import Store, open_store
from data.terminal import Stage
from models import catalog, release
from models.manifest import NOTICE
from serving.batch import blocks, parts
from serving.batch.blocks import Block
from serving.batch.parts import OURS, Parts
from serving.batch.tables import STATUS, UNSOUND, Answers, named

JOINING = 0.05
"""The share of the time that goes into making one file of the parts."""
EXPLAINED = 4
"""How many times finer a period is cut whose rows are explained: each takes more time and more room."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the rows of the period."""

    rows: int
    scored: int
    abstained: int
    refused: int


def _tell(text: str) -> None:
    sys.stderr.write(f"caremodels: {text}\n")


def score(
    home: Home,
    model: str,
    *,
    version: str | None,
    period: Period,
    out: Path,
    explain: bool,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
    say: Callable[[str], None] = _tell,
) -> Counts:
    """Answer every row of ``period`` in the mart, in the mart's order, into the new file ``out``.

    ``version``: by default the champion. ``say`` is told what a person should know of the run.
    Raises NotFoundError where there is no such model or version, UsageError for a place where no
    result can go, NotEnoughDataError where the period holds no row, ConflictError where another run
    writes the same file.
    """
    parts.hold(out)
    stage("fetching the version", 0.0)
    version, folder = _version(home, model, version)
    mart = marts.load(catalog.load(model).mart)
    answers = Answers.of(
        folder, version=version, mart=mart, explain=explain, threads=os.cpu_count() or 1
    )
    if answers.artifact.spec.name != model:
        raise IntegrityError(f"{folder} holds {answers.artifact.spec.name} and not {model}")
    if answers.artifact.manifest.provenance.use == "demonstration":
        say(f"{model} {version}: {NOTICE.en}")
    with open_store(home.marts, write=False) as store:
        stage("counting the rows", 0.01)
        cut = blocks.cut_series if answers.series else blocks.cut
        planned, loads = cut(store, mart, period, finer=EXPLAINED if explain else 1)
        about = _about(answers, period, loads)
        plan = json.dumps({**about, "blocks": [asdict(block) for block in planned]}, indent=1).encode()
        schema = named(answers.schema(mart))
        schema = schema.with_metadata({OURS: json.dumps(about, ensure_ascii=False)})
        with parts.opened(out, plan, schema, say=say) as opened:
            try:
                _fill(store, mart, answers, opened, planned, loads, period, stage=stage, say=say)
                return _join(opened, planned, stage=stage, say=say)
            except KeyboardInterrupt:
                say(f"stopped; {_kept(opened)}")
                raise
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise CaremodelsError(f"no room left beside {out}; {_kept(opened)}") from None


def _version(home: Home, model: str, version: str | None) -> tuple[str, Path]:
    """The version to score with, and the folder of its files."""
    catalog.load(model)  # raises naming the known ones
    version = version or release.pointed(home.releases, model=model)
    if version is None:
        raise NotFoundError(
            f"{model}: no version is released; promote one (caremodels promote) or name one (--version)"
        )
    folder = home.releases / model / version
    if folder.is_dir():
        return version, folder
    from models import registry  # MLflow takes seconds to import

    return version, registry.fetch(home, model, version)


def _about(answers: Answers, period: Period, loads: list[str]) -> dict[str, Any]:
    """What the file says of itself: equal for equal results, so that it names no time and no place."""
    provenance = answers.artifact.manifest.provenance
    demonstration = provenance.use == "demonstration"
    return {
        "model": answers.artifact.spec.name,
        "version": answers.version,
        "manifest": answers.digest,
        "use": provenance.use,
        **({"notice": asdict(NOTICE)} if demonstration else {}),
        "terms": provenance.terms,
        "attribution": provenance.attribution,
        "mart": answers.artifact.spec.mart,
        "period": None if period.open else period.days,
        "loads": loads,
        "explain": answers.explain,
    }


def _fill(
    store: Store,
    mart: Mart,
    answers: Answers,
    opened: Parts,
    planned: list[Block],
    loads: list[str],
    period: Period,
    *,
    stage: Stage,
    say: Callable[[str], None],
) -> None:
    """Score the blocks whose parts are not there yet."""
    missing = opened.missing([block.rows for block in planned])
    total = sum(block.rows for block in planned)
    done = total - sum(planned[number].rows for number in missing)
    if done:
        say(f"going on: {len(planned) - len(missing)} of {len(planned)} parts are there")

    def scored(block: Block) -> Iterator[pa.Table]:
        nonlocal done
        for table in _answered(store, mart, answers, block, loads, period):
            yield table.rename_columns(opened.schema.names)
            done += len(table)
            stage(f"scored: {done:,} of {total:,} rows", (1 - JOINING) * done / total)

    for number in missing:
        opened.write(number, scored(planned[number]), size=planned[number].rows)


def _answered(
    store: Store, mart: Mart, answers: Answers, block: Block, loads: list[str], period: Period
) -> Iterator[pa.Table]:
    """The answers to the rows of ``block``, a batch at a time."""
    schema = answers.schema(mart)
    if not answers.series:
        rows = blocks.within(store, mart, block, loads=loads, columns=answers.columns)
        yield from store.engine.mapped(rows, answers, schema)
        return
    # An engine cuts its batches where it likes, in the middle of a series too: they are put together
    # here, on Spark as well.
    tables = blocks.within_series(store, mart, block, period, loads=loads, columns=answers.columns)
    for table in tables:
        found = answers(table).cast(schema)
        if not period.open:
            time = found[mart.time]
            asked = pc.and_(pc.greater_equal(time, period.start), pc.less(time, period.end))
            found = found.filter(asked)
        yield found


def _join(opened: Parts, planned: list[Block], *, stage: Stage, say: Callable[[str], None]) -> Counts:
    total = sum(block.rows for block in planned)
    counts: Counter[str] = Counter()
    unsound = 0

    def heard(table: pa.Table) -> None:
        nonlocal unsound
        for row in pc.value_counts(table["status"]).to_pylist():
            counts[row["values"]] += row["counts"]
        unsound += pc.sum(pc.equal(table["reasons"].combine_chunks().flatten(), UNSOUND)).as_py() or 0
        stage(f"writing {opened.out.name}", 1 - JOINING + JOINING * counts.total() / total)

    opened.join(len(planned), heard)
    if unsound:
        say(f"{unsound} explanations do not add up to the risk; their rows say so in their reasons")
    return Counts(rows=counts.total(), **{name: counts[name] for name in STATUS})


def _kept(opened: Parts) -> str:
    return f"the finished parts are in {opened.folder}, and the same command goes on after them"
