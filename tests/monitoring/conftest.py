"""A tiny real model on rows drawn from a seed, a log that holds its answers, and a window's page."""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from data.home import Home
from data.log.append import Entry, LogWriter
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.schema import connect
from data.log.seal import load_keyring
from data.marts.ed_visit import MART
from data.period import Period
from models import conformal, novelty
from models.artifact import Artifact
from models.calibration import fit as fit_calibration
from models.calibration import sigmoid
from models.catalog.ed_admission import SPEC
from models.change_control import Plan
from models.feature import show_cell
from models.features import FeatureMap
from models.linear import Logistic
from models.manifest import FORMAT, Manifest, Provenance
from models.reference import build
from monitoring import alarms, page, respond, states, window
from monitoring.answers import USED, Answers
from monitoring.run import Monitored, judge
from monitoring.window import Counts, Window
from training import fit
from training.pair import Pair

INPUTS = ("age", "sex", "ambulance", "temperature", "heart_rate", "pain")
SITES = ("north", "south")
MAY = Period.between("2026-05", "2026-05")
START = datetime(2026, 5, 1, tzinfo=UTC)


class Visits:
    """Rows of the six inputs, the risk that they truly carry and their outcome."""

    def __init__(self, n, seed):
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.site = np.array(SITES, dtype=object)[(rng.random(n) < 0.3).astype(int)]
        self.rows = {
            "age": np.round(rng.uniform(18, 95, n)),
            "sex": rng.integers(0, 2, n).astype(np.int16),
            "ambulance": (rng.random(n) < 0.2).astype(float),
            "temperature": np.round(rng.normal(37, 0.6, n), 1),
            "heart_rate": np.round(rng.normal(85, 15, n)),
            "pain": rng.integers(0, 11, n).astype(float),
        }
        self.rows["pain"][rng.random(n) < 0.3] = np.nan
        truth = -4 + 0.03 * self.rows["age"] + 1.2 * self.rows["ambulance"]
        self.truth = sigmoid(truth + 0.03 * (self.rows["heart_rate"] - 85))
        self.outcome = (rng.random(n) < self.truth).astype(float)


@pytest.fixture(scope="session")
def loaded():
    spec = replace(
        SPEC, features=INPUTS, monotone={}, boosting=replace(SPEC.boosting, max_depth=2, rounds=60)
    )
    features = FeatureMap.of(MART, INPUTS)
    train, tune = Visits(6000, 1), Visits(4000, 2)
    pairs = [
        Pair(
            matrix=features.matrix(part.rows),
            outcome=part.outcome,
            target=part.outcome,
            path=Path("nowhere"),
        )
        for part in (train, tune)
    ]
    booster = fit.boosted(*pairs, settings=spec.boosting, seed=0, threads=1)
    mart = MART.only(INPUTS)
    margin = fit.margins(booster, pairs[1])
    calibration = fit_calibration(margin, tune.outcome)
    risk = sigmoid(calibration.log_odds(margin))
    return Artifact(
        manifest=Manifest(
            format=FORMAT, model=spec.name, provenance=Provenance(use="demonstration"), libraries={}
        ),
        spec=spec,
        mart=mart,
        booster=booster,
        calibration=calibration,
        logistic=Logistic(medians=(), scales=(), indicators=(), coefficients=(), intercept=0.0),
        comparators=(),
        conformal=conformal.fit(
            np.column_stack([1 - risk, risk]), tune.outcome.astype(np.intp), groups={}
        ),
        novelty=novelty.fit(mart.columns, train.rows),
        reference=build(
            train.rows,
            mart.columns,
            risk,
            site=train.site,
            risk_site=tune.site,
        ),
    )


def answers(risk, outcome=None, *, at=None, site=None, sites=SITES, used="answered", **given):
    """Scored answers of May, each of a patient of its own, all known and counted."""
    n = len(risk)
    at = np.datetime64("2026-05-01") + np.arange(n) * 31 // max(n, 1) if at is None else at
    place = np.zeros(n, dtype=np.intp) if site is None else np.asarray(site, dtype=np.intp)
    arrays = {
        "at": np.asarray(at, dtype="datetime64[s]"),
        "site": place,
        "status": np.zeros(n, dtype=np.int8),
        "used": np.full(n, USED.index(used), dtype=np.int8),
        "risk": np.asarray(risk, dtype=float),
        "outcome": np.full(n, np.nan) if outcome is None else np.asarray(outcome, dtype=float),
        "mature": np.ones(n, dtype=bool),
        "counts": np.ones(n, dtype=bool),
        "level": np.zeros(n, dtype=np.int8),
        "outcome_level": np.zeros(n, dtype=np.int8),
        "patient": np.arange(n),
        "encounter": np.arange(n),
        "drawn": np.zeros(n, dtype=bool),
    }
    return Answers(sites=tuple(sites), **arrays | given)


def windowed(now, past=None, **given):
    """The window of May with those answers, nothing of their inputs known."""
    counts = Counts(reference=None)
    past = Answers.none(now.sites) if past is None else past
    return Window(period=MAY, whole=counts, sites={}, answers=now, past=past, **given)


class Log:
    """Writes what the service would have."""

    def __init__(self, home, loaded):
        self.home, self.loaded = home, loaded
        self.engine = connect(home.log)
        self.keyring = load_keyring(home.path)
        self.ids = (f"prediction-{number:07}" for number in itertools.count())

    def add(self, visits, *, outcomes=False, refuse=None, version="3", repeat=1, times=None):
        """``refuse``: (mask, field, rule) of rows that the check did not let through."""
        scored = self.loaded.score(visits.rows)
        margin, risk = scored.margin, scored.risk
        names = [feature.name for feature in self.loaded.features.features]
        refused = np.zeros(len(risk), dtype=bool) if refuse is None else refuse[0]
        records, known = [], []
        for i in range(len(risk)):
            at = START + timedelta(minutes=4 * i) if times is None else times[i].item()
            record = self.record(
                at=at, site=visits.site[i], version=version, patient=f"canary-patient-{i // repeat}"
            )
            if refused[i]:
                record |= {"status": "refused", "reasons": [{"field": refuse[1], "reason": refuse[2]}]}
                record["reasons"] = msgspec.json.encode(record["reasons"]).decode()
            else:
                cells = {
                    column.name: show_cell(column, visits.rows[column.name][i])
                    for column in self.loaded.mart.columns
                }
                said = dict(zip(names, scored.contributions[i].tolist(), strict=True))
                record |= {"risk": float(risk[i]), "margin": float(margin[i])}
                record |= {"base_value": float(scored.base_value[i])}
                record["contributions"] = msgspec.json.encode(said).decode()
                record["inputs"] = msgspec.json.encode(cells).decode()
                known.append(
                    OutcomeRow(
                        outcome=int(visits.outcome[i]),
                        observed_at=at,
                        prediction_id=record["prediction_id"],
                    )
                )
            records.append(record)
        self.write(records)
        if outcomes:
            record_outcomes(self.engine, known, START)

    def record(self, **given):
        return {
            "prediction_id": next(self.ids),
            "model": self.loaded.spec.name,
            "version": "3",
            "at": START,
            "received_at": START,
            "status": "scored",
            **given,
        }

    def write(self, records):
        with LogWriter(self.engine, self.keyring) as writer:
            writer.submit(Entry(predictions=tuple(records))).result()


@pytest.fixture
def log(tmp_path, monkeypatch, loaded):
    monkeypatch.delenv("CAREMODELS_LOG", raising=False)
    made = Log(Home(tmp_path), loaded)
    yield made
    made.engine.dispose()


@pytest.fixture
def visits():
    return Visits


@pytest.fixture
def may():
    return MAY


@pytest.fixture
def make():
    """How to make answers, and a window of them, from arrays."""
    return SimpleNamespace(answers=answers, window=windowed)


PROMOTED = {
    "n": 4000,
    "events": 576,  # as many as the rows of these tests have
    "auroc": {"value": 0.7, "low": 0.6, "high": 0.8},
    "brier": 0.12,
    "calibration": {"intercept": 0.0, "slope": 1.0, "oe": 1.0, "ici": 0.01},
    "intervals": {"oe": {"low": 0.9, "high": 1.1}},
}
VOID = {"meta", "br", "line", "rect", "circle", "path", "polygon", "polyline"}
INLINE = {"b", "span", "code", "kbd", "a"}


class Read(HTMLParser):
    """A page taken apart: its text, the cells of its tables' rows, and what is nested wrongly."""

    def __init__(self, html):
        super().__init__()
        self.html, self.open, self.wrong, self.words = html, [], [], []
        self.tags, self.tables, self.widths, self.tall = set(), [], [], 0
        self.feed(html)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag, given):
        attributes = dict(given)
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
            self.widths.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            # Cells of the row before that reach into this one.
            self.widths[-1].append(self.tall)
            self.tall = 0
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.widths[-1][-1] += int(attributes.get("colspan", 1))
            self.tall += "rowspan" in attributes
        if tag not in INLINE:
            self.words.append(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data):
        if "style" in self.open or "title" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def rows(self, *start):
        """Cells of every row that begins with those."""
        found = [[" ".join(cell.split()) for cell in row] for table in self.tables for row in table]
        return [row for row in found if tuple(row[: len(start)]) == start]

    def sound(self):
        """What holds of a page in every state."""
        assert self.wrong == []
        assert all(len(set(widths)) == 1 for widths in self.widths)
        assert "script" not in self.tags
        assert "http" not in self.html
        assert not re.search(r"\b(None|nan|NaN|inf|null|Undefined)\b|\{\{|\}\}", self.text)
        return self


@pytest.fixture
def promoted():
    """Figures at promotion."""
    return PROMOTED


@pytest.fixture
def told(loaded, visits, make, may):
    """A page of May and what it is made of: ``(Read, Monitored as a dict)``.

    ``monthly`` rows in each of ``months``; by how much ``moved`` the log-odds of the outcome are and
    ``faster`` the hearts of May; ``card``: half of the answers were shown; ``edit`` of what was found;
    ``task``: what the spec has besides.
    """

    def told(
        monthly=400, months=("2026-05",), *, moved=0.0, faster=0, card=False, known=True, names=None,
        groups=None, at_promotion=PROMOTED, pointer="champion", edit=lambda found: found, links=(),
        **task,
    ):  # fmt: skip
        made = visits(monthly * len(months), 100)
        month = np.arange(len(made.site)) // max(monthly, 1)
        now = month == len(months) - 1
        made.rows["heart_rate"][now] += faster
        scored = loaded.score(made.rows)
        truth = np.log(made.truth) - np.log1p(-made.truth) + moved
        outcome = (np.random.default_rng(7).random(len(truth)) < sigmoid(truth)).astype(float)
        first = np.array([f"{name}-01" for name in months], dtype="datetime64[D]")[month]
        every = make.answers(
            scored.risk,
            outcome if known else None,
            at=first
            + np.arange(len(month)) % max(monthly, 1) * np.where(now, 31, 28) // max(monthly, 1),
            site=(made.site == "south").astype(int),
            sites=names or ("north", "south"),
            drawn=now,
        )
        if card:
            shown = np.where(np.arange(len(month)) % 2, 1, 2)  # every other as a card
            every = replace(every, used=shown.astype(np.int8))
        read = window.count(
            loaded,
            may,
            every.take(now),
            inputs={name: values[now] for name, values in made.rows.items()},
            contributions=scored.contributions[now],
            groups=groups and {name: levels(monthly) for name, levels in groups.items()},
            past=every.take(~now),
        )
        judged = judge(read, loaded, at_promotion=at_promotion)
        found = states.unrecorded(alarms.raised(judged.signals, loaded.spec))
        found = [{**one, "number": 10 + place} for place, one in enumerate(found)]
        enough = read.whole.rows >= 100
        lacking = {"state": None, "what": "insufficient", "message": f"{read.whole.rows} predictions"}
        monitored = Monitored(
            model="ed_admission",
            version="3",
            pointer=pointer,
            window={"from": "2026-05-01", "to": "2026-05-31"},
            zone="UTC",
            as_of="2026-06-02T04:05:06Z",
            n=read.whole.rows,
            outcomes=read.whole.outcomes,
            share=1.0,
            verdict="alarm" if found else "quiet" if enough else "insufficient",
            columns=tuple(judged.findings),
            performance=judged.measured,
            estimate=judged.foreseen,
            trend=tuple(judged.trend),
            sequential=tuple(judged.bets),
            reasons=tuple(judged.reasons),
            alarms=tuple(found) if found or enough else (lacking,),
            proposed=tuple(respond.proposals(read, loaded, found, Plan())),
            report="index.html",
        )
        result = edit(asdict(monitored))
        of = replace(loaded, spec=replace(loaded.spec, **task))
        made = page.page(result, of, judged.cells, window.quality(read), links=links)
        return Read(made.decode()), result

    return told
