"""The model card: one evidence bundle as a page for people and as documents for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from data.errors import NotFoundError
from models.artifact import Artifact
from models.cohort import Cohort
from models.ledger import Entry
from models.manifest import NOTICE
from training.documents import chai, hti1, page, people, tripod
from training.documents.bundle import Bundle, patients
from training.documents.field import Field
from training.documents.questions import KEYS, answers

DOCUMENTS = (
    "card.html",
    "card.json",
    "card.chai.xml",
    "card.hti1.json",
    "card.tripod.json",
    "evaluation.json",
)
"""What :func:`documents` gives, and an artifact may carry."""


def write(
    folder: Path,
    fitted: Artifact,
    figures: Mapping[str, Any],
    *,
    drawn: Mapping[str, bytes],
    cohort: Cohort,
) -> None:
    """Every document and one PNG a plot, in the new ``folder``. ``cohort``: the test rows.

    Raises ContractError where the file beside the spec has a key that no document asks for.
    """
    found = documents(fitted, figures, drawn=drawn, patients=patients(cohort))
    folder.mkdir(parents=True)
    for name, content in found.items():
        (folder / name).write_bytes(content)
    for name, png in drawn.items():
        (folder / f"{name}.png").write_bytes(png)


def documents(
    fitted: Artifact,
    figures: Mapping[str, Any],
    *,
    drawn: Mapping[str, bytes],
    patients: int | None,
    version: str | None = None,
    ledger: Sequence[Entry] = (),
) -> dict[str, bytes]:
    """File name -> content, for a version just fitted or one registered long ago.

    ``patients``: how many people stand in the test rows, None where nobody is named (``card.json``
    keeps it). What a person has written since then is read anew. Raises ContractError as :func:`write`.
    """
    bundle = Bundle.of(
        fitted,
        figures,
        patients=patients,
        people=people.read(people.place(fitted.spec.name), KEYS),
        version=version,
        ledger=ledger,
    )
    return of_bundle(bundle, drawn)


def again(
    folder: Path,
    fitted: Artifact,
    *,
    figures: Mapping[str, Any] | None = None,
    version: str | None = None,
    ledger: Sequence[Entry] = (),
) -> dict[str, bytes]:
    """The documents of the version in ``folder``, with what was written and decided since.

    Figures (others, if given) and plots are those that were registered with it. Raises ContractError as
    :func:`write`, NotFoundError where the folder holds no card.
    """
    try:
        told = {name: (folder / name).read_bytes() for name in DOCUMENTS}
    except FileNotFoundError as error:
        raise NotFoundError(f"{folder} holds no {Path(error.filename).name}") from None
    return documents(
        fitted,
        msgspec.json.decode(told["evaluation.json"]) if figures is None else figures,
        drawn=page.plots(told["card.html"]),
        patients=msgspec.json.decode(told["card.json"])["patients"],
        version=version,
        ledger=ledger,
    )


def of_bundle(b: Bundle, drawn: Mapping[str, bytes]) -> dict[str, bytes]:
    """File name -> content."""
    fields = answers(b)
    named = {"model": b.spec.name, "version": b.version}
    return {
        "card.html": page.render(b, fields, drawn).encode(),
        "card.json": _json({**named, **_content(b, fields)}),
        "card.chai.xml": chai.xml(b, fields),
        "card.hti1.json": _json({**named, "attributes": hti1.attributes(fields)}),
        "card.tripod.json": _json({**named, "items": tripod.checklist(fields)}),
        "evaluation.json": _json(b.figures),
    }


def _json(content: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def _content(b: Bundle, fields: Mapping[str, Field]) -> dict[str, Any]:
    spec = b.spec
    return {
        "title": asdict(spec.title),
        "use": b.provenance.use,
        "notice": asdict(NOTICE) if b.demonstration else None,
        "outcome": {"label": asdict(spec.outcome.label), "horizon": asdict(spec.outcome.horizon)},
        "intended_use": asdict(spec.intended_use),
        "cautions": [asdict(caution) for caution in spec.cautions],
        "bands": [asdict(band) for band in spec.bands],
        "alert_at": spec.alert_at,
        "provenance": b.provenance,
        "patients": b.patients,
        "fields": [{**asdict(field), "state": field.state} for field in fields.values()],
        "ledger": b.ledger,
        "figures": b.figures,
    }
