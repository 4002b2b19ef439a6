"""What monitoring proposes from the log is what ``respond`` then carries out from the mart."""

from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from data.home import Home
from data.log.append import Entry, LogWriter
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.schema import connect
from data.log.seal import load_keyring
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import load_key
from data.simulate import simulate
from data.source import Origin
from data.store import Slice, open_store
from models.calibration import sigmoid
from models.cohort import select
from monitoring import respond as proposing
from monitoring import window as watching
from training import recalibrate, respond

SITE = "tertiary-01"
JUNE = Period.between("2021-06", "2021-06")
TODAY = datetime(2021, 7, 5)  # noqa: DTZ001 wall clock


@pytest.fixture
def home(tmp_path):
    """A mart of two years, and a log in which nobody has been answered yet."""
    home = Home(tmp_path / "home")
    visits = simulate(visits=5_000, seed=6, first="2019-07", last="2021-06")
    with open_store(home.marts) as store:
        origin = Origin(load_id="own", source="own", use="care")
        store.load(MART, [visits], origin, key=load_key(home.path))
    return home


def answer(home, tiny, *, since="2020-06", used="answered"):
    """Every adult of the mart from ``since`` on is in the log, as version 1 would have answered."""
    period = Period.between(since, None)
    with open_store(home.marts, write=False) as store:
        cohort = select(tiny.spec, MART, store.read(MART, Slice(period=period)))
    margin = tiny.margin(tiny.features.matrix(cohort.rows), cohort.site)
    records, known = [], []
    for place, moment in enumerate(cohort.time.astype("datetime64[us]").tolist()):
        name = f"prediction-{place:05}"
        at = moment.replace(tzinfo=UTC)
        records.append(
            {
                "prediction_id": name,
                "model": tiny.spec.name,
                "version": "1",
                "at": at,
                "received_at": at,
                "status": "scored",
                "site": cohort.site[place],
                "patient": str(cohort.patient[place]),
                "margin": float(margin[place]),
                "risk": float(sigmoid(margin[place])),
                "used": used if sigmoid(margin[place]) >= tiny.spec.alert_at else "answered",
            }
        )
        said = int(cohort.outcome[place])
        known.append(OutcomeRow(outcome=said, observed_at=at, prediction_id=name))
    engine = connect(home.log)
    with LogWriter(engine, load_keyring(home.path)) as writer:
        writer.submit(Entry(predictions=tuple(records))).result()
    record_outcomes(engine, known, TODAY.replace(tzinfo=UTC))
    engine.dispose()


def proposed(home, tiny):
    engine = connect(home.log)
    window = watching.read(
        engine, tiny, "1", JUNE, keyring=load_keyring(home.path), as_of=TODAY.replace(tzinfo=UTC)
    )
    engine.dispose()
    (found,) = proposing.recalibration(window, tiny, {SITE})
    return found


def carried_out(home, tiny):
    """What ``respond`` learns for an alarm that June raised."""
    first, last = JUNE.days
    stretch = respond._stretch({"from": first, "to": last}, TODAY.date())
    which = Slice(period=stretch, as_of=TODAY)
    found, _, _ = recalibrate._measured(home, tiny, MART, SITE, which, 0)
    return asdict(found)


def test_of_the_same_patients_both_give_the_same_intercept(home, tiny):
    """But for the cross-validated figures: each numbers patients, and so parts them, its own way."""
    answer(home, tiny)
    said, done = proposed(home, tiny), carried_out(home, tiny)

    assert said["reason"] is None
    assert (said["n"], said["events"]) == (done["n"], done["events"])
    assert done["events"] > 50
    assert said["shift"] == pytest.approx(done["shift"], abs=1e-9)
    assert said["previous"] == done["previous"]
    assert said["before"] == pytest.approx(done["before"], abs=1e-6)
    assert said["after"] == pytest.approx(done["after"], abs=0.02)


def test_the_mart_knows_patients_from_before_the_release(home, tiny):
    answer(home, tiny, since="2021-01")
    said, done = proposed(home, tiny), carried_out(home, tiny)
    assert 0 < said["n"] < 0.7 * done["n"]


def test_the_mart_does_not_know_whose_card_was_shown(home, tiny):
    """The warned are left out of the proposal, and teach where it is carried out."""
    answer(home, tiny, used="card")
    said, done = proposed(home, tiny), carried_out(home, tiny)
    assert 0 < said["n"] < 0.9 * done["n"]
    assert said["events"] < 0.7 * done["events"]
