"""The card as a page for people, and the files beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from data.contract import Text
from data.errors import ContractError, NotFoundError
from models.cohort import NOBODY
from models.spec import Level, Outcome, Triage
from training import card
from training.documents import people
from training.documents.bundle import Bundle, patients
from training.documents.questions import answers
from training.documents.words import COMPARATORS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "card"
DRAWN = {"roc": b"\x89PNG roc", "beeswarm": b"\x89PNG swarm", "of_tomorrow": b"\x89PNG new"}


class Page(HTMLParser):
    """What a browser sees of a page: its texts, anchors, links and what it would fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.anchors += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.fetched += [given["src"]] if "src" in given else []

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return msgspec.json.decode((GOLDEN / "bundle.json").read_bytes(), type=Bundle)


@pytest.fixture(scope="module")
def figures(bundle) -> dict:
    return dict(bundle.figures)


def page(bundle: Bundle, drawn=None) -> Page:
    return Page(card.of_bundle(bundle, drawn or {})["card.html"].decode())


def test_every_document_and_plot_is_a_file(tmp_path, tiny, cohort, figures):
    folder = tmp_path / "evidence"
    card.write(folder, tiny, figures, drawn=DRAWN, cohort=cohort)
    plots = {f"{name}.png" for name in DRAWN}
    assert {path.name for path in folder.iterdir()} == set(card.DOCUMENTS) | plots
    assert (folder / "roc.png").read_bytes() == DRAWN["roc"]
    assert msgspec.json.decode((folder / "evaluation.json").read_bytes()) == figures


def test_the_documents_know_the_rows_only_by_how_many_people_they_are_of(
    tmp_path, tiny, cohort, figures
):
    """So that no document can hold a patient's value."""
    strangers = replace(
        cohort,
        rows={name: values[:1].repeat(len(values)) for name, values in cohort.rows.items()},
        patient=cohort.patient[::-1] + 1_000_000,
        site=np.full(len(cohort), "elsewhere", dtype=object),
    )
    for name, rows in (("one", cohort), ("other", strangers)):
        card.write(tmp_path / name, tiny, figures, drawn=DRAWN, cohort=rows)
    for name in card.DOCUMENTS:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_version_of_long_ago_can_be_told_with_its_number(tiny, figures):
    made = card.documents(tiny, figures, drawn={}, patients=7, version="12")
    assert msgspec.json.decode(made["card.json"])["version"] == "12"
    assert msgspec.json.decode(made["card.json"])["patients"] == 7
    assert "version 12" in Page(made["card.html"].decode()).text


def test_a_card_is_told_anew_with_what_was_written_and_decided_since(
    tmp_path, tiny, cohort, figures, bundle, monkeypatch
):
    folder = tmp_path / "evidence"
    card.write(folder, tiny, figures, drawn=DRAWN, cohort=cohort)
    written = {name: (folder / name).read_bytes() for name in card.DOCUMENTS}
    assert card.again(folder, tiny) == written
    path = tmp_path / "ed_admission.toml"
    path.write_text('developer = "Ward 7"', encoding="utf-8")
    monkeypatch.setattr(people, "place", lambda _: path)
    anew = card.again(folder, tiny, version="3", ledger=bundle.ledger)
    seen = Page(anew["card.html"].decode())
    assert "Ward 7" in seen.text
    assert "promote to challenger" in seen.text
    assert len(seen.fetched) == len(DRAWN)
    assert anew["evaluation.json"] == written["evaluation.json"]


def test_a_folder_without_a_card_is_not_told_anew(tmp_path, tiny):
    with pytest.raises(NotFoundError, match=r"holds no card\.html"):
        card.again(tmp_path, tiny)


def test_trees_are_counted_and_not_their_rounds(tiny, figures):
    told = replace(tiny, spec=replace(tiny.spec, boosting=replace(tiny.spec.boosting, trees_a_round=4)))
    made = Bundle.of(told, figures, patients=None, people={})
    assert made.trees == 4 * tiny.booster.num_boosted_rounds()


def test_a_wrong_key_beside_the_spec_is_an_error_before_anything_is_written(
    tmp_path, tiny, cohort, figures, monkeypatch
):
    path = tmp_path / "ed_admission.toml"
    path.write_text('developr = "A"', encoding="utf-8")
    monkeypatch.setattr(people, "place", lambda _: path)
    with pytest.raises(ContractError, match="no field is called developr"):
        card.write(tmp_path / "evidence", tiny, figures, drawn=DRAWN, cohort=cohort)
    assert not (tmp_path / "evidence").exists()


def test_people_are_counted_where_rows_name_them(cohort):
    named = replace(cohort, patient=np.arange(len(cohort)) // 2)
    assert patients(named) == -(-len(cohort) // 2)
    assert patients(replace(cohort, patient=np.full(len(cohort), NOBODY))) is None


def test_the_page_needs_no_other_file(bundle):
    seen = page(bundle, DRAWN)
    assert len(seen.fetched) == len(DRAWN)
    assert all(source.startswith("data:image/png;base64,") for source in seen.fetched)
    assert all(link.startswith("#") for link in seen.links)
    assert not {"script", "link", "iframe"} & set(seen.tags)


def test_every_link_leads_to_a_place_on_the_page(bundle):
    seen = page(bundle)
    assert len(seen.anchors) == len(set(seen.anchors))
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.anchors)
    assert {field.anchor for field in answers(bundle).values()} <= set(seen.anchors)


def test_every_link_leads_somewhere_without_any_figures_too(bundle):
    seen = page(replace(bundle, figures={}, people={}))
    assert {field.anchor for field in answers(bundle).values()} <= set(seen.anchors)


def test_a_plot_that_the_page_does_not_know_is_shown_under_its_name(bundle):
    assert "of_tomorrow" in page(bundle, DRAWN).text


def test_every_comparator_stands_beside_the_model(bundle):
    seen = page(bundle).text
    for name in bundle.comparators:
        assert seen.count(COMPARATORS[name]) >= 3, name


def test_a_comparator_without_a_title_stands_under_its_name(bundle):
    with_new = bundle.comparators | {"new_score": bundle.comparators["acuity"]}
    seen = page(replace(bundle, figures={**bundle.figures, "comparators": with_new}))
    assert "new score" in seen.text


def test_the_page_says_in_both_languages_what_to_do_and_what_not(bundle):
    seen = page(bundle).text
    for text in (
        bundle.spec.title,
        bundle.spec.intended_use,
        *bundle.spec.cautions,
        *(part for band in bundle.spec.bands for part in (band.label, band.action)),
    ):
        assert text.en in seen
        assert text.zh in seen


def test_only_a_demonstration_carries_the_notice(bundle):
    assert "仅供演示，不得用于诊疗。" in page(bundle).text
    care = replace(bundle, provenance=replace(bundle.provenance, use="care"))
    assert "仅供演示" not in page(care).text
    assert "Demonstration" not in page(care).text


def test_a_field_that_nobody_wrote_says_who_must(bundle):
    seen = page(bundle).text
    assert "to be written by the clinical lead" in seen
    assert "Department of Medical Informatics" in seen
    unwritten = [field for field in answers(bundle).values() if field.value is None]
    assert all(field.title in seen for field in unwritten)
    assert f"{len(unwritten)} still to be written" in seen


def test_markup_in_any_text_is_shown_and_not_obeyed(bundle):
    attack = "<script>alert(1)</script>"
    spec = replace(
        bundle.spec,
        title=Text(attack, attack),
        cautions=(Text(attack, attack),),
        bands=tuple(
            replace(band, label=Text(attack, attack), action=Text(attack, attack))
            for band in bundle.spec.bands
        ),
    )
    groups = [{**row, "level": attack} for row in bundle.figures["groups"]]
    hostile = replace(
        bundle,
        spec=spec,
        people={"developer": attack, "funding": "a\nb"},
        figures={**bundle.figures, "groups": groups},
        version=attack,
        provenance=replace(bundle.provenance, attribution=(attack,), terms=(attack,)),
    )
    content = card.of_bundle(hostile, {attack: b"png"})["card.html"].decode()
    assert "<script" not in content
    assert "script" not in Page(content).tags
    assert attack in Page(content).text


def test_who_promoted_it_and_why_is_told(bundle):
    seen = page(bundle).text
    assert "promote to challenger" in seen
    assert "Dr Chen" in seen
    assert "通过评审" in seen
    assert "Who promoted it" not in page(replace(bundle, ledger=())).text


def test_an_ordinal_model_shows_agreement_and_harm(bundle):
    label = Text("Level", "级")
    levels = tuple(
        Level(value=value, national=national, label=label, action=label)
        for value, national in ((1, "I"), (2, "II"), (3, "III"))
    )
    harm = Outcome(any_of=(), label=Text("Death", "死亡"), horizon=Text("in this stay", "住院期间"))
    triage = Triage(column="acuity", levels=levels, urgent=2, under_weight=8.0, harm=harm)
    spec = replace(bundle.spec, triage=triage, bands=triage.bands((0.2, 0.6)), alert_at=0.2)
    found = {
        "levels": [1, 2, 3],
        "kappa": {"value": 0.51, "low": 0.48, "high": 0.54},
        "kappa_four": {"value": 0.5, "low": 0.47, "high": 0.53},
        "kappa_best": {"value": 0.53, "low": 0.5, "high": 0.56},
        "sensitivity_urgent": {"value": 0.82, "low": 0.79, "high": 0.85},
        "specificity_urgent": 0.6,
        "under_triage": 0.045,
        "over_triage": 0.41,
        "under_urgent": 0.18,
        "over_urgent": 0.4,
        "table": [[10, 20, 3], [5, 600, 90], [1, 80, 191]],
        "harm": {
            "events": 40,
            "missed": {"value": 0.1, "low": 0.03, "high": 0.2},
            "nurse_missed": {"value": 0.3, "low": 0.2, "high": 0.42},
        },
    }
    seen = page(replace(bundle, spec=spec, figures={**bundle.figures, "triage": found})).text
    assert "0.510 (0.480 to 0.540)" in seen
    assert "82% (79% to 85%)" in seen
    assert "4.5%" in seen
    assert "10% (3.0% to 20%)" in seen
    assert "Nurse's level given 1 given 2 given 3 1 10 20 3 2 5 600 90 3 1 80 191" in seen
    assert "death, in this stay" in seen
    assert seen.index("Level of four") < seen.index("III")


def test_a_series_shows_its_utility_and_how_far_it_looks_back(bundle):
    reached = {"value": 0.44, "low": 0.42, "high": 0.46, "threshold": 0.024}
    spec = replace(bundle.spec, lookback=24, alert_by="utility")
    seen = page(replace(bundle, spec=spec, figures={**bundle.figures, "utility": reached})).text
    assert "0.440 (0.420 to 0.460) at a risk of 2.4%" in seen
    assert "over the last 24 hours" in seen
    assert "greatest utility on the tuning rows" in seen


def test_a_model_without_levels_or_utility_shows_neither(bundle):
    seen = page(bundle)
    assert not {"triage", "utility"} & set(seen.anchors)
