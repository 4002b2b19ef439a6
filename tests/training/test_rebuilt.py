"""What a version learned from can be had again, and learned nothing that was not known yet."""

from dataclasses import replace
from datetime import datetime

import pytest

from data.errors import IntegrityError, UsageError
from data.home import Home
from data.marts.ed_visit import MART
from data.period import Period
from data.simulate import simulate
from data.source import Origin
from data.store import Slice, open_store
from training import rows, run
from training import split as splits

KEY = b"0123456789abcdef"


def load(home, name, table):
    with open_store(home.marts) as store:
        store.load(MART, [table], Origin(load_id=name, source="own", use="care"), key=KEY)


def of(tiny, home, which):
    """The tiny model as if it had learned from ``which``."""
    with rows.read(home, tiny.spec, MART, which) as (cohort, _):
        provenance = replace(
            tiny.manifest.provenance,
            load_ids=cohort.load_ids,
            fingerprint=cohort.fingerprint,
            as_of=which.as_of,
            periods={"test": which.period.days},
        )
    return replace(tiny, manifest=replace(tiny.manifest, provenance=provenance))


def test_a_training_set_is_rebuilt_whatever_was_loaded_since(home, tiny):
    load(home, "first", simulate(visits=900, seed=1))
    which = Slice(period=Period.between(None, "2020-06"), as_of=datetime(2020, 6, 1))  # noqa: DTZ001
    fitted = of(tiny, home, which)
    load(home, "second", simulate(visits=500, seed=2))

    with rows.rebuilt(home, fitted, mart=MART) as cohort:
        assert cohort.load_ids == ("first",)
        assert cohort.fingerprint == fitted.manifest.provenance.fingerprint


def test_rows_that_are_no_longer_there_are_told(home, tiny):
    load(home, "first", simulate(visits=900, seed=1))
    fitted = of(tiny, home, Slice(period=Period.between(None, "2020-06")))
    with open_store(home.marts) as store:
        store.engine._db.raw_sql("UPDATE ed_visit SET age = 50 WHERE age = 51")

    with pytest.raises(IntegrityError, match="no longer gives the rows learned from"):
        rows.rebuilt(home, fitted, mart=MART).__enter__()


def test_as_of_a_day_no_later_outcome_and_no_later_visit_is_seen(home, tiny):
    load(home, "first", simulate(visits=4_000, seed=1, first="2018-02", last="2018-03"))
    noon = datetime(2018, 3, 10, 12)  # noqa: DTZ001

    def known(which):
        with rows.read(home, tiny.spec, MART, which) as (cohort, _):
            return len(cohort), cohort.time.max(), dict(cohort.flow)

    seen, latest, flow = known(Slice(as_of=noon))
    before = Period(datetime(2018, 2, 1), noon)  # noqa: DTZ001
    later, _, _ = known(Slice(period=before))

    assert latest < noon
    assert 0 < later - seen < 20  # the visits that were not over by then
    assert flow["outcome not known"] > 0


def test_a_version_split_by_patient_is_evaluated_on_all_whom_it_has_not_met(tiny, tmp_path):
    home = Home(tmp_path)
    load(home, "first", simulate(visits=1500, seed=1))
    spec = replace(tiny.spec, split="patient_hash")
    with rows.read(home, spec, MART, Slice()) as (cohort, origins):
        split = splits.of("patient_hash", cohort, ())
        known = replace(tiny.manifest, provenance=rows.provenance(cohort, split, origins, None, 0))
        own = int(split.test.sum())
    fitted = replace(tiny, spec=spec, manifest=known)

    def measured(first=None):
        period = Period.between(first, None)
        return run.reevaluate(home, fitted, period, mart=MART, bootstrap=9)

    assert measured()["n"] == own
    load(home, "second", simulate(visits=1500, seed=2))
    assert own + 500 < measured()["n"] < own + 1500
    with pytest.raises(UsageError, match="split by patient, not by time"):
        measured("2021-01")

    elsewhere = Home(tmp_path / "elsewhere")
    load(elsewhere, "theirs", simulate(visits=600, seed=3))
    assert rows.taught(elsewhere, fitted, mart=MART).size == 0
