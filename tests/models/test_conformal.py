"""Coverage is what simulation and the theory of order statistics say it is."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from data.errors import ContractError, NotEnoughDataError
from models.conformal import ALWAYS, REST, SMALLEST_LEVEL, Conformal, covered, fit
from models.spec import to_json

LEVELS = (1, 2, 3, 4, 5)


def two(risk):
    return np.column_stack([1 - risk, risk])


def patients(n, rng):
    """Risks that are right for most and too low for the old; every fifth has the outcome."""
    truth = (np.arange(n) % 5 == 0).astype(np.intp)
    old = rng.random(n) < 0.3
    margin = rng.normal(0, 1, n) + 2 * truth - 2.5 - 1.5 * (old & (truth == 1))
    sex = rng.choice(["female", "male"], n)
    return two(1 / (1 + np.exp(-margin))), truth, {"age": np.where(old, "old", "young"), "sex": sex}


def lines(found):
    return {(line.group, line.level, line.class_): line for line in found}


def test_a_case_worked_by_hand():
    # Scores 1 - p of the true class. Class 0: 0.1 to 0.9 in tenths, k = ceil(10 x 0.8) = 8: 0.8.
    # Class 1: 0.05, 0.15, 0.25, 0.35; k = ceil(5 x 0.8) = 4: 0.35.
    risk = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.85, 0.75, 0.65])
    made = fit(two(risk), np.repeat([0, 1], [9, 4]), groups={}, coverage=0.8, smallest=4)
    assert made.overall == pytest.approx((0.8, 0.35))
    assert made.rows == (9, 4)
    sets = made.sets(two(np.array([0.3, 0.64, 0.66, 0.79, 0.81])), {})
    assert sets.tolist() == [[True, False], [True, False], [True, True], [True, True], [False, True]]


def test_no_class_may_fit():
    risk = np.concatenate([np.linspace(0, 0.2, 100), np.linspace(0.8, 1, 100)])
    made = fit(two(risk), np.repeat([0, 1], 100), groups={})
    assert made.sets(two(np.array([0.5])), {}).tolist() == [[False, False]]


@pytest.mark.parametrize("n", [1, 9, 10, 19, 100, 101, 999])
@pytest.mark.parametrize("coverage", [0.5, 0.55, 0.8, 0.9, 0.95])
def test_the_threshold_is_the_corrected_quantile_of_numpy(n, coverage):
    risk = np.random.default_rng(n).random(n)
    made = fit(two(risk), np.ones(n, dtype=np.intp), groups={}, coverage=coverage, smallest=1)
    k = math.ceil(round((n + 1) * coverage, 9))
    # Half a step below k / n, where no rounding decides: the inverse of the step function is the same.
    wanted = 1.0 if k > n else np.quantile(1 - risk, (k - 0.5) / n, method="inverted_cdf")
    assert made.overall[1] == wanted


@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_covered_as_often_as_order_statistics_say(seed):
    # The share covered by the k-th of n scores follows Beta(k, n + 1 - k): its mean is k / (n + 1).
    rng = np.random.default_rng(seed)
    repeats, n, new = 150, 200, 200
    shares = np.zeros((repeats, 2))
    for repeat in range(repeats):
        probabilities, truth, _ = patients(5 * n, rng)
        made = fit(probabilities, truth, groups={})
        probabilities, truth, _ = patients(5 * new, rng)
        held = made.sets(probabilities, {})[np.arange(len(truth)), truth]
        shares[repeat] = [held[truth == 0].mean(), held[truth == 1].mean()]
    for share, tuned, tested in zip(shares.T, (4 * n, n), (4 * new, new), strict=True):
        k = math.ceil((tuned + 1) * 0.9)
        mean = k / (tuned + 1)
        of_threshold = mean * (1 - mean) / (tuned + 2)
        of_rows = mean * (1 - mean) / tested
        assert abs(share.mean() - mean) < 4 * math.sqrt((of_threshold + of_rows) / repeats)


def test_a_group_that_the_model_fails_is_covered_once_it_is_named():
    rng = np.random.default_rng(0)
    made, blind = [], []
    for _ in range(60):
        probabilities, truth, groups = patients(3_000, rng)
        aware = fit(probabilities, truth, groups=groups)
        unaware = fit(probabilities, truth, groups={})
        probabilities, truth, groups = patients(3_000, rng)
        made.append(lines(covered(aware.sets(probabilities, groups), truth, groups=groups)))
        blind.append(lines(covered(unaware.sets(probabilities, {}), truth, groups=groups)))
    for stratum in made[0]:
        shares = np.array([found[stratum].coverage for found in made])
        assert shares.mean() > 0.9 - 4 * shares.std() / math.sqrt(len(shares))
    old = "age", "old", 1
    assert np.mean([found[old].coverage for found in blind]) < 0.8
    # What it costs: sets of the young name the outcome more often than their own threshold would.
    size = [np.mean([found["", "", None].size for found in of]) for of in (blind, made)]
    assert size[0] < size[1] < 2


def test_one_marginal_threshold_would_never_name_a_rare_outcome():
    rng = np.random.default_rng(1)
    truth = (np.arange(4_000) % 25 == 0).astype(np.intp)
    probabilities = two(np.clip(rng.normal(0.03 + 0.1 * truth, 0.02), 0.001, 0.999))
    score = 1 - probabilities[np.arange(len(truth)), truth]
    marginal = 1 - probabilities <= np.quantile(score, 0.9, method="higher")
    assert marginal[np.arange(len(truth)), truth].mean() >= 0.9
    assert marginal[truth == 1, 1].mean() == 0
    sets = fit(probabilities, truth, groups={}).sets(probabilities, {})
    assert sets[truth == 1, 1].mean() >= 0.9


def test_tied_scores_are_all_in():
    probabilities, truth = two(np.full(400, 0.5)), np.repeat([0, 1], 200)
    made = fit(probabilities, truth, groups={})
    assert made.overall == (0.5, 0.5)
    assert made.sets(probabilities, {}).all()


def test_a_class_of_few_rows_is_in_every_set_and_is_named():
    risk = np.concatenate([np.linspace(0, 0.4, 500), np.linspace(0.5, 1, 99)])
    made = fit(two(risk), np.repeat([0, 1], [500, 99]), groups={})
    assert made.undecided == (1,)
    assert made.overall[1] == ALWAYS
    assert made.sets(two(np.array([0.0, 0.5, 1.0])), {})[:, 1].all()
    assert fit(two(risk), np.repeat([0, 1], [500, 99]), groups={}, smallest=99).undecided == ()


def test_a_level_of_few_rows_takes_the_overall_threshold():
    rng = np.random.default_rng(3)
    probabilities, truth, _ = patients(2_000, rng)
    site = np.where(np.arange(2_000) < 1_700, "large", "small")
    made = fit(probabilities, truth, groups={"site": site})
    # 300 rows of the small site: 240 without the outcome, 60 with it.
    assert made.by_group["site"]["small"][1] == made.overall[1]
    assert made.by_group["site"]["small"][0] != made.overall[0]
    assert "tiny" not in made.by_group["site"]
    unseen = made.sets(probabilities, {"site": np.full(2_000, "tiny")})
    assert np.array_equal(unseen, fit(probabilities, truth, groups={}).sets(probabilities, {}))


def test_the_set_of_a_row_is_the_union_of_those_of_its_groups():
    probabilities, truth, groups = patients(4_000, np.random.default_rng(4))
    together = fit(probabilities, truth, groups=groups).sets(probabilities, groups)
    alone = [{"age": groups["age"]}, {"sex": groups["sex"]}]
    parts = [fit(probabilities, truth, groups=some).sets(probabilities, some) for some in alone]
    assert np.array_equal(together, np.logical_or.reduce(parts))


def test_levels_of_few_rows_are_covered_together():
    # One large site, and 40 of 50 rows where the outcome shows less: none has enough rows alone.
    rng = np.random.default_rng(9)
    shares = []
    for _ in range(40):
        site = np.array([f"small {i}" for i in range(40)] * 50 + ["large"] * 4_000)
        truth = (rng.random(6_000) < 0.3).astype(np.intp)
        shown = np.where(site == "large", 3, 1)
        risk = 1 / (1 + np.exp(1 - rng.normal(0, 1, 6_000) - shown * truth))
        half = rng.random(6_000) < 0.5
        made = fit(two(risk[half]), truth[half], groups={"site": site[half]})
        assert set(made.by_group["site"]) == {"large", REST}
        held = made.sets(two(risk[~half]), {"site": site[~half]})[np.arange((~half).sum()), truth[~half]]
        asked = (truth[~half] == 1) & (site[~half] != "large")
        shares.append(held[asked].mean())
        blind = fit(two(risk[half]), truth[half], groups={}).sets(two(risk[~half]), {})
        assert blind[asked, 1].mean() < held[asked].mean()
    assert abs(np.mean(shares) - 0.9) < 4 * np.std(shares) / math.sqrt(len(shares)) + 0.003


def test_a_missing_level_is_a_level():
    probabilities, truth, _ = patients(4_000, np.random.default_rng(5))
    sex = np.array(["female", None] * 2_000, dtype=object)
    made = fit(probabilities, truth, groups={"sex": sex})
    assert set(made.by_group["sex"]) == {"female", "missing", REST}
    one = np.array([None], dtype=object)
    assert made.sets(probabilities[:1], {"sex": one}).shape == (1, 2)


def test_an_ordinal_set_has_no_gap():
    rng = np.random.default_rng(6)
    probabilities = rng.dirichlet(np.ones(5), 3_000)
    truth = np.array([rng.choice(5, p=row) for row in probabilities])
    plain = fit(probabilities, truth, groups={}, classes=LEVELS).sets(probabilities, {})
    made = fit(probabilities, truth, groups={}, classes=LEVELS, ordinal=True)
    runs = made.sets(probabilities, {})
    assert (plain <= runs).all()
    assert (plain < runs).any()
    starts = np.diff(np.pad(runs, ((0, 0), (1, 0))).astype(int), axis=1) == 1
    assert (starts.sum(axis=1) <= 1).all()
    exact = np.array([[0.4, 0.0, 0.0, 0.6, 0.0]])
    thresholds = Conformal(**{**vars(made), "overall": (0.7,) * 5})
    assert thresholds.sets(exact, {}).tolist() == [[True, True, True, True, False]]
    assert not thresholds.sets(np.full((1, 5), 0.2), {}).any()


def test_it_survives_its_own_json():
    probabilities, truth, groups = patients(3_000, np.random.default_rng(7))
    made = fit(probabilities, truth, groups=groups, classes=(0, 1))
    read = msgspec.json.decode(to_json(made), type=Conformal)
    assert read == made
    assert np.array_equal(read.sets(probabilities, groups), made.sets(probabilities, groups))


def test_what_sets_did_is_counted_by_class_and_by_group():
    sets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool).repeat(10, axis=0)
    truth = np.array([0, 1, 1, 0]).repeat(10)
    site = np.array(["a", "a", "a", "b"]).repeat(10)
    found = lines(covered(sets, truth, groups={"site": site}, classes=(7, 8)))
    every = found["", "", None]
    assert (every.n, every.coverage, every.size, every.ambiguous, every.empty) == (
        40,
        0.5,
        1,
        0.25,
        0.25,
    )
    assert (found["", "", 7].n, found["", "", 7].coverage) == (20, 0.5)
    assert (found["site", "a", 8].n, found["site", "a", 8].size) == (20, 1)
    few = found["site", "a", 7]
    assert (few.n, few.coverage) == (10, None)
    assert found["site", "b", None].coverage is None
    assert ("site", "b", 7) not in found
    assert found["site", "b", None].n < SMALLEST_LEVEL


def test_what_makes_no_sense_is_refused():
    probabilities, truth, groups = patients(500, np.random.default_rng(8))
    made = fit(probabilities, truth, groups=groups, smallest=20)
    with pytest.raises(ContractError, match="need the group sex"):
        made.sets(probabilities, {"age": groups["age"]})
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        made.sets(probabilities[:, :1], groups)
    with pytest.raises(ValueError, match="group age must have one level for each row"):
        made.sets(probabilities[:3], groups)
    with pytest.raises(ValueError, match="must lie in"):
        made.sets(np.full((500, 2), np.nan), groups)
    with pytest.raises(ValueError, match="coverage"):
        fit(probabilities, truth, groups={}, coverage=1.0)
    with pytest.raises(ValueError, match="index of a class"):
        fit(probabilities, truth + 1, groups={})
    with pytest.raises(NotEnoughDataError):
        fit(probabilities[:0], truth[:0], groups={})
