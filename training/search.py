"""A search for better settings of the trees, within a stated budget, that goes on where it was cut off.

Optuna proposes (its tree-structured Parzen estimator) and says which trials are not worth finishing;
what has been finished is kept in a file of ours, written anew and whole after each trial. Each proposal
follows from the seed and the trials before it alone, so that a search that was killed ends as one that
was not. Why not Optuna's own storages: docs/decisions/0013-search.md
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import xgboost as xgb

from data.errors import IntegrityError, UsageError
from data.terminal import Stage
from models.spec import Boosting
from training import fit
from training.pair import Pair

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial as Proposal

SPACE: dict[str, tuple[float, float, str]] = {
    "max_depth": (3, 7, "whole"),
    "learning_rate": (0.02, 0.15, "log"),
    "min_child_weight": (1, 100, "log"),
    "subsample": (0.6, 1, "linear"),
    "colsample_bytree": (0.1, 0.8, "linear"),
    "reg_lambda": (0.1, 30, "log"),
}
"""Setting -> lowest, highest, and the scale on which it is drawn."""
STRIDE = 1.0
"""Trees times learning rate from one look to the next: a slow learner is compared with a quick one as
far along. At the same number of trees the slow one is always behind, and the slow ones end best."""
WHOLE, FROM, KEPT = 5, 4, 25.0
"""Trials that are finished before any is pruned; the look from which one may be; and the percentile of
the finished trials, at the same look, that its best so far must reach."""
LIBRARIES = ("xgboost-cpu", "optuna", "numpy")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """``loss`` is the least on the tuning rows; ``course`` holds the loss at each look."""

    settings: Boosting
    loss: float
    course: tuple[float, ...]
    pruned: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best settings; ``best`` is their loss on the tuning rows, ``declared`` that of the spec's own.

    ``trials`` counts the ``pruned`` ones too, ``seconds`` what all of them took, whenever they ran.
    """

    settings: Boosting
    best: float
    declared: float
    trials: int
    pruned: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may spend: so many trials, or minutes after which no trial starts, or both."""

    trials: int
    minutes: float | None

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise UsageError("--trials is 0 or more")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise UsageError("--minutes is more than 0")
        if not self.trials and self.minutes is None:
            raise UsageError("a search needs a number of trials, or of minutes")

    def spent(self, finished: Sequence[Trial]) -> float:
        """Share of it that ``finished`` took; 1 or more ends the search."""
        by_trials = len(finished) / self.trials if self.trials else 0.0
        seconds = sum(trial.seconds for trial in finished)
        return max(by_trials, seconds / (60 * self.minutes) if self.minutes else 0.0)

    def of(self, finished: Sequence[Trial]) -> list[Trial]:
        """The first of ``finished`` that it pays for, so that a smaller budget gives its own result."""
        paid: list[Trial] = []
        for trial in finished:
            if self.spent(paid) >= 1:
                break
            paid.append(trial)
        return paid


def search(
    train: Pair,
    tune: Pair,
    settings: Boosting,
    *,
    monotone: Sequence[int] = (),
    ordinal: bool = False,
    seed: int,
    trials: int,
    minutes: float | None = None,
    storage: Path,
    key: str,
    budget: int = fit.BUDGET,
    threads: int = 2,
    progress: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Found:
    """The settings with the least loss on the tuning rows, as :func:`training.fit.boosted` fits them.

    ``settings`` are the first trial, so that the result is never worse. What is finished is kept in
    ``storage`` under ``key`` and a hash of all that it follows from: the rows, the settings, the seed,
    the libraries. Asked again, the search goes on from there. Number of ``trials`` given, same seed and
    same rows find the same settings; ``minutes`` depend on the machine. ``budget`` is bytes of matrix.

    Raises UsageError where there is no budget, NotEnoughDataError as fitting does, and IntegrityError
    where the file of finished trials is none.
    """
    allowed = Budget(trials=trials, minutes=minutes)
    fit.hold(training=train, tuning=tune)
    told = {"monotone": list(monotone), "ordinal": ordinal, "seed": seed, "threads": threads}
    place = storage / f"{key}-{_digest(train, tune, settings, budget=budget, **told)}.json"
    finished = trials_in(place)
    before = allowed.spent(allowed.of(finished))
    learned: xgb.DMatrix | None = None
    while (spent := allowed.spent(paid := allowed.of(finished))) < 1:
        # Of what was left to do: the pace says how long the rest takes.
        progress(_text(paid, allowed), (spent - before) / (1 - before))
        if learned is None:  # once for all trials
            learned = train.dmatrix(budget=budget)
            tuned = tune.dmatrix(budget=budget, like=learned)
        proposal, tried = _ask(paid, settings, seed)
        parameters = fit.parameters(
            tried, ordinal=ordinal, monotone=monotone, seed=seed, threads=threads
        )
        ran = _run(proposal, tried, parameters, learned, tuned)
        # The same search beside this one may have come further: its trials are the same.
        finished = max([*paid, ran], trials_in(place), key=len)
        _keep(place, finished)
    progress(_text(paid, allowed), 1.0)
    best = min((trial for trial in paid if not trial.pruned), key=lambda trial: trial.loss)
    return Found(
        settings=settings if best is paid[0] else best.settings,
        best=best.loss,
        declared=paid[0].loss,
        trials=len(paid),
        pruned=sum(trial.pruned for trial in paid),
        seconds=sum(trial.seconds for trial in paid),
    )


def _ask(finished: Sequence[Trial], declared: Boosting, seed: int) -> tuple[Proposal, Boosting]:
    """What to try next, from the trials before and a seed of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space()
    own = int(np.random.SeedSequence([seed, len(finished)]).generate_state(1)[0])
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=own),
        pruner=optuna.pruners.PercentilePruner(KEPT, n_startup_trials=WHOLE, n_warmup_steps=FROM),
    )
    state = optuna.trial.TrialState
    for trial in finished:
        study.add_trial(
            optuna.trial.create_trial(
                state=state.PRUNED if trial.pruned else state.COMPLETE,
                value=trial.loss,
                params=_inside(trial.settings),
                distributions=space,
                intermediate_values=dict(enumerate(trial.course, 1)),
            )
        )
    if not finished:
        study.enqueue_trial(_inside(declared))
        return study.ask(space), declared
    proposal = study.ask(space)
    # Three digits can be typed into a spec, and no loss is told apart by a fourth.
    drawn: dict[str, Any] = {
        name: value if isinstance(value, int) else float(f"{value:.3g}")
        for name, value in proposal.params.items()
    }
    return proposal, replace(declared, **drawn)


def _space() -> dict[str, BaseDistribution]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(low), int(high))
        if scale == "whole"
        else FloatDistribution(low, high, log=scale == "log")
        for name, (low, high, scale) in SPACE.items()
    }


def _inside(settings: Boosting) -> dict[str, Any]:
    """The settings as the sampler sees them: what a spec declares may lie outside the space."""
    return {name: min(max(getattr(settings, name), low), high) for name, (low, high, _) in SPACE.items()}


def _run(
    proposal: Proposal,
    settings: Boosting,
    parameters: dict[str, Any],
    learned: xgb.DMatrix,
    tuned: xgb.DMatrix,
) -> Trial:
    began = time.monotonic()
    look = _Look(proposal, settings.learning_rate)
    xgb.train(
        parameters,
        learned,
        settings.rounds,
        evals=[(tuned, "tune")],
        early_stopping_rounds=settings.early_stopping_rounds,
        verbose_eval=False,
        callbacks=[look],
    )
    return Trial(
        settings=settings,
        loss=look.least,
        course=tuple(look.course),
        pruned=look.pruned,
        seconds=time.monotonic() - began,
    )


class _Look(xgb.callback.TrainingCallback):  # type: ignore[misc]  # it ships no types
    """Tells Optuna the loss every ``STRIDE``, and ends the trial when it says so."""

    def __init__(self, proposal: Proposal, learning_rate: float) -> None:
        super().__init__()
        self._proposal = proposal
        self._learning_rate = learning_rate
        self.course: list[float] = []
        self.least = math.inf
        self.pruned = False

    def after_iteration(
        self, model: object, epoch: int, evals_log: dict[str, dict[str, list[float]]]
    ) -> bool:
        del model
        (losses,) = evals_log["tune"].values()
        self.least = min(self.least, losses[-1])
        if (epoch + 1) * self._learning_rate < STRIDE * (len(self.course) + 1):
            return False
        self.course.append(losses[-1])
        self._proposal.report(losses[-1], len(self.course))
        self.pruned = bool(self._proposal.should_prune())
        return self.pruned


def _text(paid: Sequence[Trial], allowed: Budget) -> str:
    """For a person who waits."""
    done = allowed.spent(paid) >= 1
    number = f"{len(paid)} trials" if done else f"trial {len(paid) + 1}"
    if allowed.trials and not done:
        number += f" of {allowed.trials}"
    if not paid:
        return f"search: {number}"
    best = min(trial.loss for trial in paid if not trial.pruned)
    return f"search: {number}, best {best:.4f}, {sum(trial.pruned for trial in paid)} pruned"


def _digest(train: Pair, tune: Pair, settings: Boosting, *, budget: int, **told: object) -> str:
    """Of all that a search follows from: the very numbers that the trees learn from among it."""
    told |= {
        "settings": asdict(settings),
        # A matrix in pages has bins of its own.
        "paged": train.matrix.nbytes > budget,
        "rules": [SPACE, STRIDE, WHOLE, FROM, KEPT],
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    digest = hashlib.sha256(msgspec.json.encode(told))
    for pair in (train, tune):
        digest.update(repr(pair.matrix.shape).encode())
        for matrix, target in pair.blocks():
            digest.update(np.ascontiguousarray(matrix).data)
            digest.update(np.ascontiguousarray(target).data)
    return digest.hexdigest()[:24]


def trials_in(place: Path) -> list[Trial]:
    """The finished trials that a search keeps in the file ``place``."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=list[Trial])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError:
        raise IntegrityError(f"{place} holds no trials; without it the search starts anew") from None


def _keep(place: Path, finished: Sequence[Trial]) -> None:
    """Whole, and in one step: whoever is killed here leaves the trials before."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(finished))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place)
