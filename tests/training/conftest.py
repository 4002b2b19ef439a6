"""A mart, versions of the tiny model that learned from it, and an MLflow that knows them."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass, replace

import pytest

from data import telemetry
from data.home import Home
from data.marts.ed_visit import MART
from data.period import Period
from data.pseudonym import load_key
from data.simulate import simulate
from data.source import Origin
from data.store import Slice, open_store
from models import artifact, ledger, registry
from models.artifact import Artifact
from models.calibration import Calibration
from training import card, rows
from training import split as splits
from training.evaluate import evaluate

MODEL = "ed_admission"
KEY = b"0123456789abcdef"
ENDS = ("2019-12-31", "2020-06-30", "2021-12-31")


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A home whose mart holds visits of 2019 to 2021, and the model as if it had learned from them."""

    home: Home
    fitted: Artifact


@pytest.fixture(scope="session")
def stock(tiny, tmp_path_factory) -> Stock:
    home = Home(tmp_path_factory.mktemp("stock"))
    visits = simulate(visits=3_000, seed=1, first="2019-01", last="2021-12")
    with open_store(home.marts) as store:
        store.load(MART, [visits], Origin(load_id="one", source="own", use="care"), key=KEY)
    which = Slice(period=Period.between(None, ENDS[-1]))
    with rows.read(home, tiny.spec, MART, which) as (cohort, origins):
        split = splits.of("time", cohort, splits.limits(*ENDS))
        provenance = rows.provenance(cohort, split, origins, None, 0)
    learned = replace(tiny.manifest, provenance=provenance)
    return Stock(home=home, fitted=replace(tiny, manifest=learned))


@pytest.fixture(scope="session")
def figures(stock) -> dict:
    """The evaluation of a version that passes its gate: a real one, improved where it is not good."""
    provenance = stock.fitted.manifest.provenance
    which = Slice(period=Period.between(*provenance.periods["test"]))
    with rows.read(stock.home, stock.fitted.spec, MART, which) as (cohort, _):
        found = evaluate(stock.fitted, cohort, MART, bootstrap=99)
    found |= {"events": 500, "ablations": {}}
    found["auroc"] |= {"value": 0.85}
    found["calibration"] |= {"intercept": 0.0, "slope": 1.0, "oe": 1.0}
    found["comparators"]["logistic_regression"]["model_minus_this"]["auroc"] |= {"low": 0.01}
    for group in found["groups"]:
        if not group["suppressed"]:
            group |= {"oe": 1.0}
            group["auroc"] |= {"value": 0.8}
    found["groups"][0] |= {"events": 300, "suppressed": False, "oe": 1.0}
    for point in found["net_benefit"]["curve"]:
        point["model"] = max(point["treat_all"], 0.0) + 0.01
    return found


@pytest.fixture(scope="session")
def tracked(stock, figures, tmp_path_factory) -> Home:
    """The same home with four registered versions.

    1 and 2 are good; the figures of 3 are not; those of 4 are, but its risks run the wrong way.
    """
    telemetry.off()
    with warnings.catch_warnings():
        # As they are imported, MLflow's modules warn of themselves and of SQLAlchemy's next version.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc.model
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    lines = [Calibration(), Calibration(slope=0.98), Calibration(), Calibration(slope=-1.0)]
    for number, line in enumerate(lines, start=1):
        said = {**figures, "events": 3} if number == 3 else figures
        folder = tmp_path_factory.mktemp("version") / "artifact"
        fitted = replace(stock.fitted, calibration=line)
        documents = card.documents(fitted, said, drawn={}, patients=300)
        artifact.write(folder, fitted, evidence=documents)
        registry.register(
            stock.home, fitted, folder, params={"seed": 0}, metrics={"auroc": 0.85}, evidence=folder
        )
    return stock.home


@pytest.fixture
def own(tracked, tmp_path) -> Home:
    """A copy of the home for one test."""
    home = Home(tmp_path / "own")
    home.path.mkdir()
    for name in ("marts.duckdb", "mlflow.db"):
        shutil.copy(tracked.path / name, home.path / name)
    return home


PLAN = """\
approved_by = "Dr Chen, 2026-11-24"
[default.recalibrate]
without_signature = true
largest_shift = 2.0
fewest_events = 100
most_a_year = 2
description = "A site's intercept is learned anew."
protocol = "p"
impact = "i"
[default.withdraw]
without_signature = true
most_a_year = 1
description = "The model is taken away."
protocol = "p"
impact = "i"
"""


class Watch:
    """What monitoring writes into the ledger of a home, and the plan that people put beside it."""

    def __init__(self, home):
        self.home = home

    def append(self, act, evidence, *, version="1", by="caremodels monitor", model=MODEL):
        """The number of the new entry."""
        home = self.home
        with ledger.opened(home.ledger, load_key(home.path), releases=home.releases) as book:
            entry = book.append(
                act=act, model=model, version=version, by=by, reason="seen", evidence=evidence
            )
            ledger.anchor(home.releases, entry)
        return entry.number

    def raised(self, response, *, to="2021-09-30", pointer="champion", **more):
        """An alarm that is opened; by default of September 2021 and of no single site."""
        place = {"column": None, "site": more.pop("site", None), "group": None}
        evidence = {
            "pointer": pointer,
            "alarm": {"what": "calibration", **place, "response": response},
            "window": {"from": more.pop("first", f"{to[:8]}01"), "to": to},
        }
        return self.append(ledger.ALARM_OPENED, evidence, **more)

    def seen(self, *, to, raised=(), quiet=()):
        """A later window, in which alarms go on or have come to rest."""
        window = {"from": f"{to[:8]}01", "to": to}
        evidence = {"pointer": "champion", "window": window, "raised": [*raised], "quiet": [*quiet]}
        return self.append(ledger.ALARM_SEEN, evidence)

    def plan(self, old="", new="", more=""):
        """The change control plan, with ``new`` instead of ``old``."""
        assert old in PLAN
        (self.home.path / "change-control.toml").write_text(PLAN.replace(old, new) + more)


@pytest.fixture
def watch(home) -> Watch:
    return Watch(home)
