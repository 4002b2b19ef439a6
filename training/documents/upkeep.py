"""How a version is held to its figures, before it answers for patients and while it does."""

from __future__ import annotations

from training.documents.bundle import Bundle
from training.documents.rows import apart
from training.documents.words import count, listed, percent, plain


def usefulness_goal(b: Bundle) -> str:
    limits, (low, high) = b.spec.limits, b.spec.benefit
    found = [
        f"at least {count(limits.events)} events",
        f"AUROC at least {limits.auroc:g}",
        (
            "AUROC over that of logistic regression, lower 95% bound, at least"
            f" {_margin(limits.logistic_margin)}"
        ),
        f"net benefit above treating all and none for thresholds from {percent(low)} to {percent(high)}",
    ]
    if limits.alerts_per_100 < 100:
        found.append(f"at most {limits.alerts_per_100:g} alerts per 100 patients")
    if limits.sensitivity is not None:
        found.append(f"sensitivity at least {percent(limits.sensitivity)}")
    if limits.utility is not None:
        found.append(f"utility at least {limits.utility:g}")
    return f"To be promoted: {listed(found)}."


def fairness_goal(b: Bundle) -> str:
    limits = b.spec.limits
    return (
        f"To be promoted, in every group with at least {limits.subgroup_events} events: AUROC at least"
        f" {limits.subgroup_auroc:g}, observed over expected {limits.subgroup_oe[0]:g} to"
        f" {limits.subgroup_oe[1]:g}."
    )


def safety_goal(b: Bundle) -> str:
    limits = b.spec.limits
    return (
        f"To be promoted: calibration slope {limits.slope[0]:g} to {limits.slope[1]:g}, intercept"
        f" {limits.intercept[0]:g} to {limits.intercept[1]:g}, observed over expected"
        f" {limits.oe[0]:g} to {limits.oe[1]:g}; AUROC over the champion's, lower 95% bound, at least"
        f" {_margin(limits.champion_margin)}."
    )


def _margin(allowed: float) -> str:
    return f"{0.0 - allowed:g}"


def plan(b: Bundle) -> list[str]:
    """What is watched in production, month by month."""
    limits = b.spec.limits
    outcomes = (
        "Once outcomes are known: AUROC, AUPRC, Brier score and calibration with their intervals, beside"
        " those of the test rows. An alarm is raised when the whole 95% interval of observed over"
        f" expected lies outside {limits.oe[0]:g} to {limits.oe[1]:g}, or that of the slope outside"
        f" {limits.slope[0]:g} to {limits.slope[1]:g}."
    )
    if b.spec.lookback:
        outcomes = (
            "Outcomes by the hour are in the mart and not in the log: “caremodels evaluate” measures"
            " discrimination, calibration and utility there."
        )
    return [
        (
            "Inputs and risks, over all and by site: the population stability index against the training"
            " rows, with a threshold that chance alone hardly reaches."
        ),
        "Share of requests refused, by field and rule, and of patients outside the cohort.",
        outcomes,
        (
            "Every answer is on disk before it is sent: version, inputs, risk and reasons, with keyed"
            " hashes of patient and encounter."
        ),
        "Monitoring proposes and changes nothing. A person reads the report and decides.",
    ]


def monitoring(b: Bundle) -> str:
    return f"Month by month, by “caremodels monitor”. {' '.join(plan(b))}"


def local_validity(b: Bundle) -> str:
    del b  # the same for every version
    return (
        "On the hospital's own rows, at its sites and in any period, by “caremodels evaluate”: the same"
        " measures and intervals, and how many of the rows the version was trained or tuned on."
    )


def monitoring_fairness(b: Bundle) -> str:
    return (
        f"By “caremodels evaluate” for any period, as often as outcomes come in: all measures by"
        f" {_groups(b)}, none under 20 people. Drift of inputs is watched at each site by itself, month"
        " by month."
    )


def _groups(b: Bundle) -> str:
    return listed([plain(name) for name in b.spec.subgroups]) or "no attribute"


def local_fairness(b: Bundle) -> str:
    return f"{local_validity(b)} Each by {_groups(b)}."


def updating(b: Bundle) -> str:
    del b
    return (
        "No fixed cycle, and nothing by itself: monitoring proposes, a person has a version recalibrated"
        " or trained anew. It answers for patients only after it has passed the gate and somebody has"
        " signed; each act is an entry of the ledger, and the version before can be pointed to again."
    )


def correction(b: Bundle) -> str:
    del b
    return (
        "When monitoring raises an alarm or somebody reports a fault: the version is withdrawn, or the"
        " one before is pointed to, at once; a corrected version passes the same gate."
    )


def validation_process(b: Bundle) -> str:
    return (
        f"Held out before anything was fitted: no test row taught or tuned the model. {apart(b)} Each"
        f" comparator answered the same rows, in the same bootstrap samples of {b.resampled}."
    )


def kind_of_test(b: Bundle) -> str:
    how = {
        "time": "later in time than the rows learned from",
        "first_encounter": "of patients who came later than those learned from",
        "patient_hash": "of patients drawn by the hash of their identifiers",
    }[b.spec.split]
    return f"Retrospective, on held-out rows {how}; internal to the sources."
