"""How often no risk is given, and how often an alert; and which reasons drive the scores."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data.contract import Text
from models.reference import Binned
from monitoring import rates, reasons
from monitoring.window import Counts

THEN = {"poor_inputs": {"abstained": {"any": 0.02}}, "at_threshold": {"alerts_per_100": 10.0}}


def counts(loaded, *, scored=2000, withheld=0, cohort=0, alerts=200, reference=None):
    return Counts(
        reference=loaded.reference if reference is None else reference,
        status=Counter(scored=scored, abstained=withheld + cohort),
        abstentions=Counter(missing=withheld, cohort=cohort),
        alerts=alerts,
    )


@pytest.fixture
def judged(make, loaded):
    def judged(*, then=THEN, sites=None, **given):
        window = make.window(make.answers(np.zeros(0)))
        window = replace(window, whole=counts(loaded, **given), sites=sites or {})
        found = rates.findings(window, loaded, then)
        return found, rates.signals(window, found)

    return judged


def test_the_rates_of_the_promotion_are_quiet(judged):
    found, signals = judged(withheld=45)
    assert [(row.statistic, round(row.value, 3)) for row in found] == [
        ("abstained_share", 0.022), ("alert_share", 0.1),
    ]  # fmt: skip
    assert signals == []


def test_patients_who_are_none_of_the_model_s_are_no_abstention(judged):
    found, signals = judged(cohort=1500)
    assert found[0].value == 0
    assert signals == []


@pytest.mark.parametrize(
    ("given", "what", "said"),
    [
        (
            {"withheld": 300},
            "abstained_rate",
            "13% of the model's patients are given no risk; at most 4.0%",
        ),
        ({"alerts": 600}, "alert_rate", "30% of the risks are alerts; at most 20%"),
        ({"alerts": 40}, "alert_rate", "2.0% of the risks are alerts; at least 5.0%"),
    ],
)
def test_a_rate_beyond_its_bound_is_named(judged, given, what, said):
    _, (signal,) = judged(**given)
    assert signal.what == what
    assert said in signal.message


def test_what_chance_may_add_is_none(judged):
    assert judged(scored=120, alerts=30)[1] == []


def test_without_figures_of_the_promotion_they_are_told_only(judged):
    found, signals = judged(then=None, alerts=900)
    assert [row.threshold for row in found] == [None, None]
    assert signals == []


def test_a_site_that_always_sees_the_sicker_is_held_to_itself(judged, loaded):
    risk = Binned(
        column="risk", label=Text("Risk", "风险"), labels=("low", "high", "missing"),
        counts=(500, 500, 0), edges=(loaded.spec.alert_at,),
    )  # fmt: skip
    own = replace(loaded.reference, risk=risk)
    sick = {"north": counts(loaded, scored=1000, alerts=500, reference=own)}
    assert judged(sites=sick)[1] == []
    calm = {"north": counts(loaded, scored=1000, alerts=60, reference=own)}
    (signal,) = judged(sites=calm)[1]
    assert (signal.site, signal.limits) == ("north", (0.25, None))


def explained(loaded, shares, *, n=4000, spread=0.5):
    """Counts whose contributions have those means, and ``spread`` times as much deviation."""
    return Counts(
        reference=loaded.reference,
        reasons={name: (n, n * mean, n * mean**2 * (1 + spread**2)) for name, mean in shares.items()},
    )


TRAINED = {
    "age": 0.4,
    "sex": 0.1,
    "ambulance": 0.2,
    "temperature": 0.05,
    "heart_rate": 0.2,
    "pain": 0.05,
}


@pytest.fixture
def driven(make, loaded):
    def driven(shares, **given):
        window = make.window(make.answers(np.zeros(0)))
        window = replace(window, whole=explained(loaded, shares, **given))
        rows = [{"feature": name, "mean_abs": mean} for name, mean in TRAINED.items()]
        found = reasons.shares(window, loaded, {"importance": rows})
        return found, reasons.signals(window, found)

    return driven


def test_the_same_reasons_are_quiet(driven):
    found, signals = driven(TRAINED)
    assert [row["feature"] for row in found][:2] == ["age", "ambulance"]
    assert found[0]["window"] == pytest.approx(found[0]["training"]) == pytest.approx(0.4)
    assert signals == []


def test_a_reason_that_took_over_is_named(driven):
    _, signals = driven(TRAINED | {"heart_rate": 0.6})
    assert "heart_rate" in {signal.column for signal in signals}
    heart = next(signal for signal in signals if signal.column == "heart_rate")
    assert heart.message == "Heart rate carries 43% of the explanations, 20% at training"


def test_the_limit_is_the_effect_and_the_error_of_two_means(driven):
    """By hand: deviation 0.5 x 0.4 of a total of 1, over 4,000 rows and the 1,000 of training."""
    from scipy.stats import norm

    from models.watch import Watch

    found, _ = driven(TRAINED)
    age = next(row for row in found if row["feature"] == "age")
    z = norm.isf(Watch().alpha / Watch().looks / 12)
    assert age["limit"] == pytest.approx(0.04 + z * 0.2 * np.sqrt(1 / 4000 + 1 / 1000))


def test_few_explanations_and_no_figures_of_training_say_nothing(driven, make, loaded):
    assert driven(TRAINED, n=60) == ([], [])
    window = make.window(make.answers(np.zeros(0)))
    assert reasons.shares(window, loaded, None) == []
