"""A training ends with a registered version or with one clear sentence, and then with nothing."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pytest

from data.errors import CaremodelsError, ContractError, NotEnoughDataError
from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate
from data.source import Origin
from data.store import open_store
from models import catalog, registry
from models.spec import Boosting
from training import run
from training.run import Effort

KEY = b"0123456789abcdef"
# As it is imported, MLflow uses what SQLAlchemy's next version will do without.
MLFLOW = pytest.mark.filterwarnings("ignore::Warning")
SPEC = replace(
    catalog.load("ed_admission"),
    boosting=Boosting(rounds=40, learning_rate=0.3, max_depth=3),
    ablations=(),
)
QUICK = Effort(ablations=False)
DATES = {"train_to": "2020-06", "validate_to": "2020-12", "test_to": "2021-12"}


def home_with(folder, visits):
    home = Home(folder)
    with open_store(home.marts) as store:
        store.load(MART, [visits], Origin(load_id="one", source="own", use="care"), key=KEY)
    return home


def with_cells(visits, **columns):
    for name, values in columns.items():
        place = visits.column_names.index(name)
        visits = visits.set_column(place, name, pa.array(values, visits.schema.field(place).type))
    return visits


@pytest.fixture(scope="module")
def visits():
    return simulate(visits=6_000, seed=3, first="2019-01", last="2021-12")


def test_thirty_rows_are_too_few_and_nothing_is_registered(tmp_path, visits):
    home = home_with(tmp_path, visits.slice(0, 30))
    with pytest.raises(NotEnoughDataError, match=r"no rows to|are needed"):
        run.train(home, SPEC, effort=QUICK)
    assert not (tmp_path / "mlflow.db").exists()


def test_an_outcome_of_one_class_is_said(tmp_path, visits):
    home = home_with(tmp_path, with_cells(visits, disposition=["discharged"] * len(visits)))
    with pytest.raises(NotEnoughDataError, match="the training rows hold 0 of the rarer outcome"):
        run.train(home, SPEC, effort=QUICK, **DATES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ("age", "lactate")}, "mart ed_visit has no column lactate"),
        ({"features": ("age", "disposition")}, "disposition has role outcome and is never a feature"),
        ({"monotone": {"height": 1}}, "monotone names height"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_before_the_mart_is_read(tmp_path, change, message):
    with pytest.raises(ContractError, match=message):
        run.train(Home(tmp_path), replace(SPEC, **{"monotone": {}, **change}), effort=QUICK)


def test_a_mart_that_was_never_loaded_is_said(tmp_path):
    with pytest.raises(CaremodelsError, match="mart"):
        run.train(Home(tmp_path), SPEC, effort=QUICK)


@MLFLOW
@pytest.mark.slow
def test_empty_and_constant_columns_do_no_harm(tmp_path, visits):
    home = home_with(
        tmp_path, with_cells(visits, spo2=[None] * len(visits), sex=["female"] * len(visits))
    )
    trained = run.train(home, SPEC, effort=QUICK, **DATES)

    assert trained.metrics["auroc"]["value"] > 0.6
    assert set(trained.metrics["comparators"]) == {
        "logistic_regression", "news2", "qsofa", "shock_index", "acuity", "majority",
    }  # fmt: skip
    assert trained.metrics["comparators"]["majority"]["auroc"]["value"] == pytest.approx(0.5)


@MLFLOW
@pytest.mark.slow
def test_a_store_of_models_that_does_not_answer_is_said_in_a_sentence(tmp_path, visits, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    home = home_with(tmp_path, visits)
    with pytest.raises(CaremodelsError, match="MLflow") as caught:
        run.train(home, SPEC, effort=QUICK, **DATES)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_trainings_at_once_register_two_versions(tmp_path, visits):
    """In processes of their own, on a store that neither has made yet."""
    home = home_with(tmp_path, visits)

    def train():
        command = [sys.executable, "-m", "caremodels", "train", "ed_admission", "--no-ablations"]
        return subprocess.run(
            [*command, "--train-to", "2020-06", "--validate-to", "2020-12", "--test-to", "2021-12"],
            env={"CAREMODELS_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    with ThreadPoolExecutor() as pool:
        done = [pool.submit(train) for _ in range(2)]
    for one in done:
        assert one.result().returncode == 0, one.result().stderr
    assert registry.latest(home, "ed_admission") == "2"


@MLFLOW
@pytest.mark.slow
def test_the_same_seed_and_rows_make_the_same_bytes_and_each_ablation_its_figures(tmp_path, visits):
    home = home_with(tmp_path, visits)
    ablated = replace(SPEC, ablations=catalog.load("ed_admission").ablations)
    first, second = (
        run.train(home, ablated, effort=Effort(ablations=whole), **DATES) for whole in (True, False)
    )

    folders = [registry.fetch(home, "ed_admission", version) for version in ("1", "2")]
    for name in ("booster.ubj", "calibration.json", "conformal.json", "novelty.json", "logistic.json"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    measured = first.metrics["ablations"]
    assert set(measured) == {ablation.name for ablation in ablated.ablations}
    assert all(0.5 < row["auroc"] < 1 for row in measured.values())
    assert measured["without either"]["auroc"] < first.metrics["auroc"]["value"]
    assert second.metrics["ablations"] == {}
