"""A simulated hospital network, for a machine that has no patient data.

One tertiary hospital, county hospitals and grassroots clinics see the same population for some
years. An outcome follows from the latent illness, the patient's reserve, what a clinician checks and
the beds that are left; the columns are what triage saw of that. It proves machinery, no medicine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data import simulate_patient as patient
from data.contract import ARROW_TYPES
from data.errors import UsageError
from data.marts.complaint import COMPLAINTS
from data.marts.ed_visit import DISPOSITION, HISTORY, MART
from data.period import Period
from data.simulate_patient import CONDITIONS, Flags, Floats, Illness, Ints, People, Vitals

DRIFTS: dict[str, str] = {
    "new_site": "a county hospital joins: older patients, another case mix, other habits of measuring",
    "fahrenheit": "the thermometers of county-02 report degrees Fahrenheit",
    "half_pulse": "county-01 sends the beats of half a minute as its heart rate",
    "missingness": "county-03 no longer records the oxygen saturation",
    "silent_site": "county-04 stops sending: its visits are not among the rows",
    "prevalence": "the severely ill come three times as often, and are treated as ever",
    "winter_surge": "respiratory infections surge: fever, cough, low saturation, older patients",
    "admission_practice": "beds are closed: fewer of the same patients are admitted",
    "label_shift": "beds go by turn: of the same patients as many are admitted, but not the same ones",
}

TIERS = ("tertiary", "county", "grassroots")
# Share of visits in which a tier leaves a column out: a clinic of two rooms has no triage desk.
MEASURED = ("temperature", "heart_rate", "respiratory_rate", "bp", "spo2", "pain", "acuity",
            "history", "race")  # fmt: skip
LEFT_OUT = np.array((
    (0.05, 0.03, 0.05, 0.05, 0.04, 0.15, 0.02, 0.02, 0.05),
    (0.09, 0.06, 0.16, 0.09, 0.09, 0.32, 0.07, 0.08, 0.15),
    (0.16, 0.14, 0.45, 0.20, 0.40, 0.62, 0.55, 0.32, 0.45),
))  # fmt: skip


@dataclass(frozen=True)
class Site:
    """``share`` of the network's visits; ``children`` and ``old`` shape who lives around it."""

    name: str
    tier: int
    region: str
    share: float
    children: float
    old: float


REGIONS = ("north", "east", "south", "west")
COUNTY, CLINIC = (0.13, 0.11, 0.09, 0.08), (0.035, 0.03, 0.025, 0.02, 0.02, 0.015, 0.015, 0.01)
SITES = (
    Site("tertiary-01", 0, "centre", 0.42, 0.10, 1.0),
    *(Site(f"county-0{i + 1}", 1, REGIONS[i], x, 0.12, 1.1) for i, x in enumerate(COUNTY)),
    *(Site(f"clinic-0{i + 1}", 2, REGIONS[i % 4], x, 0.17, 0.9) for i, x in enumerate(CLINIC)),
    Site("county-05", 1, "east", 0.0, 0.04, 2.0),  # opens with the drift new_site
)
NEW_SITE = len(SITES) - 1
PLACE = {site.name: place for place, site in enumerate(SITES)}
TIER_OF = np.array([site.tier for site in SITES])

HOURS = (2.4, 2, 1.7, 1.5, 1.5, 1.7, 2.4, 3.4, 4.9, 6, 6.5, 6.5,
         6.1, 5.8, 5.7, 5.6, 5.6, 5.7, 5.9, 5.8, 5.3, 4.6, 3.8, 3)  # fmt: skip
WEEKDAYS = np.array((1.12, 1.03, 1.0, 0.98, 0.98, 0.95, 0.94))  # Monday brings what waited

CODE = {category.id: index for index, category in enumerate(DISPOSITION)}
OUT_OF_SIGHT = ("transferred", "left_before_triage", "left_after_triage", "left_against_advice")
FREQUENT = 16  # one person in so many is a frequent attender
# Of a decision to admit: where it lies, and how much of it is the doctor on duty.
BASE, NOISE = -1.6, 1.02
# Where beds go by turn: how much of the illness still counts, and what keeps as many admitted.
BY_TURN, EVEN = 0.35, -0.97
_WRITTEN = 7  # which stream the record is written by

Time = np.datetime64
Times = npt.NDArray[np.datetime64]


BLOCK = 200_000


def blocks(*, visits: int, seed: int, **settings: Any) -> Iterator[pa.Table]:
    """:func:`simulate` for a network of any size, ``BLOCK`` visits of its own people at a time."""
    for number, start in enumerate(range(0, max(visits, 1), BLOCK)):
        size = min(BLOCK, visits - start)
        yield simulate(visits=size, seed=seed, block=number, **settings)


def simulate(
    *, visits: int, seed: int, first: str = "2015-01", last: str = "2021-12",
    drift: str | None = None, drift_from: str | None = None, block: int = 0, network: int | None = None,
) -> pa.Table:  # fmt: skip
    """``visits`` rows of ``ed_visit`` from month ``first`` to month ``last``, in order of arrival.

    The same arguments give the same table; each ``block`` is a network with people of its own. A
    ``drift`` (one of ``DRIFTS``) changes the visits from month ``drift_from`` on, by default the last
    six months, and leaves every earlier row as it is. ``network``: a seed whose sites' habits of
    measuring are kept, so that several seeds are several years of one network.
    Raises UsageError on an unknown drift, a month that is none, or fewer than one visit.

    >>> simulate(visits=2, seed=1, first="2020-03", last="2020-03")["visit_id"].to_pylist()
    ['sim-1-00000001', 'sim-1-00000002']
    """
    start, end, turn = _months(first, last, drift_from)
    if visits < 1:
        raise UsageError(f"visits: at least 1, not {visits}")
    if drift is not None and drift not in DRIFTS:
        raise UsageError(f"drift: one of {', '.join(DRIFTS)}, not {drift!r}")
    # A stream of its own for each part, and draws whose number never depends on a value: so the
    # rows before the drift are the same with it and without.
    streams = iter(_streams(seed, block))
    arrived = _arrivals(next(streams), visits, start, end)
    changed = {kind: (arrived >= turn) & (kind == drift) for kind in DRIFTS}
    surge = changed["winter_surge"]
    site, home = _sites(next(streams), arrived, joined=changed["new_site"])
    tier = TIER_OF[site]
    pool = _Pool.draw(next(streams), visits, start, end)
    chosen = pool.choose(next(streams), arrived, home, older=surge)
    people = pool.people(chosen, arrived)

    rng = next(streams)
    month = arrived.astype("M8[M]").astype(np.int64) % 12
    elders = np.where(site == NEW_SITE, 1.8, 1.0)
    ill_more = np.where(changed["prevalence"], 3.0, 1.0)
    mix = patient.CaseMix(month, 1.0 - tier, np.where(surge, 4.5, 1.0), elders, ill_more)
    condition = patient.draw_condition(rng.random(visits), people, mix)
    ill = patient.draw_illness(condition, rng.standard_normal(visits) + 0.5 * surge, people)
    hour = arrived.astype("M8[h]").astype(np.int64) % 24
    vitals = patient.draw_vitals(rng, people, ill, hour)
    urgency = patient.draw_urgency(rng, ill, vitals, people.age)
    # The tertiary hospital's patients from a county with more than a trifle were sent on from there.
    referred = (tier == 0) & (TIER_OF[home] == 1) & (urgency > 1)
    crowding = _crowding(next(streams), arrived, site)
    scene = _Scene(people, ill, vitals, urgency, site, tier, referred, hour, crowding)
    disposition, critical, died = _outcome(next(streams), scene, changed)
    unseen = np.isin(disposition, [CODE["dead_on_arrival"], CODE["left_before_triage"]])
    habits = None if network is None else _habits(_streams(network, 0)[_WRITTEN])
    columns = _written(next(streams), scene, unseen, changed, habits)
    departed, ended = _times(next(streams), scene, arrived, disposition)
    person, names = _identities(chosen, died, f"sim-{seed}-p{block or ''}")
    numbers = range(block * BLOCK + 1, block * BLOCK + visits + 1)
    columns |= {
        "visit_id": pa.array([f"sim-{seed}-{number:08d}" for number in numbers]),
        "patient_id": names,
        "site": _named([place.name for place in SITES], site),
        "site_tier": _named(TIERS, tier),
        "region": _named([place.region for place in SITES], home),
        "arrived_at": pa.array(arrived),
        "arrival_hour": pa.array(hour),
        "arrival_weekday": pa.array(_weekday(arrived) + 1),
        "departed_at": departed,
        "stay_ended_at": ended,
        "seen_72h": pa.array(_seen_72h(person, site, arrived)),
        "disposition": _named(list(CODE), disposition),
        "critical_care": pa.array(critical),
        # What became of those who left, or were sent to another hospital, nobody here knows.
        "died": pa.array(died, mask=np.isin(disposition, [CODE[name] for name in OUT_OF_SIGHT])),
    }
    arrays = [columns.get(c.name, pa.nulls(visits)).cast(ARROW_TYPES[c.kind]) for c in MART.columns]
    silent = changed["silent_site"] & (site == PLACE["county-04"])
    return pa.table(arrays, schema=MART.arrow_schema).filter(pa.array(~silent))


def _streams(seed: int, block: int) -> list[np.random.Generator]:
    return np.random.default_rng([seed, block] if block else seed).spawn(9)


def _months(first: str, last: str, turn: str | None) -> tuple[Time, Time, Time]:
    """Start of ``first``, end of ``last``, start of the drift; UsageError where they make no sense."""
    for option, month in (("first", first), ("last", last), ("drift_from", turn)):
        if month is not None and not re.fullmatch(r"(19|20)\d\d-\d\d", month):
            raise UsageError(f"{option}: a month as YYYY-MM, not {month!r}")
    whole = Period.between(first, last)
    start, end = np.datetime64(whole.start, "M"), np.datetime64(whole.end, "M")
    change = (
        max(start, end - 6) if turn is None else np.datetime64(Period.between(turn, turn).start, "M")
    )
    if not start <= change < end:
        raise UsageError(f"drift_from: a month from {first} to {last}, not {turn}")
    return start.astype("M8[us]"), end.astype("M8[us]"), change.astype("M8[us]")


def _weekday(times: Times) -> Ints:
    return np.asarray((times.astype("M8[D]").astype(np.int64) + 3) % 7)  # 0 is Monday


def _arrivals(rng: np.random.Generator, visits: int, start: Time, end: Time) -> Times:
    """Times of arrival in order: weekdays and hours as departments know them, no trend by year."""
    days: Times = np.arange(start, end, dtype="M8[D]")
    day = _pick(WEEKDAYS[_weekday(days)], rng.random(visits))
    minutes = _pick(np.array(HOURS), rng.random(visits)) * 60 + rng.integers(0, 60, visits)
    return np.sort(days[day].astype("M8[us]") + minutes.astype("m8[m]"))


def _pick(share: Floats, luck: Floats) -> Ints:
    """Positions drawn in proportion to ``share``, by ``luck`` in [0, 1)."""
    total = np.cumsum(share)
    return np.asarray(np.minimum(np.searchsorted(total, luck * total[-1], side="right"), len(share) - 1))


def _sites(rng: np.random.Generator, arrived: Times, *, joined: Flags) -> tuple[Ints, Ints]:
    """The site visited, and the site near which the patient lives."""
    hour = arrived.astype("M8[h]").astype(np.int64) % 24
    luck, new, away, other = rng.random((4, len(arrived)))
    closed = (hour < 7) | (hour >= 22)  # clinics shut at night
    share = np.array([place.share for place in SITES])
    by_day, by_night = share * (1 + 0.2 * (TIER_OF == 2)), share * (TIER_OF < 2)
    site = np.where(closed, _pick(by_night, luck), _pick(by_day, luck))
    site = np.where(joined & (new < 0.25), NEW_SITE, site)
    # One in eight comes from elsewhere in the network: commuters, and the referred.
    return site, np.where((away < 0.12) & (site != NEW_SITE), _pick(share, other), site)


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The people of each site by ``anchor``, the time about which one needs a hospital: each ages,
    but newer ones come later, so the population stays as old as it was.
    """

    size: Ints
    anchor: Times
    traits: People
    start: Time
    length: np.timedelta64

    @classmethod
    def draw(cls, rng: np.random.Generator, visits: int, start: Time, end: Time) -> _Pool:
        size = np.rint([max(8.0, 0.9 * visits * (place.share or 0.25)) for place in SITES]).astype(
            np.int64
        )
        site = np.repeat(np.arange(len(SITES)), size)
        rank = np.arange(size.sum()) - (np.cumsum(size) - size)[site]
        length = (end - start).astype("m8[us]")
        anchor = start + ((rank + 0.5) / size[site] * length.astype(np.int64)).astype("m8[us]")
        old = np.array([place.old for place in SITES])[site]
        child = rng.random(len(site)) < np.array([place.children for place in SITES])[site]
        age = np.where(child, 18 * rng.beta(0.8, 1.2, len(site)), 18 + 80 * rng.beta(1.1 * old, 1.6))
        traits = patient.draw_people(rng, age, often=rank % FREQUENT == 0)
        return cls(size=size, anchor=anchor, traits=traits, start=start, length=length)

    def choose(self, rng: np.random.Generator, arrived: Times, home: Ints, *, older: Flags) -> Ints:
        """Who comes: somebody whose anchor is within half a year, often a frequent attender."""
        sway, often, extra = rng.random((3, len(arrived)))
        half_year = min(np.timedelta64(182, "D") / self.length, 0.25)
        when = (arrived - self.start) / self.length + half_year * (2 * sway - 1)
        # Mirrored at either end of the years, lest the first and last people be crowded.
        when = np.clip(1 - np.abs(1 - np.abs(when)), 0, 1 - 1e-9)
        size = self.size[home]
        rank = (when * size).astype(np.int64)
        rank = np.where(often < 0.15, rank - rank % FREQUENT, rank)
        offset = (np.cumsum(self.size) - self.size)[home]
        chosen, neighbour = offset + rank, offset + (rank + 1) % size
        swap = older & (extra < 0.5) & (self.traits.age[neighbour] > self.traits.age[chosen])
        return np.asarray(np.where(swap, neighbour, chosen))

    def people(self, chosen: Ints, arrived: Times) -> People:
        """The chosen at the age that they have on arrival, in whole years."""
        years = (arrived - self.anchor[chosen]) / np.timedelta64(31557600, "s")
        age = np.floor(np.clip(self.traits.age[chosen] + years, 0, 104))
        rest = {f.name: getattr(self.traits, f.name)[chosen] for f in fields(People) if f.name != "age"}
        return People(age=age, **rest)


def _crowding(rng: np.random.Generator, arrived: Times, site: Ints) -> Floats:
    """How full each site's beds are on that day, in standard deviations; it lasts about a week."""
    days = arrived.astype("M8[D]").astype(np.int64)
    full = rng.standard_normal((int(days[-1] - days[0]) + 1, len(SITES)))
    for day in range(1, len(full)):
        full[day] = 0.85 * full[day - 1] + 0.527 * full[day]
    return np.asarray(full[days - days[0], site])


@dataclass(frozen=True)
class _Scene:
    """All that decides an outcome, most of it never written down."""

    people: People
    ill: Illness
    vitals: Vitals
    urgency: Floats
    site: Ints
    tier: Ints
    referred: Flags
    hour: Ints
    crowding: Floats


def _need(scene: _Scene) -> Floats:
    """Log-odds of needing a bed: the illness, the reserve, and the rules that clinicians go by."""
    ill, people, seen = scene.ill, scene.people, scene.vitals
    age, adult = people.age, people.age >= 15
    need = BASE + 0.4 * ill.gravity + ill.excess + 0.35 * ill.frail * people.frailty
    # A young heart keeps its pressure until it fails: the pair says more than either number.
    shocked = adult & (seen["sbp"] < 108) & (seen["heart_rate"] > 95)
    rules = 2.2 * shocked + 0.8 * (adult & (seen["sbp"] < 88))
    # GOLD, BTS: 88-92 % is the target of a chronic lung and an alarm in any other.
    rules = rules + 2.2 * (seen["spo2"] < np.where(people.has("copd"), 87.5, 93.5))
    weak = people.has("cancer") | people.has("hiv") | people.has("end_stage_renal_disease") | (age >= 72)
    rules = rules + 2.2 * (weak & (seen["temperature"] >= 37.8)) + 1.6 * (seen["temperature"] < 35.8)
    rules = rules + 1.4 * (adult & ((seen["heart_rate"] > 130) | (seen["heart_rate"] < 52)))
    # Protocols: troponin series above two risk factors (HEART), a scan and a night in bed for an old
    # head (NICE NG232), telemetry for a faint with heart disease (San Francisco rule).
    heart = people.has("coronary_artery_disease") | people.has("heart_failure")
    risks = (age >= 55) + 1 * heart + people.has("diabetes_type_2") + people.has("hyperlipidaemia")
    rules = rules + 2.6 * (ill.is_a("chest_wall_pain") & (risks >= 2))
    rules = rules + 2.6 * (ill.is_a("head_injury") & (age >= 65))
    rules = rules + 2.6 * (ill.is_a("faint") & (heart | (age >= 70)))
    rules = rules + 1.8 * (ill.is_a("fall") & (age >= 65) & ~people.nursing_home)
    rules = rules + 2.2 * (ill.is_a("self_harm", "psychiatric") & people.has("depression"))
    # Nobody sends an old person home at night; a nursing home takes its own back.
    late = (scene.hour >= 21) | (scene.hour < 6)
    rules = rules + 1.4 * (late & (age >= 70)) - 0.8 * people.nursing_home
    return np.asarray(need + 1.3 * rules + 1.2 * scene.referred - 0.35 * scene.crowding)


def _outcome(
    rng: np.random.Generator, scene: _Scene, changed: Mapping[str, Flags]
) -> tuple[Ints, Flags, Flags]:
    """Disposition, intensive care, death. Who is denied a bed does not die of it."""
    ill, seen, n = scene.ill, scene.vitals, len(scene.hour)
    fate, where, moved, leaves, kept = rng.random((5, n))
    judged, worsens = rng.logistic(size=(2, n))
    need, gravity, arrest = _need(scene), np.minimum(ill.gravity, 3), ill.is_a("arrest")
    lethal = np.where(gravity > -1, 0.01 * ill.strain**2.5 * np.exp(0.5 * gravity), 0)
    died = (fate < np.where(arrest, 0.85, np.minimum(lethal, 0.5))) & (scene.people.age >= 1)
    worst = 1.2 * (seen["spo2"] < 86) + 1.4 * ((seen["sbp"] < 90) & (seen["heart_rate"] > 105))
    worst = worst + (seen["respiratory_rate"] > 28) + 1.6 * gravity + 2.4 * ill.excess
    grave = died | (worst + 0.7 * worsens > 5.2)
    need = np.where(changed["label_shift"], BY_TURN * need + EVEN, need)
    admitted = grave | (need - 1.3 * changed["admission_practice"] + NOISE * judged > 0)

    # Tier decides where the bed is: a clinic has none, a county hospital no theatre and no cath lab.
    sent_on = np.array([c.centre for c in CONDITIONS])[ill.condition]
    sent_on = np.where(scene.tier == 2, 1.0, sent_on * (scene.tier == 1))
    brief = np.where(ill.is_a("chest_wall_pain", "faint", "head_injury"), 0.6, 0.2)
    to = np.where(~grave & (kept < brief), CODE["observation"], CODE["admitted"])
    to = np.where(admitted, np.where(moved < sent_on, CODE["transferred"], to), CODE["discharged"])
    # The impatient leave when it is full, and when nobody thought them ill.
    slow = 0.012 * np.exp(0.6 * scene.crowding) * (scene.urgency < 0.8) * (scene.people.age >= 15)
    against = 1.6 * slow + 0.006 + 0.04 * ill.is_a("intoxication", "psychiatric")
    ways = {"against_advice": against, "after_triage": 1.6 * slow, "before_triage": slow}
    for way, chance in ways.items():
        to = np.where(~grave & (leaves < chance), CODE[f"left_{way}"], to)
    to = np.where(died & (where < np.where(arrest, 0.8, 0.2)), CODE["died"], to)
    to = np.where(died & arrest & (where < 0.4), CODE["dead_on_arrival"], to)
    return to, grave & np.isin(to, [CODE["admitted"], CODE["transferred"]]), died


def _times(
    rng: np.random.Generator, scene: _Scene, arrived: Times, disposition: Ints
) -> tuple[pa.Array, pa.Array]:
    """When the visit ended, and the stay after it; of who went elsewhere the end is not known."""
    hurry, days = rng.standard_normal((2, len(arrived)))
    admitted = np.isin(disposition, [CODE["admitted"], CODE["observation"]])
    hours = np.exp(1.0 + 0.5 * admitted + 0.25 * scene.crowding + 0.5 * hurry)
    stay = np.where(disposition == CODE["observation"], 1.0, np.exp(1.4 + 0.7 * days)) * admitted
    departed = arrived + (hours * 60).astype("m8[m]")
    ended = departed + (stay * 1440).astype("m8[m]")
    unknown = np.isin(disposition, [CODE[name] for name in OUT_OF_SIGHT])
    return pa.array(departed), pa.array(ended, mask=unknown)


def _identities(chosen: Ints, died: Flags, prefix: str) -> tuple[Ints, pa.Array]:
    """A number and a name for each visit's patient; whoever died comes back as somebody else."""
    order = np.argsort(chosen, kind="stable")
    ranked = chosen[order]
    deaths = np.cumsum(died[order], dtype=np.int64) - died[order]
    lives = np.empty_like(chosen)
    lives[order] = deaths - deaths[np.searchsorted(ranked, ranked)]
    person, rows = np.unique(chosen * 1000 + lives, return_inverse=True)
    return rows, _named([f"{prefix}{code:010d}" for code in person], rows)


def _seen_72h(person: Ints, site: Ints, arrived: Times) -> Flags:
    order = np.lexsort((arrived, site, person))
    same = (np.diff(person[order]) == 0) & (np.diff(site[order]) == 0)
    seen = np.zeros(len(person), dtype=bool)
    seen[order[1:]] = same & (np.diff(arrived[order]) <= np.timedelta64(72, "h"))
    return seen


def _habits(rng: np.random.Generator) -> Floats:
    """(sites, measured) log-odds that a site leaves something out."""
    habit = 0.45 * rng.standard_normal((len(SITES), len(MEASURED)))
    habit += np.log(LEFT_OUT / (1 - LEFT_OUT))[TIER_OF]
    habit[NEW_SITE, [0, 2, 5]] = (0.2, 1.5, 2.5)
    return habit


def _left_out(
    rng: np.random.Generator, scene: _Scene, unseen: Flags, habits: Floats | None
) -> dict[str, Flags]:
    """What a site did not take down, by its habits and by how ill one looked."""
    n, drawn = len(unseen), _habits(rng)
    habit = drawn if habits is None else habits
    minor = 0.8 * (scene.urgency < 0.2) - 1.2 * (scene.urgency > 1.5) + 0.7 * rng.standard_normal(n)
    left = rng.random((n, len(MEASURED))) < 1 / (1 + np.exp(-habit[scene.site] - minor[:, None]))
    left[:, :7] |= unseen[:, None]
    out = dict(zip(MEASURED, left.T, strict=True))
    # A toddler's arm is seldom put in a cuff, and nobody scores its pain out of ten.
    small = scene.people.age < 4
    out["bp"] |= small & (rng.random(n) < 0.75)
    out["pain"] |= small | scene.ill.is_a("arrest")
    return out | {"sbp": out["bp"], "dbp": out["bp"]}


def _named(names: Sequence[str], codes: Ints) -> pa.Array:
    """Texts by their position in ``names``; -1 is none."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).cast(pa.string())


def _written(
    rng: np.random.Generator,
    scene: _Scene,
    unseen: Flags,
    changed: Mapping[str, Flags],
    habits: Floats | None,
) -> dict[str, pa.Array]:
    """What the record holds: rounded as clinicians write it down, with each site's gaps."""
    people, ill, n = scene.people, scene.ill, len(unseen)
    out = _left_out(rng, scene, unseen, habits)
    out["spo2"] |= changed["missingness"] & (scene.site == PLACE["county-03"])
    seen = {name: np.rint(values) for name, values in scene.vitals.items()}
    celsius = np.round(scene.vitals["temperature"], 1)
    hot = changed["fahrenheit"] & (scene.site == PLACE["county-02"])
    seen["temperature"] = np.where(hot, np.round(celsius * 1.8 + 32, 1), celsius)
    halved = changed["half_pulse"] & (scene.site == PLACE["county-01"])
    seen["heart_rate"] = np.where(halved, np.rint(seen["heart_rate"] / 2), seen["heart_rate"])
    # The dial on a clinic's wall is often read to the nearest ten.
    dial = (scene.tier == 2) & (rng.random(n) < 0.4)
    seen |= {name: np.where(dial, 10 * np.rint(seen[name] / 10), seen[name]) for name in ("sbp", "dbp")}
    seen["pain"] = patient.draw_pain(rng, ill)
    seen["acuity"] = 5.0 - np.searchsorted((-0.5, 0.5, 1.7, 3.6), scene.urgency)
    columns = {name: pa.array(values, mask=out[name]) for name, values in seen.items()}
    told = patient.draw_complaints(rng, ill)
    told[unseen | ((scene.tier == 2) & (rng.random(n) < 0.6)), 1:] = -1
    for index in range(5):
        columns[f"reason_{index + 1}"] = _named([c.id for c in COMPLAINTS], told[:, index])
    for index, column in enumerate(HISTORY):
        columns[column.name] = pa.array(people.history[:, index], mask=out["history"])
    calls, race, payer = rng.random((3, n))
    odds = 1.3 * scene.urgency - 3.4 + people.age / 40 - 1.5 * (scene.tier == 2)
    races = np.where(out["race"], -1, _pick(np.array((0.9, 0.04, 0.03, 0.03)), race))
    pays = _pick(np.array((0.45, 0.4, 0.1, 0.05)), np.where(scene.tier == 2, np.sqrt(payer), payer))
    return columns | {
        "age": pa.array(people.age),
        "sex": _named(("female", "male"), people.male.astype(np.int64)),
        "nursing_home": pa.array(people.nursing_home),
        "transferred_in": pa.array(scene.referred),
        "ambulance": pa.array((calls < 1 / (1 + np.exp(-odds))) | ill.is_a("arrest")),
        "follow_up": pa.array(ill.is_a("aftercare") & (calls > 0.3)),
        "race": _named(("Han", "Hui", "Manchu", "other"), races),
        "payer": _named(("employee insurance", "resident insurance", "self-pay", "other"), pays),
    }
