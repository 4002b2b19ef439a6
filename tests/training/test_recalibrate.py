"""A new site gets its own intercept from a few hundred outcomes, and an honest word on what it does."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import insert

from data import marts
from data.contract import sample
from data.errors import IntegrityError, NotEnoughDataError, UsageError
from data.home import Home
from data.log.schema import connect, prediction, writing
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import keyed_hash, load_key
from data.simulate import simulate
from data.source import Origin
from data.store import EVERYTHING, Slice, open_store
from models import artifact, catalog, ledger, metrics, registry, release, sites
from models.calibration import Calibration, sigmoid
from training import promotion, recalibrate

KEY = b"0123456789abcdef"
MODEL = "ed_admission"
SITE = "county-new"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SIGNED = {"by": "Dr Chen", "reason": "a new hospital"}


def with_cells(table, **columns):
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(place).type))
    return table


def new_site(visits=900, more=0.45, seed=8, first="2021-03", last="2021-09"):
    """Visits to one hospital that admits a share ``more`` of those whom others would send home."""
    table = simulate(visits=visits, seed=seed, first=first, last=last)
    rng = np.random.default_rng(seed)
    disposition = [
        "admitted" if name == "discharged" and rng.random() < more else name
        for name in table["disposition"].to_pylist()
    ]
    names = [f"{SITE}-{seed}-{i}" for i in range(len(table))]
    return with_cells(table, site=[SITE] * len(table), disposition=disposition, visit_id=names)


def load(home, table, name="new", mart=MART, use="care"):
    with open_store(home.marts) as store:
        store.load(mart, [table], Origin(load_id=name, source="own", use=use), key=KEY)


def fitted_on(stock, **changes):
    return replace(stock.fitted, **changes)


@pytest.fixture
def mart_home(stock, tmp_path):
    """A copy of the mart, with 900 visits to a hospital that no version has seen."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    (home.path / "marts.duckdb").write_bytes((stock.home.path / "marts.duckdb").read_bytes())
    load(home, new_site())
    return home


def rows(home, fitted, site, which=EVERYTHING, mart=MART):
    with recalibrate._rows(home, fitted, mart, site, which) as (cohort, left_out, origins):
        return cohort, left_out.learned_from, [origin.load_id for origin in origins]


def test_a_new_hospital_has_only_fresh_rows(mart_home, stock):
    cohort, left_out, origins = rows(mart_home, stock.fitted, SITE)
    assert set(cohort.site) == {SITE}
    assert 500 < len(cohort) <= 900
    assert (left_out, origins) == (0, ["new"])


def test_rows_that_the_version_learned_from_are_left_out(mart_home, stock):
    """Those of its own loads up to the end of its tuning; an old visit that came later is fresh."""
    load(
        mart_home,
        with_cells(new_site(seed=9, first="2019-01", last="2019-06"), site=["tertiary-01"] * 900),
        name="late",
    )
    cohort, left_out, origins = rows(mart_home, stock.fitted, "tertiary-01")
    old = cohort.time < np.datetime64("2020-07-01")
    assert origins == ["late", "one"]
    assert left_out > 300
    assert old.sum() == (cohort.time < np.datetime64("2019-07-01")).sum() > 500
    assert (~old).sum() > 100


def test_who_was_warned_of_teaches_no_intercept(mart_home, stock):
    """A warning changes the outcome that it warned of. Hashes of mart and log are made with one key."""
    everybody, _, _ = rows(mart_home, stock.fitted, SITE)
    assert not (mart_home.path / "log.db").exists()
    cards = [keyed_hash(KEY, f"{SITE}-8-{i}", kind="encounter") for i in range(300)]
    plain = {"model": MODEL, "version": "0", "at": NOON, "received_at": NOON, "status": "scored"}
    elsewhere = {"model": MODEL, "site": "clinic-01"}
    engine = connect(mart_home.log)
    with writing(engine) as connection:
        for place, encounter in enumerate(cards):
            mine = {"site": SITE, "used": "card" if place < 200 else "answered"}
            row = {"prediction_id": f"p{place}", "encounter": encounter, **plain, **mine}
            connection.execute(insert(prediction), row)
        for place, changes in enumerate([elsewhere, {"model": "ed_triage", "site": SITE}]):
            row = {"prediction_id": f"q{place}", "encounter": cards[250], "used": "card", **plain}
            connection.execute(insert(prediction), {**row, **changes})
    engine.dispose()
    with recalibrate._rows(mart_home, stock.fitted, MART, SITE, EVERYTHING) as (cohort, left_out, _):
        assert (left_out.shown, left_out.learned_from) == (200, 0)
        assert len(everybody) - 200 <= len(cohort) < len(everybody) - 100  # of adults and known outcomes


def test_a_period_bounds_the_rows(mart_home, stock):
    which = Slice(period=Period.between("2021-05", "2021-06"))
    cohort, _, _ = rows(mart_home, stock.fitted, SITE, which)
    months = {str(month) for month in cohort.time.astype("datetime64[M]")}
    assert months == {"2021-05", "2021-06"}


@pytest.fixture(scope="module")
def undated(stock):
    """A version of a mart without dates, split by patient, whose site is one of several."""
    return fitted_on(
        stock,
        spec=catalog.load("readmission_30d"),
        manifest=replace(
            stock.fitted.manifest,
            provenance=replace(stock.fitted.manifest.provenance, periods={}, load_ids=("stays",)),
        ),
    )


@pytest.fixture
def stays(tmp_path):
    """Stays without dates, of 400 patients at two sites."""
    mart = marts.load("inpatient_stay")
    table = sample(mart, 2_000, seed=4)
    rng = np.random.default_rng(4)
    table = with_cells(
        table,
        **{
            mart.time: [None] * 2_000,
            mart.patient: [f"p{i}" for i in rng.integers(0, 400, 2_000)],
            mart.site: [f"s{i}" for i in rng.integers(0, 2, 2_000)],
        },
    )
    home = Home(tmp_path / "stays")
    home.path.mkdir()
    load(home, table, "stays", mart)
    return home


def test_without_dates_the_patients_who_taught_are_left_out(stays, undated):
    mart = marts.load("inpatient_stay")
    found = {site: rows(stays, undated, site, mart=mart) for site in ("s0", "s1")}
    taught = recalibrate.rows.taught(stays, undated, mart=mart)
    assert len(taught)
    for cohort, left_out, _ in found.values():
        assert set(cohort.site) < {"s0", "s1"}
        assert not np.isin(cohort.patient, taught).any()
        assert 0.1 < len(cohort) / (len(cohort) + left_out) < 0.3  # a fifth of the patients


def test_without_dates_a_period_is_a_usage_error(stays, undated):
    mart = marts.load("inpatient_stay")
    with pytest.raises(UsageError, match="ask for no period"):
        rows(stays, undated, "s0", Slice(period=Period.between("2021-01", None)), mart=mart)


def test_terms_of_the_rows_bind_the_version(stock):
    origin = Origin(load_id="x", source="s", use="demonstration", terms="No care.", attribution="S.")
    new = recalibrate._with(stock.fitted, SITE, 0.4, [origin])
    provenance = new.manifest.provenance
    assert (provenance.use, provenance.terms, provenance.attribution) == (
        "demonstration",
        ("No care.",),
        ("S.",),
    )
    assert provenance.fingerprint == stock.fitted.manifest.provenance.fingerprint
    assert new.calibration.sites[SITE] == 0.4


def test_an_intercept_is_measured_beside_the_overall_line_whatever_stood_there(mart_home, stock):
    cohort, _, _ = rows(mart_home, stock.fitted, SITE)
    plain = fitted_on(stock, calibration=Calibration())
    moved = fitted_on(stock, calibration=Calibration(sites={SITE: 0.7, "other": 2.0}))
    first, second = (recalibrate.estimate(fitted, cohort, SITE) for fitted in (plain, moved))
    assert (first.shift, first.after) == (second.shift, second.after)
    assert (first.previous, second.previous) == (0.0, 0.7)
    assert first.before.intercept == pytest.approx(second.before.intercept + 0.7)


def test_a_version_that_saw_its_sites_differ_shrinks_by_what_it_saw(mart_home, stock):
    cohort, _, _ = rows(mart_home, stock.fitted, SITE)
    shifts = [
        recalibrate.estimate(
            fitted_on(stock, calibration=Calibration(spread=spread)), cohort, SITE
        ).shift
        for spread in (0.05, 0.0, 2.0)
    ]
    own = sites.intercept(
        fitted_on(stock, calibration=Calibration()).margin(
            stock.fitted.features.matrix(cohort.rows), cohort.site
        ),
        cohort.outcome,
    )
    assert 0 < shifts[0] < shifts[1] < shifts[2] < own.value
    assert shifts[1] == pytest.approx(sites.shrunk(own, sites.SPREAD))


@pytest.fixture
def home(own):
    load(own, new_site())
    return own


@pytest.mark.slow
def test_a_new_version_is_right_at_the_site_and_the_same_elsewhere(home, cohort):
    done = recalibrate.recalibrate(home, MODEL, site=SITE, version="1", **SIGNED)

    assert (done.version, done.from_version, done.entry, done.mlflow) == ("5", "1", 1, None)
    assert done.before.oe > 1.5
    assert abs(done.after.oe - 1) < 0.1
    assert abs(done.after.intercept) < 0.15
    assert done.shift > 0.5
    old, new = (registry.fetch(home, MODEL, version) for version in "15")
    changed = {
        file.name for file in old.iterdir() if file.read_bytes() != (new / file.name).read_bytes()
    }
    assert changed >= {"calibration.json", "evaluation.json", "card.html"}
    assert not changed & {
        "booster.ubj",
        "logistic.json",
        "conformal.json",
        "novelty.json",
        "golden.json",
    }
    before, after = artifact.load(old), artifact.load(new)
    assert (after.spec, after.mart) == (before.spec, before.mart)
    elsewhere = np.full(len(cohort), "county-01", dtype=object)
    there = np.full(len(cohort), SITE, dtype=object)
    np.testing.assert_array_equal(
        before.risk(cohort.rows, elsewhere), after.risk(cohort.rows, elsewhere)
    )
    shifted = sigmoid(before.margin(before.features.matrix(cohort.rows), there) + done.shift)
    np.testing.assert_allclose(after.risk(cohort.rows, there), shifted, atol=1e-9)
    assert metrics.calibration(*fresh(after)).oe == pytest.approx(1, abs=0.1)


def fresh(fitted):
    """Outcomes and risks of visits to the same hospital that no version has seen."""
    from models.cohort import select

    table = new_site(visits=2_000, seed=77)
    found = select(fitted.spec, MART, table.append_column("load_id", [["later"] * len(table)]))
    return found.outcome, fitted.risk(found.rows, found.site)


@pytest.mark.slow
def test_it_is_written_down_and_not_promoted(home):
    done = recalibrate.recalibrate(home, MODEL, site=SITE, version="1", **SIGNED)

    (entry,) = ledger.verify(home.ledger, load_key(home.path))
    assert (entry.act, entry.version, entry.by) == ("recalibrate", "5", "Dr Chen")
    assert entry.evidence["site"] == SITE
    assert entry.evidence["shift"] == done.shift
    ledger.hold([entry], registry.anchors(home))
    assert len(registry.anchors(home)) == 1
    assert release.pointed(home.releases, model=MODEL) is None
    folder = registry.fetch(home, MODEL, "5")
    said = msgspec.json.decode((folder / "evaluation.json").read_bytes())
    assert said["recalibration"][SITE]["after"]["oe"] == done.after.oe
    assert said["recalibration"][SITE]["loads"] == ["new"]
    first = msgspec.json.decode((registry.fetch(home, MODEL, "1") / "evaluation.json").read_bytes())
    assert {name: said[name] for name in first} == first


@pytest.mark.slow
def test_the_same_gate_holds_it_and_the_site_as_well(home):
    spec = catalog.load(MODEL)
    spec = replace(spec, limits=replace(spec.limits, champion_margin=0.05))
    promotion.promote(home, spec, "1", pointer="champion", **SIGNED)
    recalibrate.recalibrate(home, MODEL, site=SITE, **SIGNED)  # of the champion
    done = promotion.promote(home, spec, "5", pointer="champion", **SIGNED)

    named = {finding.criterion: finding for finding in done.gate}
    assert named[f"observed over expected at {SITE}, recalibrated"].passed
    assert done.promoted
    assert done.champion["seen"] == 0


@pytest.mark.slow
def test_a_second_site_stands_beside_the_first(home):
    recalibrate.recalibrate(home, MODEL, site=SITE, version="1", **SIGNED)
    other = with_cells(new_site(seed=10, more=0.2), site=["clinic-new"] * 900)
    load(home, other, "other", use="demonstration")
    done = recalibrate.recalibrate(home, MODEL, site="clinic-new", version="5", **SIGNED)

    folder = registry.fetch(home, MODEL, done.version)
    said = msgspec.json.decode((folder / "evaluation.json").read_bytes())
    assert set(said["recalibration"]) == {SITE, "clinic-new"}
    fitted = artifact.load(folder)
    assert set(fitted.calibration.sites) >= {SITE, "clinic-new"}
    assert fitted.manifest.provenance.use == "demonstration"


@pytest.mark.slow
def test_where_it_cannot_be_measured_nothing_is_registered(home):
    with pytest.raises(NotEnoughDataError, match="no row of site nowhere"):
        recalibrate.recalibrate(home, MODEL, site="nowhere", **SIGNED)
    march = Period.between("2021-03-01", "2021-03-03")
    with pytest.raises(NotEnoughDataError, match="needs 10 of the rarer outcome"):
        recalibrate.recalibrate(home, MODEL, site=SITE, period=march, **SIGNED)
    with pytest.raises(UsageError, match="--by"):
        recalibrate.recalibrate(home, MODEL, site=SITE, by=" ", reason="x")
    assert registry.latest(home, MODEL) == "4"
    assert not home.ledger.exists()


@pytest.mark.slow
def test_a_mart_whose_contract_changed_is_said(home, monkeypatch):
    columns = tuple(replace(c, high=119) if c.name == "age" else c for c in MART.columns)
    monkeypatch.setattr(recalibrate.marts, "load", lambda _: replace(MART, columns=columns))
    with pytest.raises(IntegrityError, match="the contract of ed_visit changed since training"):
        recalibrate.recalibrate(home, MODEL, site=SITE, **SIGNED)
