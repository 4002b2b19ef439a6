"""A new key for what the log holds sealed, while services go on writing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Engine,
    Select,
    Table,
    bindparam,
    func,
    insert,
    literal,
    select,
    text,
    update,
)

from data.log.schema import (
    answer,
    feedback,
    guarded,
    is_sqlite,
    maintenance,
    prediction,
    utc,
    writing,
)
from data.log.seal import MARK, Keyring, SealedError, answer_of, comment_of

IN_CLEAR, NO_KEY = "(in the clear)", "(no key here)"
_BATCH = 500
"""Rows a transaction: few enough that predictions do not wait long behind them."""


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """``key`` seals now. ``resealed`` texts were brought under it; ``lost`` no key here opens.

    ``retired``: keys that were taken away, since nothing is sealed with them any more. ``unused``:
    keys that may be taken away where they are given, which is not here.
    """

    key: str
    resealed: int
    lost: int
    retired: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _Sealed:
    """A column that is sealed, the one that its rows go by, and what each text is bound to."""

    table: Table
    key: Column[Any]
    content: Column[Any]
    owner: Column[Any]
    prefix: str


_ALL = (
    _Sealed(prediction, prediction.c.prediction_id, prediction.c.inputs, prediction.c.prediction_id, ""),
    _Sealed(feedback, feedback.c.id, feedback.c.comment, feedback.c.prediction_id, comment_of("")),
    _Sealed(answer, answer.c.key_hash, answer.c.body, answer.c.key_hash, answer_of("")),
)


def rotate(engine: Engine, keyring: Keyring, *, now: datetime, by: str, reason: str) -> Rotated:
    """Add a key, bring everything under it, and retire the keys that nothing uses any more.

    Every writer looks at the keyring in each transaction, so that what is written from the moment of
    the new key on is sealed with it. What an older log holds in the clear is sealed too. A text that
    no key opens stays as it is, and its key stays named. Killed in the middle, both keys are there
    and everything opens; the same command, again, does the rest.

    Keys that the environment gives are added and taken away there: then the newest of them is the
    one that everything is brought under. All hosts must have it by then.

    Raises:
        ConflictError: another rotation is under way.
        UnavailableError: the log cannot be read or written.
    """
    with keyring.alone():
        return _rotate(engine, keyring, {"at": utc(now), "by": by, "reason": reason})


def _rotate(engine: Engine, keyring: Keyring, signed: dict[str, Any]) -> Rotated:
    if keyring.ours:
        keyring.add()
    key = keyring.newest
    with guarded("written"):
        _wait_for_writers(engine)
        counts = [_reseal(engine, keyring, sealed) for sealed in _ALL]
        used = keys_in_use(engine, keyring)
        unused = tuple(name for name in keyring.ids if name != key and not used[name])
        done = Rotated(
            key=key,
            resealed=sum(resealed for resealed, _ in counts),
            lost=sum(lost for _, lost in counts),
            retired=unused if keyring.ours else (),
            unused=() if keyring.ours else unused,
        )
        with writing(engine) as connection:
            said = {**signed, "act": "rotate-key", "details": json.dumps(asdict(done))}
            connection.execute(insert(maintenance).values(said))
    # Last: until now whoever was killed would have lost nothing.
    if done.retired:
        keyring.retire(done.retired)
    return done


def keys_in_use(engine: Engine, keyring: Keyring) -> dict[str, int]:
    """How many texts each key of the ring has sealed, and how many ``IN_CLEAR`` and ``NO_KEY`` has.

    Raises UnavailableError where the log cannot be read.
    """
    found = dict.fromkeys([*keyring.ids, IN_CLEAR, NO_KEY], 0)
    with guarded("read"), engine.connect() as connection:
        for sealed in _ALL:
            whole = {name: _begins(sealed, f"{MARK}{name}.") for name in keyring.ids}
            parts = [func.count().filter(condition) for condition in whole.values()]
            marked = func.count().filter(_begins(sealed, MARK))
            query = select(func.count(), marked, *parts).where(sealed.content.is_not(None))
            total, ours, *each = connection.execute(query).one()
            for name, rows in zip(whole, each, strict=True):
                found[name] += rows
            found[IN_CLEAR] += total - ours
            found[NO_KEY] += ours - sum(each)
    return found


def _wait_for_writers(engine: Engine) -> None:
    """Until every transaction is over that may have sealed with a former key."""
    for sealed in _ALL:  # one by one: whoever waits for the next holds none
        with writing(engine) as connection:  # of SQLite the lock itself
            if not is_sqlite(engine.url):
                connection.execute(text(f"LOCK TABLE {sealed.table.name} IN SHARE MODE"))


def _reseal(engine: Engine, keyring: Keyring, sealed: _Sealed) -> tuple[int, int]:
    """How many texts were brought under the newest key, and how many cannot be opened."""
    done = lost = 0
    own = update(sealed.table).where(sealed.key == bindparam("row"))
    change = own.values({sealed.content.name: bindparam("anew", type_=sealed.content.type)})
    for names in _batches(engine, sealed, keyring.newest):
        with writing(engine) as connection:
            # Read again, inside: a purge may have emptied what was found.
            rows = connection.execute(
                select(sealed.key, sealed.content, sealed.owner.label("owner"))
                .where(sealed.key.in_(names), sealed.content.is_not(None))
                .with_for_update()
            ).all()
            changed: list[dict[str, Any]] = []
            for key, content, owner in rows:
                bound_to = f"{sealed.prefix}{owner}"
                try:
                    opened = keyring.open(_text(content), bound_to=bound_to)
                except SealedError:
                    lost += 1
                    continue
                anew = keyring.seal(opened, bound_to=bound_to)
                changed.append({"row": key, "anew": anew.encode() if sealed.table is answer else anew})
            if changed:
                connection.execute(change, changed)
                done += len(changed)
    return done, lost


def _batches(engine: Engine, sealed: _Sealed, newest: str) -> Iterator[list[Any]]:
    """Keys of the rows that are not sealed with ``newest``, in order, a batch at a time."""
    last: Any = None
    while True:
        with engine.connect() as connection:
            found = list(connection.scalars(_others(sealed, newest, after=last).limit(_BATCH)))
        if not found:
            return
        yield found
        last = found[-1]


def _others(sealed: _Sealed, newest: str, *, after: Any) -> Select[Any]:
    """Keys of the rows that hold something which is not sealed with ``newest``."""
    other = ~_begins(sealed, f"{MARK}{newest}.")
    query = select(sealed.key).where(sealed.content.is_not(None), other).order_by(sealed.key)
    return query if after is None else query.where(sealed.key > after)


def _begins(sealed: _Sealed, prefix: str) -> ColumnElement[bool]:
    # Not by comparing: a collation may pass over dots.
    given: str | bytes = prefix.encode() if sealed.table is answer else prefix
    return func.substr(sealed.content, 1, len(prefix)) == literal(given, sealed.content.type)


def _text(content: str | bytes) -> str:
    return content.decode(errors="surrogateescape") if isinstance(content, bytes) else content
