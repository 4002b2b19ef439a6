"""What a version is, reads, answers and refuses, in sentences told from its spec and its fit."""

from __future__ import annotations

from collections.abc import Sequence

from data.contract import Column
from models.artifact import LOGISTIC
from models.comparator import MAJORITY
from models.ledger import POINTS_NOWHERE, Entry
from training.documents.bundle import Bundle
from training.documents.words import (
    at,
    comparator,
    count,
    listed,
    number,
    percent,
    plain,
    sentence,
)

KNOWN = {"history": "known from the history", "hourly": "charted hour by hour"}


def labels(b: Bundle, names: Sequence[str]) -> str:
    """The columns as a reader calls them, in the order given."""
    found = [b.mart.by_name[name].label.en if name in b.mart.by_name else plain(name) for name in names]
    return ", ".join(found)


def name(b: Bundle) -> str:
    return f"{b.spec.title.en} ({b.spec.name})"


def version(b: Bundle) -> str:
    if b.version is not None:
        return b.version
    return f"not numbered yet (fingerprint of its rows {b.provenance.fingerprint[:12] or 'not kept'})"


def stage(b: Bundle) -> str:
    if b.demonstration:
        return "Demonstration, not for care."
    moved = _moved(b)
    return sentence(f"Last act: {moved[-1].act}") if moved else "Registered, not released."


def release_date(b: Bundle) -> str:
    """The day on which a pointer was last moved to it."""
    released = [entry for entry in _moved(b) if not entry.act.startswith("withdraw")]
    return released[-1].at[:10] if released else "not released"


def _moved(b: Bundle) -> list[Entry]:
    """The acts that moved a pointer to this version, or away from it."""
    return [entry for entry in b.ledger if entry.act not in POINTS_NOWHERE]


def summary(b: Bundle) -> str:
    spec = b.spec
    parts = [
        f"{spec.title.en}: a calibrated risk of “{spec.outcome.label.en}” {spec.outcome.horizon.en}.",
        sentence(spec.intended_use.en),
    ]
    auroc = at(b.figures, "auroc", "value")
    if auroc is not None:
        reference = at(b.comparators, LOGISTIC, "auroc", "value")
        beside = f" (logistic regression {number(reference)})" if reference is not None else ""
        parts.append(
            f"AUROC {number(auroc)}{beside} on {count(b.figures.get('n'))} rows never learned from."
        )
    return " ".join(parts)


def keywords(b: Bundle) -> str:
    kind = "triage" if b.spec.triage else "hourly series" if b.spec.lookback else "risk prediction"
    return f"{b.spec.title.en}; {b.mart.row.en}; {b.spec.outcome.label.en}; {kind}"


def outcome(b: Bundle) -> str:
    spec = b.spec
    return f"{spec.outcome.label.en}, {spec.outcome.horizon.en}. {definition(b)}"


def definition(b: Bundle) -> str:
    """What the outcome is told from."""
    spec = b.spec
    text = f"Told from {_told(b)}."
    if spec.triage:
        text += (
            f" The level of urgency itself, of {len(spec.triage.levels)}, is what is learned. Harm is"
            f" {spec.triage.harm.label.en.lower()}, {spec.triage.harm.horizon.en}."
        )
    return f"{text} A row whose outcome is not known is left out, never counted as negative."


def _told(b: Bundle) -> str:
    found = []
    for event in b.spec.outcome.any_of:
        column = plain(event.column)
        if event.positive:
            found.append(f"{column} ({listed([plain(v) for v in event.positive], 'or')})")
        else:
            found.append(column if event.at_most is None else f"{column} (at most {event.at_most:g})")
    return listed(found, "or")


def output_value(b: Bundle) -> str:
    beside = "with the contribution of each input to it in log-odds"
    if b.spec.triage:
        return (
            f"One of {len(b.spec.triage.levels)} levels of urgency, the chance of it or a more urgent"
            f" one ({beside}), and the chance of each level."
        )
    event = f"“{b.spec.outcome.label.en}” {b.spec.outcome.horizon.en}"
    return f"A probability from 0 to 1 of {event}, {beside}."


def output_type(b: Bundle) -> str:
    if b.spec.triage:
        return "Prediction and classification: a calibrated probability and an ordered level of urgency."
    bands = listed([band.label.en.lower() for band in b.spec.bands])
    return f"Prediction: a calibrated probability; classification into bands ({bands})."


def thresholds(b: Bundle) -> str:
    bands = "; ".join(f"{band.label.en} from {percent(band.at_least)}" for band in b.spec.bands)
    return f"{alert(b)} Bands: {bands}."


def alert(b: Bundle) -> str:
    """The alert's threshold and where it comes from."""
    spec = b.spec
    origin = "declared in the spec"
    if spec.triage:
        origin = (
            "chosen on the tuning rows at the least cost, the square of the levels missed, times"
            f" {spec.triage.under_weight:g} where an urgent patient is given a less urgent one"
        )
    elif spec.alert_by == "utility":
        origin = "the one of the greatest utility on the tuning rows"
    return f"Alert from a risk of {percent(spec.alert_at)}, {origin}."


def how_to_use(b: Bundle) -> str:
    return " ".join(f"{band.label.en}: {sentence(band.action.en)}" for band in b.spec.bands)


def out_of_scope(b: Bundle) -> str:
    return " ".join(sentence(caution.en) for caution in b.spec.cautions)


def inputs(b: Bundle) -> str:
    columns = [b.mart[name] for name in b.inputs]
    by_time: dict[str, list[str]] = {}
    for column in columns:
        by_time.setdefault(column.available, []).append(column.label.en)
    known = "; ".join(
        f"{KNOWN.get(when, f'known at {when}')}: {', '.join(names)}" for when, names in by_time.items()
    )
    back = f" Each hourly input looks back {b.spec.lookback} hours." if b.spec.lookback else ""
    return f"{len(columns)} inputs, {known}.{back}"


def input_types(b: Bundle) -> str:
    kinds = [b.mart[name].kind for name in b.inputs]
    told = listed([f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)])
    return f"Input: structured values of one {_row(b)} ({told}). Output: {output_value(b)}"


def _row(b: Bundle) -> str:
    return b.mart.row.en[0].lower() + b.mart.row.en[1:]


def model_type(b: Bundle) -> str:
    boosting, spec = b.spec.boosting, b.spec
    target = "how urgent the level is, by least squares" if spec.triage else "the outcome, by log-loss"
    text = (
        f"Gradient-boosted trees (XGBoost {b.libraries.get('xgboost-cpu', 'version not kept')}):"
        f" {count(b.trees)} trees of depth at most {boosting.max_depth}, learning rate"
        f" {boosting.learning_rate:g}, that learn {target}; stopped early on the tuning rows."
    )
    rising = [name for name, sign in spec.monotone.items() if sign > 0]
    falling = [name for name, sign in spec.monotone.items() if sign < 0]
    if rising:
        text += f" The risk never falls as these rise: {labels(b, rising)}."
    if falling:
        text += f" The risk never rises as these rise: {labels(b, falling)}."
    return f"{text} {calibration(b)}"


def calibration(b: Bundle) -> str:
    line = b.calibration
    text = (
        f"Calibrated by a straight line in log-odds on the tuning rows (intercept"
        f" {number(line.intercept)}, slope {number(line.slope)}), so that the explanation stays exact."
    )
    if line.sites:
        text += (
            f" {count(len(line.sites))} sites have an intercept of their own, shrunk to the overall one"
            f" (standard deviation between sites {number(line.spread)}); any other site gets the overall"
            " one."
        )
    return text


def predictors(b: Bundle) -> str:
    text = (
        "A number enters as it is, without categories or scaling; a category becomes one column for each"
        " value; a missing value stays missing."
    )
    if b.spec.lookback:
        text += f" Of each hourly input its course over the last {b.spec.lookback} hours enters."
    return text


def comparators(b: Bundle) -> str:
    names = [comparator(name) for name in dict.fromkeys([LOGISTIC, *b.spec.comparators])]
    text = f"On the very same rows: {listed(names)}."
    if set(b.spec.comparators) - {MAJORITY}:
        text += " A score becomes a risk by a straight line in log-odds learned from the training rows."
    return text


def measures(b: Bundle) -> str:
    low, high = b.spec.benefit
    return (
        "Discrimination (AUROC, AUPRC), calibration (intercept, slope, observed over expected, ICI, a"
        " smoothed curve, Brier score and its skill), net benefit for thresholds from"
        f" {percent(low)} to {percent(high)} against treating all and none; sensitivity, specificity,"
        " predictive values and alerts at the threshold. 95% intervals by bootstrap,"
        f" resampling {b.resampled}. {comparators(b)}"
    )


def imbalance(b: Bundle) -> str:
    text = (
        "Outcomes are neither weighted nor resampled; the calibration keeps the tuning rows' own share."
    )
    n, events = b.figures.get("n"), b.figures.get("events")
    return f"{text} Events among the test rows: {percent(events / n)}." if n and events else text


def calculation(b: Bundle) -> str:
    site = ", plus the site's intercept" if b.calibration.sites else ""
    if b.spec.triage:
        site += "; for a level or a more urgent one, plus the offset of that level"
    return (
        f"risk = 1 / (1 + exp(-z)), z = intercept + slope × the sum of the trees{site}. The same"
        " functions train and serve; “caremodels score” does it for many rows."
    )


def model_object(b: Bundle) -> str:
    return (
        "The registered version as plain files: booster.ubj (the trees), calibration.json, spec.json,"
        " mart.json (the contract of the inputs) and others, each held to its SHA-256 in manifest.json."
        f" {count(b.trees)} trees."
    )


def handling(b: Bundle) -> list[str]:
    """What it does with poor or missing inputs: the same rules in training, service and batch."""
    required = [column.label.en for column in b.mart.columns if column.required]
    found = [
        "A missing input stays missing: nothing is put in its place. The answer names it."
        + (f" What must be given: {', '.join(required)}." if required else "")
    ]
    if not b.spec.lookback:
        found.append(
            "Training rows are repeated with inputs withheld, so that a gap is not read as a finding."
        )
    found += [
        (
            "A value outside its plausible range, a category that is not allowed, a field that is not"
            " known or an impossible unit is refused, with field and rule; other rows are answered."
        ),
        f"Outside the cohort ({_asked(b)}) it abstains and says why: no risk is given."
        if b.spec.at_request(b.mart)
        else "No rule about who is in the cohort can be asked of a request: the caller must hold to it.",
    ]
    found += _withholds(b)
    imputed = next((a.name for a in b.spec.ablations if a.imputed), None)
    without = at(b.figures, "ablations", imputed or "", "auroc")
    if without is not None:
        found.append(
            f"What was not measured may tell something by itself: with a median in each gap the AUROC is"
            f" {number(without)} instead of {number(at(b.figures, 'auroc', 'value'))}."
        )
    strange = at(b.figures, "novelty", "above_99")
    if strange is not None:
        found.append(
            "How unlike the training rows someone's inputs are is scored beside the risk:"
            f" {percent(strange)} of the test rows are stranger than 99% of the training rows."
        )
    return found


def _withholds(b: Bundle) -> list[str]:
    """When no risk is given, how often that is, and how it fares as inputs go missing."""
    declared, found = b.spec.support, []
    abstained = at(b.figures, "poor_inputs", "abstained") or {}

    def often(rule: str) -> str:
        return f" ({percent(abstained[rule])} of the test rows)" if rule in abstained else ""

    if declared.at_least:
        columns = b.mart.by_name
        names = ", ".join(columns[n].label.en.lower() if n in columns else n for n in declared.measured)
        found.append(
            f"No risk is given where fewer than {declared.at_least} of {names} were"
            f" measured{often('missing')}."
        )
    if declared.novelty < 1:
        found.append(
            "No risk is given where what was measured is stranger than in"
            f" {declared.novelty * 100:.6g}% of the training rows{often('novelty')}."
        )
    if declared.largest_set is not None:
        found.append(
            f"No risk is given where the prediction set holds more than {declared.largest_set}"
            f" classes{often('ambiguous')}."
        )
    found += [
        f"With {percent(row['share'])} of the inputs withheld at random the AUROC is"
        f" {number(row['auroc'])}, observed / expected {number(row['oe'], 2)}, and"
        f" {percent(row['answered'])} would be answered."
        for row in at(b.figures, "poor_inputs", "withheld") or ()
        if row["share"] and row["auroc"] is not None
    ]
    return found


def _asked(b: Bundle) -> str:
    return "; ".join(criterion.reason.en for criterion in b.spec.at_request(b.mart))


def interaction(b: Bundle) -> str:
    by_hand = [column.label.en for column in map(b.mart.__getitem__, b.inputs) if _judged(column)]
    text = (
        "Inputs come from the record; nobody types them for the model. A person reads the risk, its band"
        " and its reasons, and decides."
    )
    return f"{text} Judged by staff before they are recorded: {', '.join(by_hand)}." if by_hand else text


def _judged(column: Column) -> bool:
    """Whether the value is somebody's judgement: a score or a level that no device measures."""
    return column.unit in ("{score}", "{level}")


def transparency(b: Bundle) -> str:
    del b  # the same for every version
    return (
        "The contributions of an answer add up to it exactly. Each version carries its figures, its card"
        " and the hash of every file."
    )


def third_party(b: Bundle) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in sorted(b.libraries.items()))
    return " ".join([*map(sentence, b.provenance.attribution), f"Libraries: {libraries}."])
