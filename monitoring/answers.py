"""What a version answered, a row a prediction: when, where, how it was used and what then happened.

No input is among it, so that a year of it is held in memory.

**Which prediction of an encounter counts.** A visit may be scored at triage and again an hour later,
and has one outcome. The first, the last or every one is held against it, as the spec says; first and
last are those of the whole log, also where the encounter began before the window.

**Maturity.** A patient who was readmitted is known at once, one who was not after 30 days. What is known
before that is mostly events, and would make any model look too low: an answer counts once the time
has passed in which its outcome could still come, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from data import marts
from data.log import read as log
from data.log.schema import utc
from models.calibration import sigmoid
from models.spec import ModelSpec
from models.watch import Counts

STATUS = ("scored", "abstained", "refused")
USED = ("silent", "answered", "card", "accepted", "overridden")
PAST = timedelta(days=365)
MOST_PAST = 2_000_000
"""Rows of the past that are held; of more, whole days are taken, every second or third or so."""
_SHOWN = USED.index("card")
_DAY = timedelta(days=1)
_WEEK = 7
_MOST_LEVELS = 100

Texts = npt.NDArray[np.object_]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Arrays of shape (n,), in the order of (at, prediction_id).

    ``at``: datetime64[s], the wall clock of the home's zone. ``site``: a place in ``sites``, -1 where
    none is named. ``status`` and ``used``: places in :data:`STATUS` and :data:`USED`, what a clinician
    said of a card folded in. ``risk``: of the model's event, NaN unless scored. ``outcome``: 0 or 1, NaN
    where it is not known. ``mature``: the outcome can no longer come; before, it counts for nothing even
    if it is known, as events are told early and their absence late. ``counts``: scored, and the one
    prediction of its encounter that is held against the outcome. ``level``: of an ordinal model the one
    that was answered, ``outcome_level`` the one that turned out to be right, 0 where there is none.
    ``patient``: a number, an own one where no patient is named; ``encounter`` likewise, but -1 there.
    ``drawn``: its inputs were opened.
    """

    at: npt.NDArray[np.datetime64]
    site: npt.NDArray[np.intp]
    sites: tuple[str, ...]
    status: npt.NDArray[np.int8]
    used: npt.NDArray[np.int8]
    risk: FloatArray
    outcome: FloatArray
    mature: BoolArray
    counts: BoolArray
    level: npt.NDArray[np.int8]
    outcome_level: npt.NDArray[np.int8]
    patient: npt.NDArray[np.int64]
    encounter: npt.NDArray[np.int64]
    drawn: BoolArray

    def __len__(self) -> int:
        return len(self.at)

    @property
    def scored(self) -> BoolArray:
        """Those that were given a risk."""
        return np.asarray(self.status == 0)

    @property
    def labelled(self) -> BoolArray:
        """Those whose risk can be held against an outcome."""
        return self.counts & self.mature & ~np.isnan(self.outcome)

    @property
    def shown(self) -> BoolArray:
        """Those that a clinician saw as a card, which may have changed what then happened."""
        return np.asarray(self.used >= _SHOWN)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> Answers:
        """The rows of a mask, of places, or of a slice, which copies none."""
        arrays = {
            each.name: getattr(self, each.name)[rows] for each in fields(self) if each.name != "sites"
        }
        return replace(self, **arrays)

    def between(self, start: datetime, end: datetime) -> Answers:
        """Those with ``start`` <= at < ``end``, naive wall clock as ``at`` is."""
        first, last = np.datetime64(start, "s"), np.datetime64(end, "s")
        return self.take((self.at >= first) & (self.at < last))

    @classmethod
    def none(cls, sites: tuple[str, ...] = ()) -> Answers:
        """No answer at all."""
        whole, flag, number = np.zeros(0, np.int8), np.zeros(0, bool), np.zeros(0)
        return cls(
            at=np.zeros(0, "datetime64[s]"),
            site=np.zeros(0, np.intp),
            sites=sites,
            status=whole,
            used=whole,
            risk=number,
            outcome=number,
            mature=flag,
            counts=flag,
            level=whole,
            outcome_level=whole,
            patient=np.zeros(0, np.int64),
            encounter=np.zeros(0, np.int64),
            drawn=flag,
        )


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A row of the log that makes no sense: of no known status, or with a risk that is none."""

    site: str | None
    status: str | None


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What the log holds of a window and of the year before.

    ``names``: the prediction_id of each row of ``answers``, ``past_names`` of ``past``. ``reasons``: the
    log's JSON of each answer that was given no risk. ``share``: of the days before the window, that
    which ``past`` holds.
    """

    answers: Answers
    past: Answers
    share: float
    names: pa.Array
    past_names: pa.Array
    reasons: dict[int, str | None]
    lost: tuple[Lost, ...]


def delay(spec: ModelSpec) -> timedelta:
    """The longest time until the outcome is known; none where its mart says none.

    >>> from models import catalog
    >>> delay(catalog.load("readmission_30d")).days
    30
    """
    mart = marts.load(spec.mart)
    return timedelta(days=max(mart[name].known_within or 0 for name in spec.outcome.columns))


def read(
    connection: Connection,
    spec: ModelSpec,
    *,
    version: str,
    pointer: log.Pointer,
    start: datetime,
    end: datetime,
    as_of: datetime,
    zone: ZoneInfo,
    done: Callable[[float], None] = lambda share: None,  # noqa: ARG005 a listener that does not listen
) -> Stretch:
    """The answers with ``start`` <= at < ``end`` (naive UTC), and those of the ``PAST`` before."""
    mine: dict[str, Any] = {"model": spec.name, "version": version, "pointer": pointer}
    levels = spec.triage is not None
    before = _earlier(start)
    every, days = _days(log.busy(connection, model=spec.name, start=before, end=start), before, start)
    expected = max(1, log.busy(connection, model=spec.name, start=before, end=end))
    gathered = _Gathered()
    for first, last in days:
        for batch in log.answers(connection, start=first, end=last, as_of=as_of, reasons=False, **mine):
            gathered.add(batch, past=True)
            done(min(1.0, gathered.rows / expected))
    for batch in log.answers(connection, start=start, end=end, as_of=as_of, levels=levels, **mine):
        gathered.add(batch)
        done(min(1.0, gathered.rows / expected))
    rule = spec.watch.counts
    # Whatever lies beyond what was read may hold the prediction that counts.
    beyond = every > 1 or log.busy(connection, model=spec.name) > expected
    of: _Foremost | None = None
    if beyond and rule != "every":

        def of(read: Mapping[str, int]) -> dict[str, str]:
            # Nearly all encounters have no other row than those that were read, which the index tells.
            every_row = log.held(connection, list(read), model=spec.name)
            more = [name for name, rows in read.items() if every_row.get(name) != rows]
            return log.of_encounter(connection, more, as_of=as_of, last=rule == "last", **mine)

    return gathered.stretch(rule, of, ripe=utc(as_of) - delay(spec), zone=zone, share=1 / every)


_Foremost = Callable[[Mapping[str, int]], dict[str, str]]
"""Encounter -> how many of its rows were read; gives that of its predictions which counts, where the
log holds more of it than was read."""


def counting(encounter: npt.NDArray[np.int64], able: BoolArray, rule: Counts) -> BoolArray:
    """Mask of the one of each encounter that counts; rows in order of time, ``able`` the scored ones.

    ``encounter`` is a number, 0 where none is named: such a row stands for itself.

    >>> able = np.array([False, True, True, True])
    >>> counting(np.array([5, 5, 5, 0]), able, "first").tolist()
    [False, True, False, True]
    """
    found = able.copy()
    if rule != "every":
        places = np.flatnonzero(able & (encounter != 0))
        found[places] = ~pd.Series(encounter[places]).duplicated(keep=rule).to_numpy()
    return found


def wall_clock(moments: npt.NDArray[np.datetime64], zone: ZoneInfo) -> npt.NDArray[np.datetime64]:
    """datetime64[s] of ``zone`` for those of UTC.

    >>> wall_clock(np.array(["2021-07-01T00:30:00"], "datetime64[us]"), ZoneInfo("Europe/Berlin"))
    array(['2021-07-01T02:30:00'], dtype='datetime64[s]')
    """
    if zone.key != "UTC":
        local = pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(zone).tz_localize(None)
        moments = local.to_numpy()
    return moments.astype("datetime64[s]")


def _earlier(start: datetime) -> datetime:
    try:
        return start - PAST
    except OverflowError:  # the calendar begins there
        return start


def _days(rows: int, before: datetime, start: datetime) -> tuple[int, list[tuple[datetime, datetime]]]:
    """Every how many days of the past are read, and which: of few rows it is all of them."""
    every = -(-rows // MOST_PAST)
    if every <= 1:
        return 1, [(before, start)]
    if every % _WEEK == 0:
        every += 1  # else it would be the same day of every week
    starts = [start - _DAY * back for back in range(every, (start - before) // _DAY + 1, every)]
    return every, [(day, day + _DAY) for day in reversed(starts)]


@dataclass
class _Gathered:
    """Batches of the log as arrays. ``past``: how many rows are of the past, the first ones."""

    parts: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)
    names: list[pa.Array] = field(default_factory=list)
    encounters: list[pa.Array] = field(default_factory=list)
    reasons: dict[int, str | None] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    sites: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    past: int = 0

    def add(self, batch: pa.RecordBatch, *, past: bool = False) -> None:
        status, used = _places(batch["status"], STATUS), _places(batch["used"], USED)
        margin = batch["margin"].to_numpy(zero_copy_only=False)
        scored = status == 0
        sound = (status >= 0) & (used >= 0) & (~scored | np.isfinite(margin))
        for name in ("at", "prediction_id"):
            sound &= batch[name].is_valid().to_numpy(zero_copy_only=False)
        if not sound.all():
            if not past:
                wrong = batch.filter(pa.array(~sound)).select(["site", "status"]).to_pylist()
                known = (
                    {**row, "status": row["status"] if row["status"] in STATUS else None}
                    for row in wrong
                )
                self.lost += [Lost(**row) for row in known]
            batch = batch.filter(pa.array(sound))
            status, used, margin, scored = status[sound], used[sound], margin[sound], scored[sound]
        outcome = batch["outcome"].to_numpy(zero_copy_only=False).astype(np.float64)
        outcome[~np.isin(outcome, (0, 1))] = np.nan
        self.parts.append(
            {
                "at": batch["at"].cast(pa.int64()).to_numpy().view("datetime64[us]"),
                "site": self._sites(batch["site"]),
                "status": status,
                "used": used,
                "risk": np.where(scored, sigmoid(np.where(scored, margin, 0.0)), np.nan),
                "outcome": outcome,
                "level": _levels(batch["level"]),
                "outcome_level": _levels(batch["outcome_level"]),
                "patient": _numbers(batch["patient"], batch["prediction_id"]),
                "encounter": _numbers(batch["encounter"]),
            }
        )
        self.names.append(batch["prediction_id"])
        self.encounters.append(batch["encounter"])
        if past:
            self.past += len(batch)
        else:
            first = self.rows - self.past
            unscored = np.flatnonzero(~scored)
            texts = batch["reasons"].take(pa.array(unscored)).to_pylist()
            self.reasons |= dict(zip((first + unscored).tolist(), texts, strict=True))
        self.rows += len(batch)

    def stretch(
        self,
        rule: Counts,
        of_encounter: _Foremost | None,
        *,
        ripe: datetime,
        zone: ZoneInfo,
        share: float,
    ) -> Stretch:
        """``ripe``: what was answered by then is mature."""
        if not self.parts:
            none, nobody = Answers.none(), pa.array([], pa.string())
            return Stretch(
                answers=none, past=none, share=share, names=nobody, past_names=nobody, reasons={},
                lost=tuple(self.lost),
            )  # fmt: skip
        columns = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        at, encounter = columns.pop("at"), columns["encounter"]
        counts = counting(encounter, columns["status"] == 0, rule)
        if of_encounter is not None:
            counts &= self._foremost(encounter, counts & (encounter != 0), of_encounter)
        sites = sorted(self.sites)
        place = np.array([*(sites.index(name) for name in self.sites), -1], dtype=np.intp)
        columns["site"] = place[columns["site"]]
        whole = _numbered(
            Answers(
                at=wall_clock(at, zone),
                sites=tuple(sites),
                mature=at <= np.datetime64(ripe, "us"),
                counts=counts,
                drawn=np.zeros(len(at), dtype=bool),
                **columns,
            )
        )
        names = pa.concat_arrays(self.names)
        return Stretch(
            answers=whole.take(slice(self.past, None)),
            past=whole.take(slice(self.past)),
            share=share,
            names=names.slice(self.past),
            past_names=names.slice(0, self.past),
            reasons=self.reasons,
            lost=tuple(self.lost),
        )

    def _foremost(
        self, encounter: npt.NDArray[np.int64], asked: BoolArray, of_encounter: _Foremost
    ) -> BoolArray:
        """Mask of the rows that the whole log agrees are those of their encounter that count."""
        mask = np.ones(self.rows, dtype=bool)
        places = np.flatnonzero(asked)
        _, code, rows = np.unique(encounter, return_inverse=True, return_counts=True)
        read = rows[code]
        names, encounters = (pa.concat_arrays(them) for them in (self.names, self.encounters))
        for first in range(0, len(places), _ASKED):
            some = places[first : first + _ASKED]
            mine = names.take(pa.array(some)).to_pylist()
            theirs = encounters.take(pa.array(some)).to_pylist()
            found = of_encounter(dict(zip(theirs, read[some].tolist(), strict=True)))
            mask[some] = [found.get(its, name) == name for its, name in zip(theirs, mine, strict=True)]
        return mask

    def _sites(self, column: pa.Array) -> npt.NDArray[np.intp]:
        """The number of each row's site, in order of appearance; -1 without a name."""
        encoded = pc.dictionary_encode(column)
        names = encoded.dictionary.to_pylist()
        place = [self.sites.setdefault(name, len(self.sites)) if name else -1 for name in names]
        codes = pc.fill_null(encoded.indices, len(place)).to_numpy(zero_copy_only=False)
        return np.asarray(np.array([*place, -1], dtype=np.intp)[codes])


_ASKED = 20_000


def _places(column: pa.Array, names: Sequence[str]) -> npt.NDArray[np.int8]:
    """The place of each text in ``names``, -1 for another."""
    found = pc.index_in(column, pa.array(names))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int8)


def _levels(column: pa.Array) -> npt.NDArray[np.int8]:
    """Small numbers from 1 on, 0 for another or none."""
    found = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return np.where((found > 0) & (found < _MOST_LEVELS), found, 0).astype(np.int8)


def _numbers(column: pa.Array, instead: pa.Array | None = None) -> npt.NDArray[np.int64]:
    """A number for each text, that of ``instead`` where there is none; without it 0."""
    texts = column.to_pylist()
    if instead is None:
        return np.fromiter((hash(text) if text else 0 for text in texts), np.int64, len(texts))
    others = instead.to_pylist()
    pairs = zip(texts, others, strict=True)
    # Beside the other its own kind, or a patient called as a prediction would be that prediction.
    return np.fromiter((hash(text or ("", other)) for text, other in pairs), np.int64, len(texts))


def _numbered(answers: Answers) -> Answers:
    # In order of appearance: the numbers differ from run to run, the bootstrap must not.
    patient, encounter = (pd.factorize(of)[0] for of in (answers.patient, answers.encounter))
    return replace(answers, patient=patient, encounter=np.where(answers.encounter == 0, -1, encounter))
