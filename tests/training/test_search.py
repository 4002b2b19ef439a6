"""A search spends its budget once, however often it is cut off, and ends where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import IntegrityError, NotEnoughDataError, UsageError
from models.spec import Boosting
from training import fit
from training import search as searching
from training.pair import Pair
from training.search import SPACE, Budget, Trial, search

ROOT = Path(__file__).resolve().parents[2]
DECLARED = Boosting(max_depth=2, learning_rate=0.3, reg_lambda=0.0, rounds=300, early_stopping_rounds=20)
TRIALS = 12


def pair(rows, seed):
    """Rows whose risk depends on two of six columns, with gaps."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 6)).astype(np.float32)
    outcome = (matrix[:, 0] * matrix[:, 1] + matrix[:, 2] + rng.logistic(size=rows) > 1).astype(float)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return Pair(matrix=matrix, outcome=outcome, target=outcome, path=Path("nowhere"))


TRAIN, TUNE = pair(2000, seed=1), pair(1000, seed=2)


def run(storage, **settings):
    return search(
        TRAIN,
        TUNE,
        **{
            "settings": DECLARED,
            "seed": 3,
            "threads": 1,
            "trials": TRIALS,
            "storage": storage,
            "key": "model",
            **settings,
        },
    )


def figures(found):
    """All that must not depend on the clock."""
    return replace(found, seconds=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The search that nothing interrupts."""
    return run(tmp_path_factory.mktemp("whole"))


def loss(settings):
    """On the tuning rows, of the trees that fitting grows with ``settings``."""
    booster = fit.boosted(TRAIN, TUNE, settings=settings, seed=3, threads=1)
    margin = fit.margins(booster, TUNE)
    return np.mean(np.logaddexp(0, margin) - TUNE.outcome * margin)


def test_what_is_found_is_what_fitting_reaches_and_better_than_what_was_declared(whole):
    assert whole.best < whole.declared
    assert whole.best == pytest.approx(loss(whole.settings), abs=1e-6)
    assert whole.declared == pytest.approx(loss(DECLARED), abs=1e-6)


def test_settings_lie_within_the_space_and_can_be_typed(whole):
    for name, (low, high, _) in SPACE.items():
        value = getattr(whole.settings, name)
        assert low <= value <= high
        assert float(f"{value:.3g}") == value
    assert whole.settings.rounds == DECLARED.rounds


def test_a_trial_ends_early_where_it_is_behind_three_of_four_that_were_finished(tmp_path):
    found = run(tmp_path)
    (kept,) = tmp_path.iterdir()
    trials = json.loads(kept.read_text())

    assert found.pruned == sum(trial["pruned"] for trial in trials) > 0
    assert not any(trial["pruned"] for trial in trials[: searching.WHOLE])
    for number, trial in enumerate(trials[searching.WHOLE :], searching.WHOLE):
        course = trial["course"]
        whole = [other["course"] for other in trials[:number] if not other["pruned"]]
        behind = [
            look
            for look in range(searching.FROM, len(course) + 1)
            if (others := [other[look - 1] for other in whole if len(other) >= look])
            and min(course[:look]) > np.percentile(others, searching.KEPT)
        ]
        assert behind[:1] == ([len(course)] if trial["pruned"] else [])


def test_a_slow_learner_is_looked_at_when_it_is_as_far_along(tmp_path):
    looks = {}
    for rate in (0.05, 0.1):
        run(tmp_path, trials=1, settings=replace(DECLARED, learning_rate=rate, rounds=200))
        (kept,) = (path for path in tmp_path.iterdir() if path not in looks)
        (trial,) = json.loads(kept.read_text())
        looks[kept] = trial["course"]
    slow, quick = looks.values()

    assert slow[0] == pytest.approx(quick[0], abs=0.01)
    assert slow[0] - slow[-1] > 0.02


def test_what_cannot_be_bettered_is_kept_as_declared(tmp_path):
    found = run(tmp_path, trials=1)

    assert found.settings is DECLARED
    assert found.best == found.declared
    assert (found.trials, found.pruned) == (1, 0)


def test_the_same_seed_finds_the_same_and_another_seed_another(whole, tmp_path):
    assert figures(run(tmp_path)) == figures(whole)
    assert run(tmp_path, seed=4).settings != whole.settings


def test_an_interrupted_search_goes_on_and_ends_the_same(whole, tmp_path, monkeypatch):
    started = []

    class Interrupted(searching._Look):
        def after_iteration(self, model, epoch, evals_log):
            if len(started) == 5 and epoch == 2:
                raise KeyboardInterrupt
            return super().after_iteration(model, epoch, evals_log)

    with monkeypatch.context() as patch:
        patch.setattr(searching, "_Look", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=lambda text, _: started.append(text))
    (kept,) = tmp_path.iterdir()
    assert len(json.loads(kept.read_text())) == 4

    assert figures(run(tmp_path)) == figures(whole)


def test_a_search_that_is_done_is_not_done_again(whole, tmp_path, monkeypatch):
    first = run(tmp_path)
    monkeypatch.setattr(searching, "_run", None)

    assert run(tmp_path) == first
    assert figures(first) == figures(whole)


def test_a_larger_budget_goes_on_and_a_smaller_one_finds_what_it_found(whole, tmp_path):
    few = run(tmp_path, trials=4)

    assert figures(run(tmp_path)) == figures(whole)
    assert run(tmp_path, trials=4) == few


def test_other_rows_settings_constraints_and_seeds_are_other_searches(tmp_path):
    run(tmp_path, trials=1)
    run(tmp_path, trials=1, seed=4)
    run(tmp_path, trials=1, settings=replace(DECLARED, rounds=50))
    run(tmp_path, trials=1, monotone=(0, 0, 1, 0, 0, 0))
    run(tmp_path, trials=1, ordinal=True)
    run(tmp_path, trials=1, budget=1)
    search(TUNE, TRAIN, DECLARED, seed=3, trials=1, threads=1, storage=tmp_path, key="model")
    search(TRAIN, TUNE, DECLARED, seed=3, trials=1, threads=1, storage=tmp_path, key="other")

    assert len(list(tmp_path.iterdir())) == 8


def test_constraints_hold_while_searching(tmp_path):
    up = run(tmp_path, trials=1, monotone=(0, 0, 1, 0, 0, 0))
    down = run(tmp_path, trials=1, monotone=(0, 0, -1, 0, 0, 0))

    assert up.best < down.best


def test_an_ordinal_model_is_searched_by_its_squared_error(tmp_path):
    level = np.where(TRAIN.outcome > 0, -1.0, -3.0), np.where(TUNE.outcome > 0, -1.0, -3.0)
    train, tune = replace(TRAIN, target=level[0]), replace(TUNE, target=level[1])

    found = search(
        train, tune, DECLARED, ordinal=True, seed=0, trials=6, storage=tmp_path, key="triage", threads=1
    )

    booster = fit.boosted(train, tune, settings=found.settings, ordinal=True, seed=0, threads=1)
    error = np.sqrt(np.mean((fit.margins(booster, tune) - tune.target) ** 2))
    assert found.best == pytest.approx(error, abs=1e-5)


def test_a_matrix_on_disk_is_searched_too(tmp_path):
    def stored(pair, name):
        return replace(pair, path=tmp_path / name)

    found = search(
        stored(TRAIN, "train"),
        stored(TUNE, "tune"),
        DECLARED,
        seed=3,
        trials=3,
        storage=tmp_path / "searches",
        key="model",
        budget=1,
    )

    assert found.trials == 3


class Clock:
    """A minute passes whenever it is looked at."""

    now = 0.0

    def monotonic(self):
        self.now += 60
        return self.now


def test_no_trial_starts_when_the_minutes_are_spent(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "time", Clock())

    found = run(tmp_path, trials=0, minutes=2.5)

    assert (found.trials, found.seconds) == (3, 180)
    assert found == run(tmp_path, trials=0, minutes=2.5)
    assert run(tmp_path, trials=2, minutes=2.5).trials == 2
    assert run(tmp_path, minutes=1e-9).settings is DECLARED
    assert figures(run(tmp_path, minutes=1e9)) == figures(whole)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"trials": 0}, "a number of trials, or of minutes"),
        ({"trials": -1}, "--trials"),
        ({"minutes": 0.0}, "--minutes"),
        ({"minutes": float("nan")}, "--minutes"),
        ({"minutes": float("inf")}, "--minutes"),
    ],
)
def test_a_budget_that_is_none_is_refused(tmp_path, given, named):
    with pytest.raises(UsageError, match=named):
        run(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_the_budget_is_the_tighter_of_trials_and_minutes():
    def took(*seconds):
        return [
            Trial(settings=DECLARED, loss=1, course=(), pruned=False, seconds=each) for each in seconds
        ]

    assert Budget(trials=4, minutes=10).spent(took(60, 60)) == 0.5
    assert Budget(trials=4, minutes=2).spent(took(60, 30)) == 0.75
    assert Budget(trials=0, minutes=2).of(took(60, 61, 1)) == took(60, 61)


def test_one_outcome_is_refused(tmp_path):
    flat = replace(TRAIN, outcome=np.zeros(len(TRAIN)))

    with pytest.raises(NotEnoughDataError, match="training rows hold 0"):
        search(flat, TUNE, DECLARED, seed=0, trials=2, storage=tmp_path, key="model")


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b'[{"settings": 1}]'])
def test_a_file_that_holds_no_trials_is_named(tmp_path, content):
    run(tmp_path, trials=1)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content)

    with pytest.raises(IntegrityError, match=kept.name):
        run(tmp_path, trials=2)


def test_a_person_sees_trial_best_and_pruned(tmp_path):
    told = []
    found = run(tmp_path, progress=lambda text, share: told.append((text, share)))

    assert told[0] == (f"search: trial 1 of {TRIALS}", 0.0)
    assert told[1] == (f"search: trial 2 of {TRIALS}, best {found.declared:.4f}, 0 pruned", 1 / TRIALS)
    assert told[-1] == (f"search: {TRIALS} trials, best {found.best:.4f}, {found.pruned} pruned", 1.0)
    shares = [share for _, share in told]
    assert shares == sorted(shares)


def test_one_who_goes_on_sees_the_share_of_what_was_left(tmp_path):
    told = []
    run(tmp_path, trials=TRIALS - 4)
    run(tmp_path, progress=lambda text, share: told.append((text.split(",")[0], share)))

    last = [f"search: trial {number} of {TRIALS}" for number in range(TRIALS - 3, TRIALS + 1)]
    assert [text for text, _ in told] == [*last, f"search: {TRIALS} trials"]
    assert [share for _, share in told] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_optuna_says_nothing(tmp_path, capfd):
    run(tmp_path, trials=3)

    assert capfd.readouterr() == ("", "")


def test_importing_does_not_import_optuna():
    code = "import sys, training.search; sys.exit('optuna' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


DRIVER = '''
"""DRIVER STORAGE WHERE MARK: the search; the fifth trial stops at WHERE."""
import importlib.util, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("test_search", "tests/training/test_search.py")
cases = importlib.util.module_from_spec(spec)
sys.modules["test_search"] = cases
spec.loader.exec_module(cases)
storage, where, mark = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
started = []


def pause(here):
    if where == here and len(started) == 5:
        mark.touch()
        time.sleep(600)


class Look(cases.searching._Look):
    def after_iteration(self, model, epoch, evals_log):
        if epoch == 2:
            pause("trees")
        return super().after_iteration(model, epoch, evals_log)


replace = Path.replace


def replaced(self, target):
    pause("draft")
    done = replace(self, target)
    pause("written")
    return done


cases.searching._Look, Path.replace = Look, replaced
found = cases.run(storage, progress=lambda *told: started.append(told))
print(cases.figures(found))
'''


def started(storage, where="", mark=Path(os.devnull)):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(storage), where, str(mark)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("where", "finished"), [("trees", 4), ("draft", 4), ("written", 5)])
def test_a_search_that_is_killed_goes_on_and_ends_the_same(whole, tmp_path, where, finished):
    mark = tmp_path / "reached"
    with started(tmp_path / "searches", where, mark) as process:
        while not mark.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    (kept,) = (tmp_path / "searches").glob("model-*")
    assert len(json.loads(kept.read_text())) == finished

    assert figures(run(tmp_path / "searches")) == figures(whole)


@pytest.mark.slow
def test_two_searches_at_once_both_end_as_one_alone(whole, tmp_path):
    both = [started(tmp_path) for _ in range(2)]

    assert [process.communicate()[0] for process in both] == [f"{figures(whole)}\n"] * 2
    assert figures(run(tmp_path)) == figures(whole)
