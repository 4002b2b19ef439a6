"""How often the truth lies where it was foreseen to, and how soon and how rarely a bet alarms.

**Simulated**: windows after a year of months, of which the estimate knows the outcomes: calibrated,
miscalibrated, with sicker patients than before, with the patients of another site, with months that
differ, with twenty rows a patient. **Real**: the visits of 2018 to 2021, month by month, answered by a
version trained to 2017; ``watched.py`` makes their home and comes first. **Bets**: years at the very
bound of what is tolerated, and the outcomes until a change is found. Figures go to
``bench/estimates.json``, and no row does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from data.home import Home
from data.log import read as log
from data.log.schema import connect
from models import catalog
from models.calibration import sigmoid
from models.metrics import design_effect
from models.spec import ModelSpec
from monitoring import answers as reading
from monitoring import sequential
from monitoring.answers import Answers
from monitoring.estimate import estimate
from monitoring.foreseen import MEASURES, measured

MODEL = "ed_admission"
FORESEEN = tuple(name for name in MEASURES if name != "alerts_per_100")  # that is known at once
WINDOWS = 200
MONTHS, MONTHLY, VISITS = 12, 700, 900
SITES = ("a", "b", "c", "d")
PREVIOUS = 12
YEARS, LOOKS = 1000, 12
STREAMS = 32
"""Bets of a year on calibration: fifteen sites and all together, on both sides."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def made(
    rng: np.random.Generator,
    n: int,
    *,
    day: str,
    mean: float = -1.5,
    line: tuple[float, float] = (0.0, 1.0),
    sites: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
    of_site: Floats | None = None,
    hours: int = 1,
) -> Answers:
    """Answers with outcomes; ``line`` is the true one of log-odds, ``of_site`` what each site adds."""
    people = n // hours
    margin = rng.normal(mean, 1.2, people)
    site = rng.choice(len(SITES), people, p=sites)
    truth = sigmoid(line[0] + line[1] * margin + (0 if of_site is None else of_site[site]))
    outcome = (rng.random(people) < truth).astype(float)
    n = people * hours
    flag = np.ones(n, dtype=bool)
    return Answers(
        at=np.full(n, np.datetime64(day, "s")),
        site=np.repeat(site, hours),
        sites=SITES,
        status=np.zeros(n, dtype=np.int8),
        used=np.ones(n, dtype=np.int8),
        risk=np.repeat(sigmoid(margin), hours),
        outcome=np.repeat(outcome, hours),
        mature=flag,
        counts=flag,
        level=np.zeros(n, dtype=np.int8),
        outcome_level=np.zeros(n, dtype=np.int8),
        patient=np.repeat(np.arange(people), hours),
        encounter=np.repeat(np.arange(people), hours),
        drawn=~flag,
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """One after the other; patients of different parts are different people."""
    first = parts[0]
    start = np.cumsum([0, *(len(part) for part in parts)])
    apart = {"patient", "encounter"}
    arrays: dict[str, Any] = {
        name: np.concatenate(
            [getattr(part, name) + at * (name in apart) for part, at in zip(parts, start, strict=False)]
        )
        for name in vars(first)
        if name not in ("sites", "at")
    }
    return replace(first, **arrays, at=np.concatenate([part.at for part in parts]))


def scenario(name: str, rng: np.random.Generator) -> tuple[Answers, Answers]:
    """The past year and a window after it."""
    own = rng.normal(0, 0.3, len(SITES))
    before: dict[str, Any] = {}
    now: dict[str, Any] = {}
    level = np.zeros(MONTHS + 1)
    if name == "miscalibrated":
        before = now = {"line": (0.4, 0.85)}
    elif name == "sicker patients":
        before, now = {"line": (0.2, 0.9)}, {"line": (0.2, 0.9), "mean": -0.7}
    elif name == "another site":
        before = {"of_site": own, "sites": (0.4, 0.3, 0.25, 0.05)}
        now = {"of_site": own, "sites": (0.05, 0.05, 0.2, 0.7)}
    elif name == "a new site":
        before = {"of_site": own, "sites": (0.4, 0.3, 0.3, 0.0)}
        now = {"of_site": own, "sites": (0.2, 0.2, 0.1, 0.5)}
    elif name == "months that differ":
        level = rng.normal(0, 0.2, MONTHS + 1)
    elif name == "twenty rows a patient":
        before = now = {"hours": 20}
    size = 20 if name == "twenty rows a patient" else 1
    parts = [
        made(
            rng,
            (VISITS if month == MONTHS else MONTHLY) * size // (4 if size > 1 else 1),
            day=f"{2025 + month // 12}-{month % 12 + 1:02}-10",
            **_moved(now if month == MONTHS else before, float(level[month])),
        )
        for month in range(MONTHS + 1)
    ]
    return joined(parts[:-1]), parts[-1]


def _moved(given: dict[str, Any], level: float) -> dict[str, Any]:
    line = given.get("line", (0.0, 1.0))
    return given | {"line": (line[0] + level, line[1])}


SCENARIOS = (
    "calibrated",
    "miscalibrated",
    "sicker patients",
    "another site",
    "a new site",
    "months that differ",
    "twenty rows a patient",
)


def within(
    now: Answers, past: Answers, spec: ModelSpec, then: dict[str, Any] | None = None
) -> dict[str, bool]:
    """Whether each measure of the window's known outcomes lay where it was foreseen without them."""
    known = now.take(now.labelled)
    order = np.argsort(known.risk, kind="stable")
    truth = measured(
        known.risk[order],
        np.ones(len(known)),
        known.outcome[order][None, :],
        threshold=spec.alert_at,
    )
    blind = replace(now, outcome=np.full(len(now), np.nan))
    found = estimate(blind, past, spec, then)
    return {
        name: bool(found[name]["low"] - 1e-9 <= truth[name][0] <= found[name]["high"] + 1e-9)
        for name in FORESEEN
    }


def share(rows: Sequence[dict[str, bool]]) -> dict[str, float]:
    """Of each measure the share of windows in which the truth lay within."""
    return {name: round(float(np.mean([row[name] for row in rows])), 3) for name in FORESEEN}


def simulated(spec: ModelSpec) -> dict[str, dict[str, float]]:
    """Coverage of each scenario."""
    found = {}
    for place, name in enumerate(SCENARIOS):
        rng = np.random.default_rng(place)
        rows = []
        for _ in range(WINDOWS):
            past, now = scenario(name, rng)
            rows.append(within(now, past, spec))
        found[name] = share(rows)
    return found


def real(home: Path) -> dict[str, Any]:
    """Coverage over the months of 2018 to 2021, all and by year, and the months that lay outside."""
    folder = home / "releases" / MODEL / "1"
    then = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    spec = catalog.load(MODEL)
    every = _answers(home, spec)
    rows: dict[str, dict[str, bool]] = {}
    sizes = []
    for place in range(48):
        now = every.between(_month(place), _month(place + 1))
        past = every.between(_month(max(0, place - PREVIOUS)), _month(place))
        rows[f"{_month(place):%Y-%m}"] = within(now, past, spec, then)
        sizes.append(int(now.labelled.sum()))
    years = sorted({month[:4] for month in rows})
    return {
        "windows": len(rows),
        "median_outcomes": float(np.median(sizes)),
        "covered": share(list(rows.values())),
        "by_year": {
            year: share([row for month, row in rows.items() if month[:4] == year]) for year in years
        },
        "outside": {name: [month for month, row in rows.items() if not row[name]] for name in FORESEEN},
    }


def _month(place: int) -> datetime:
    return datetime(2018 + place // 12, 1 + place % 12, 1)  # noqa: DTZ001 the log's own clock


def _answers(home: Path, spec: ModelSpec) -> Answers:
    engine = connect(Home(home).log)
    try:
        with log.moment(engine) as connection:
            return reading.read(
                connection,
                spec,
                version="1",
                pointer="champion",
                start=_month(0),
                end=_month(48),
                as_of=datetime(9999, 1, 1),  # noqa: DTZ001
                zone=ZoneInfo("UTC"),
            ).answers
    finally:
        engine.dispose()


def bets(spec: ModelSpec) -> dict[str, Any]:
    """False alarms a year at the bound itself; outcomes from a change until it is found."""
    rng = np.random.default_rng(0)
    low, high = spec.limits.oe
    limit = float(np.log10(STREAMS / spec.watch.alpha))
    lenient = float(np.log10(1 / 0.05))
    years = {f"{bound:g}": _years(rng, bound, limit=lenient) for bound in (low, high)}
    inside = {
        f"{oe:g}": _years(rng, oe, limit=limit, bound=low if oe < 1 else high) for oe in (0.85, 1.0, 1.2)
    }
    return {
        "promised": 0.05,
        "at_the_bound": years,
        "within_the_bounds_at_the_limit_of_the_spec": inside,
        "later_years_at_the_bound": {
            f"{bound:g}": _years(rng, bound, limit=lenient, looks=48, years=400) for bound in (low, high)
        },
        "hours_of_patients_at_the_bound": {
            f"{bound:g}": _years(rng, bound, limit=lenient, years=200, hours=20) for bound in (low, high)
        },
        "outcomes_until_found": {
            f"{oe:g}": _found(rng, oe, limit=limit, bound=low if oe < 1 else high)
            for oe in (0.4, 0.5, 0.6, 1.6, 2.0)
        },
    }


def _look(
    rng: np.random.Generator, visits: int, oe: float, *, hours: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Outcome, risk and patient of a window; every second of ten has the outcome or so."""
    people = visits // hours
    risk = rng.beta(1.2, 5, people)
    outcome = (rng.random(people) < np.minimum(risk * oe, 1)).astype(float)
    return np.repeat(outcome, hours), np.repeat(risk, hours), np.repeat(rng.random(people), hours)


def _capital(outcome: Floats, risk: Floats, bound: float) -> Floats:
    return sequential.capital(outcome, np.minimum(risk * bound, 1), more=bound > 1)


def _years(
    rng: np.random.Generator,
    oe: float,
    *,
    limit: float,
    bound: float | None = None,
    looks: int = LOOKS,
    years: int = YEARS,
    hours: int = 1,
) -> float:
    """Share of the last of some years of looks in which a bet on one side reached ``limit``."""
    bound = oe if bound is None else bound
    alarmed = 0
    for _ in range(years):
        seen: list[Floats] = []
        rows: list[tuple[Floats, Floats, Floats]] = []
        for look in range(looks):
            one = _look(rng, 100 * hours, oe, hours=hours)
            rows = [*rows, one][-LOOKS:]
            seen = [*seen, _capital(one[0], one[1], bound)][-LOOKS:]
            spread = 1.0
            if hours > 1:
                spread = design_effect(*(np.concatenate(part) for part in zip(*rows, strict=True)))
            found = sequential.evidence(seen, looks=LOOKS, spread=spread).value
            if look >= looks - LOOKS and found >= limit:
                alarmed += 1
                break
    return alarmed / years


def _found(
    rng: np.random.Generator, oe: float, *, limit: float, bound: float, years: int = 200
) -> dict[str, float | None]:
    """Outcomes, of which a sixth are events or so, from a change after five quiet months of 500."""
    needed = []
    for _ in range(years):
        seen = [_capital(*_look(rng, 500, 1.0)[:2], bound) for _ in range(5)]
        for block in range(1, 41):
            seen = seen if block % 5 != 1 else [*seen, np.zeros_like(seen[0])]
            seen[-1] = seen[-1] + _capital(*_look(rng, 100, oe)[:2], bound)
            if sequential.evidence(seen[-LOOKS:], looks=LOOKS).value >= limit:
                needed.append(100.0 * block)
                break
        else:
            needed.append(float("inf"))
    found = np.quantile(needed, [0.5, 0.9], method="higher")
    named = zip(("median", "nine_of_ten"), found.tolist(), strict=True)
    return {name: value if np.isfinite(value) else None for name, value in named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.from_env().path / "watched")
    home = parser.parse_args().home.resolve()
    spec = catalog.load(MODEL)
    figures: dict[str, Any] = {
        "stated": 0.95,
        "windows": WINDOWS,
        "simulated": simulated(spec),
        "bets": bets(spec),
    }
    if (home / "log.db").exists():
        figures["real"] = real(home)
    else:
        print(f"no real visits: {home} has no log; benchmarks/watched.py makes it", file=sys.stderr)
    bench = Home.from_env().bench
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "estimates.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
