"""The answers of a stretch of the log, with the inputs and explanations of some of them opened.

Inputs lie sealed and are nearly all of a row (decision 22): they are opened of a random sample, and of
a larger share of a small site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine

from data.contract import Rows
from data.log import read as log
from data.log.read import Pointer
from data.log.schema import utc
from data.log.seal import Keyring
from data.period import Period
from models.artifact import Artifact
from models.groups import levels
from monitoring import answers as reading
from monitoring import counting
from monitoring.answers import Answers, Stretch
from monitoring.counting import BoolArray, Ints
from monitoring.opened import Opened, Opener, Texts, draw

MOST = 50_000
"""Rows whose inputs are opened for all sites together."""
MOST_OF_SITE = 8_000
"""The same of each site that is held to a reference of its own. With both, verdicts on a million rows
are those of every row in 99.5 % of tests (``benchmarks/drift.py``)."""
UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """What was read. ``places``: the answers of ``stretch`` whose inputs were asked for, ``opened``
    what they are, and ``together`` the mask of those that are a random sample of all sites together.
    ``earlier``: places in its past, by which small sites are judged too, and ``opened_earlier`` theirs.
    ``as_of`` is naive UTC: outcomes recorded later are not known.
    """

    stretch: Stretch
    places: Ints
    opened: Opened
    together: BoolArray
    earlier: Ints
    opened_earlier: Opened
    as_of: datetime

    @property
    def answers(self) -> Answers:
        return self.stretch.answers


def sample(
    engine: Engine,
    loaded: Artifact,
    version: str,
    period: Period,
    *,
    keyring: Keyring,
    pointer: Pointer = "champion",
    zone: ZoneInfo = UTC_ZONE,
    as_of: datetime | None = None,
    most: int = MOST,
    most_of_site: int = MOST_OF_SITE,
    salt: int = 0,
    done: Callable[[float], None] = lambda share: None,  # noqa: ARG005 a listener that does not listen
) -> Sampled:
    """Read the answers of ``period`` (the wall clock of ``zone``) from one moment of the log.

    Inputs are opened of ``most`` rows or so, and of ``most_of_site`` of each site; which, follows from
    the predictions' ids and ``salt``. Raises UnavailableError where the log cannot be read.
    """
    as_of = utc(as_of or datetime.now(UTC))
    start, end = period.utc(zone)
    opener = Opener(loaded)
    with log.moment(engine) as connection:
        stretch = reading.read(
            connection,
            loaded.spec,
            version=version,
            pointer=pointer,
            start=start,
            end=end,
            as_of=as_of,
            zone=zone,
            done=lambda share: done(0.6 * share),
        )
        answers = stretch.answers
        known = [name for name in answers.sites if name in loaded.reference.sites]
        bound, together = counting.drawn(answers, draw(stretch.names, salt), known, most, most_of_site)
        places = np.flatnonzero(bound)
        names = stretch.names.take(pa.array(places)).to_pylist()
        batches = _told(log.opened(connection, names, keyring=keyring), len(names), done)
        opened = opener.read(batches, names)
        earlier = np.flatnonzero(counting.completing(answers, stretch.past, known))
        before = stretch.past_names.take(pa.array(earlier)).to_pylist()
        opened_earlier = opener.read(log.opened(connection, before, keyring=keyring), before)
    return Sampled(
        stretch=stretch,
        places=places,
        opened=opened,
        together=together[places],
        earlier=earlier,
        opened_earlier=opened_earlier,
        as_of=as_of,
    )


def grouped(loaded: Artifact, inputs: Rows, told: Mapping[str, Texts]) -> dict[str, Texts]:
    """Attribute of the spec -> level of each row: as the caller ``told`` it, or from its ``inputs``."""
    return {
        name: told[name] if name in told else levels(loaded.mart[name], inputs[name])
        for name in loaded.spec.subgroups
        if name != loaded.mart.site and name in {**inputs, **told}
    }


def _told(
    batches: Iterator[pa.RecordBatch], expected: int, done: Callable[[float], None]
) -> Iterator[pa.RecordBatch]:
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch)
        done(0.6 + 0.4 * seen / expected)
