"""How soon each kind of drift is found and where it is put, and how many alarms quiet years raise.

One version is trained on three simulated years of a network. Years of the same network follow, each
from a seed of its own: answered, counted into windows and judged as ``monitor`` judges them, without
a log in between. A year of each kind of drift begins it in its seventh month, and is looked at every
month, and again every week. ``make bench`` keeps the figures in ``bench/watching.json``.

What is *found* is the first window that raises an alarm that ought to be raised for that drift; it is
*placed* where that alarm names the right column and site. Other alarms of the same window are listed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from data.contract import Rows, check
from data.home import Home
from data.marts.ed_visit import MART
from data.period import Period
from data.simulate import DRIFTS, simulate
from models import artifact, support
from models.artifact import Artifact
from monitoring import window
from monitoring.alarms import raised
from monitoring.answers import STATUS, USED, Answers
from monitoring.counting import Faults, completing
from monitoring.every import months
from monitoring.run import judge
from monitoring.window import Window

MODEL = "ed_admission"
NETWORK = 1
"""The seed of the training years, whose sites the later years keep."""
TRAINED, LIMITS = ("2017-01", "2019-12"), ("2018-12", "2019-06", "2019-12")
A_MONTH = 2500
YEAR = ("2020-01", "2020-12")
TURN = "2020-07"
OUT_OF_BAND = 1000
"""Seeds of the later years begin here."""

Place = tuple[str | None, str | None]


@dataclass(frozen=True)
class Expected:
    """Alarms that a drift ought to raise: of which kinds, at which (column, site); any where empty."""

    what: frozenset[str]
    places: frozenset[Place]


def _expected(what: str, *places: Place) -> Expected:
    return Expected(frozenset(what.split()), frozenset(places))


EXPECTED = {
    "new_site": _expected("input_drift", ("site", "county-05")),
    "fahrenheit": _expected("refusals", ("temperature", "county-02")),
    "half_pulse": _expected("input_drift", ("heart_rate", "county-01")),
    "missingness": _expected("input_drift", ("spo2", "county-03")),
    "silent_site": _expected("silence", (None, "county-04")),
    "prevalence": _expected("prediction_drift alert_rate", ("risk", None), (None, None)),
    "winter_surge": _expected(
        "input_drift", *((name, None) for name in ("temperature", "spo2", "reason_1", "age"))
    ),
    "admission_practice": _expected("calibration", (None, None)),
    "label_shift": _expected("slope discrimination", (None, None)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Year:
    """The answers of a year, and what stands beside those that were scored."""

    answers: Answers
    faults: Faults
    inputs: Rows
    contributions: npt.NDArray[np.float64]
    groups: Mapping[str, npt.NDArray[np.object_]]


def run(home: Path, *words: str) -> None:
    """Type a command."""
    print("$ caremodels", *words, file=sys.stderr, flush=True)
    environment = {**os.environ, "CAREMODELS_HOME": str(home)}
    command = [sys.executable, "-m", "caremodels", *words, "--json"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def prepare(home: Path) -> None:
    """Three years of the network, a version trained on them, and its promotion."""
    months = Period.between(*TRAINED)
    visits = A_MONTH * round((months.end - months.start).days / 30.44)
    first, last = TRAINED
    run(
        home, "mart", "simulate", "--visits", str(visits), "--seed", str(NETWORK),
        "--from", first, "--to", last,
    )  # fmt: skip
    train, tune, test = LIMITS
    words = ("--train-to", train, "--validate-to", tune, "--test-to", test, "--no-ablations")
    run(home, "train", MODEL, *words)
    run(home, "promote", MODEL, "--version", "1", "--by", "Bench", "--reason", "to be watched")


@cache
def released(home: Path) -> tuple[Artifact, dict[str, Any]]:
    """The version, and its figures at promotion."""
    folder = home / "releases" / MODEL / "1"
    return artifact.load(folder), json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def answered(loaded: Artifact, table: pa.Table) -> Year:
    """What the service would answer to ``table`` in order: refused, abstained or scored."""
    spec, n = loaded.spec, table.num_rows
    checked = check(loaded.mart.columns, table.select([c.name for c in loaded.mart.columns]))
    status = np.full(n, STATUS.index("refused"), dtype=np.int8)
    faults: dict[int, list[tuple[str, str]]] = {}
    for refusal in checked.refused:
        for place in refusal.positions.tolist():
            faults.setdefault(place, []).append((refusal.column, refusal.rule))
    places = np.flatnonzero(checked.kept)
    rows = dict(checked.rows)
    for criterion in spec.at_request(loaded.mart):
        met = criterion.met(loaded.mart[criterion.column], rows)
        status[places[~met]] = STATUS.index("abstained")
        for place in places[~met].tolist():
            faults.setdefault(place, []).append((criterion.column, "cohort"))
        places, rows = places[met], {name: values[met] for name, values in rows.items()}
    matrix = loaded.features.matrix(rows)
    named = np.array(table["site"].to_pylist(), dtype=object)
    scored = loaded.score_matrix(matrix, named[places])
    rules = support.broken(loaded, rows, matrix, scored.margin)
    withheld = support.reasons(loaded, rows, rules)
    held = np.zeros(len(places), dtype=bool)
    held[list(withheld)] = True
    status[places[held]] = STATUS.index("abstained")
    for rank, reasons in withheld.items():
        faults.setdefault(int(places[rank]), []).extend((one.field, one.rule) for one in reasons)
    status[places[~held]] = STATUS.index("scored")
    risk = np.full(n, np.nan)
    risk[places[~held]] = scored.risk[~held]
    sites = tuple(sorted(set(named)))
    answers = Answers(
        at=table["arrived_at"].to_numpy().astype("datetime64[s]"),
        site=np.searchsorted(sites, named.astype(str)).astype(np.intp),
        sites=sites,
        status=status,
        used=np.full(n, USED.index("answered"), dtype=np.int8),
        risk=risk,
        outcome=outcomes(loaded, table),
        mature=np.ones(n, dtype=bool),
        counts=status == STATUS.index("scored"),
        level=np.zeros(n, dtype=np.int8),
        outcome_level=np.zeros(n, dtype=np.int8),
        patient=pd.factorize(table["patient_id"].to_pandas())[0].astype(np.int64),
        encounter=np.arange(n),
        drawn=status == STATUS.index("scored"),
    )
    told = {"site_tier", "region", "race"} & set(spec.subgroups)
    return Year(
        answers=answers,
        faults=faults,
        inputs={name: values[~held] for name, values in rows.items()},
        contributions=scored.contributions[~held],
        groups={
            name: np.array(table[name].fill_null("(not recorded)").to_pylist(), dtype=object)[
                places[~held]
            ]
            for name in sorted(told)
        },
    )


def outcomes(loaded: Artifact, table: pa.Table) -> npt.NDArray[np.float64]:
    """As ``outcomes load`` joins them: of the model's cohort alone."""
    spec = loaded.spec
    names = {*spec.outcome.columns, *(criterion.column for criterion in spec.cohort)}
    columns = MART.select([MART.encounter, MART.time, *names])
    rows = check(columns, table.select([column.name for column in columns])).rows
    found = spec.outcome.of(MART, rows)
    for criterion in spec.cohort:
        found[~criterion.met(MART[criterion.column], rows)] = np.nan
    return found


def windows(loaded: Artifact, year: Year, periods: Sequence[Period]) -> Iterator[Window]:
    """The window of each period, with the answers before it as its past."""
    answers = year.answers
    scored = np.cumsum(answers.drawn) - 1
    for period in periods:
        start, end = np.datetime64(period.start, "s"), np.datetime64(period.end, "s")
        first, last = np.searchsorted(answers.at, [start, end])
        within = slice(first, last)
        ranks = scored[within][answers.drawn[within]]
        now, past = answers.take(within), answers.take(slice(first))
        past = replace(past, drawn=completing(now, past, list(loaded.reference.sites)))
        before = scored[:first][past.drawn]
        yield window.count(
            loaded,
            period,
            now,
            inputs={name: values[ranks] for name, values in year.inputs.items()},
            earlier={name: values[before] for name, values in year.inputs.items()},
            contributions=year.contributions[ranks],
            groups={name: values[ranks] for name, values in year.groups.items()},
            faults={place - first: told for place, told in year.faults.items() if first <= place < last},
            past=past,
            as_of=period.end,
        )


def weeks(whole: Period) -> list[Period]:
    """Each whole week, from the first day on."""
    count = (whole.end - whole.start).days // 7
    starts = [whole.start + timedelta(days=7 * week) for week in range(count)]
    return [Period(start, start + timedelta(days=7)) for start in starts]


def looked(
    home: Path, seed: int, drift: str | None, *, weekly: bool
) -> list[tuple[Period, list[dict[str, Any]]]]:
    """The alarms of each window of one year."""
    loaded, at_promotion = released(home)
    if weekly:
        watch = replace(loaded.spec.watch, looks=52)
        loaded = replace(loaded, spec=replace(loaded.spec, watch=watch))
    table = simulate(
        visits=12 * A_MONTH,
        seed=OUT_OF_BAND + seed,
        first=YEAR[0],
        last=YEAR[1],
        drift=drift,
        drift_from=TURN if drift else None,
        network=NETWORK,
    )
    year = answered(loaded, table)
    periods, found = (weeks if weekly else months)(Period.between(*YEAR)), []
    earlier: list[dict[str, Any]] = []
    for read in windows(loaded, year, periods):
        judged = judge(read, loaded, at_promotion=at_promotion, earlier=earlier)
        alarms = raised(judged.signals, loaded.spec)
        found.append((read.period, alarms))
        first, last = read.period.days
        columns = [
            {"column": row.column, "site": row.site, "drifted": row.drifted} for row in judged.findings
        ]
        earlier.append({"window": {"from": first, "to": last}, "columns": columns, "alarms": alarms})
    return found


def drifted(home: Path, kind: str, seed: int, *, weekly: bool) -> dict[str, Any]:
    """When a drift was found and where it was put, by the first window that raised what it ought to."""
    expected = EXPECTED[kind]
    turn = Period.between(TURN, TURN).start
    visits = simulate(
        visits=12 * A_MONTH, seed=OUT_OF_BAND + seed, first=YEAR[0], last=YEAR[1], drift=kind,
        drift_from=TURN, network=NETWORK,
    )["arrived_at"].to_numpy()  # fmt: skip
    before, rest = 0, Counter[str]()
    for period, alarms in looked(home, seed, kind, weekly=weekly):
        if period.end <= turn:
            before += len(alarms)
            continue
        own = [alarm for alarm in alarms if alarm["what"] in expected.what]
        rest.update(_where(alarm) for alarm in alarms if alarm not in own)
        if own:
            right = [a for a in own if (a["column"], a["site"]) in expected.places]
            since = np.datetime64(turn, "us"), np.datetime64(period.end, "us")
            dated = min((a["since"] for a in right if a["since"]), default=None)
            return {
                "seed": seed,
                "visits": int(((visits >= since[0]) & (visits < since[1])).sum()),
                "days": (period.end - turn).days,
                "placed": bool(right),
                "days_off": _days_off(dated, turn),
                "said": [_where(alarm) for alarm in own],
                "beside": sorted(rest),
                "false_before": before,
            }
    return {
        "seed": seed,
        "visits": None,
        "placed": False,
        "beside": sorted(rest),
        "false_before": before,
    }


def _days_off(dated: str | None, turn: datetime) -> int | None:
    return None if dated is None else (datetime.fromisoformat(dated) - turn).days


def _where(alarm: Mapping[str, Any]) -> str:
    words = (alarm["what"], alarm["column"], alarm["site"], alarm["group"])
    return ", ".join(word for word in words if word)


def quiet(home: Path, seed: int) -> list[dict[str, Any]]:
    """The alarms of a year in which nothing changed; one that stands for months counts once."""
    opened: dict[str, dict[str, Any]] = {}
    for period, alarms in looked(home, seed, None, weekly=False):
        for alarm in alarms:
            known = opened.setdefault(
                _where(alarm), {"seed": seed, "month": period.days[0], "message": alarm["message"]}
            )
            known["windows"] = known.get("windows", 0) + 1
    return [{"alarm": where, **told} for where, told in opened.items()]


def told(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One kind of drift over its seeds."""
    found = [row for row in rows if row["visits"] is not None]
    visits = sorted(row["visits"] for row in found)
    off = [abs(row["days_off"]) for row in found if row["days_off"] is not None]
    return {
        "drift": kind,
        "what": DRIFTS[kind],
        "years": len(rows),
        "found": len(found),
        "placed": sum(row["placed"] for row in rows),
        "visits": {"median": visits[len(visits) // 2], "most": visits[-1]} if visits else None,
        "days_off": {"median": sorted(off)[len(off) // 2], "most": max(off)} if off else None,
        "false_before": sum(row["false_before"] for row in rows),
        "rows": list(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.from_env().path / "watching")
    parser.add_argument("--years", type=int, default=100, help="quiet ones")
    parser.add_argument("--seeds", type=int, default=5, help="of each kind of drift, by month")
    parser.add_argument("--weekly", type=int, default=1, help="the same by week, which takes longer")
    parser.add_argument("--kinds", nargs="*", default=list(DRIFTS), choices=list(DRIFTS))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    home = options.home.resolve()
    if not (home / "releases").exists():
        prepare(home)
    figures: dict[str, Any] = {"model": MODEL, "visits_a_month": A_MONTH, "looks_a_year": 12}
    bench = Home.from_env().bench
    bench.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for name, weekly, seeds in (("monthly", False, options.seeds), ("weekly", True, options.weekly)):
            jobs = {
                kind: [pool.submit(drifted, home, kind, seed, weekly=weekly) for seed in range(seeds)]
                for kind in options.kinds
            }
            figures[name] = [told(kind, [job.result() for job in of]) for kind, of in jobs.items()]
            for row in figures[name]:
                print(
                    name,
                    *(f"{key} {row[key]}" for key in ("drift", "found", "placed", "visits", "days_off")),
                )
        alarms = [
            alarm
            for found in pool.map(quiet, [home] * options.years, range(100, 100 + options.years))
            for alarm in found
        ]
    figures["quiet"] = {"years": options.years, "false_alarms": len(alarms), "alarms": alarms}
    print(f"{len(alarms)} false alarms in {options.years} quiet years")
    (bench / "watching.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
