"""From a registered version to a release: the gate, the ledger, the pointer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import msgspec

from data.errors import UsageError
from data.home import Home
from data.pseudonym import load_key
from models import ledger, manifest, registry, release
from models.release import Pointer
from models.spec import ModelSpec
from training import gate


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What ``caremodels promote --json`` prints."""

    model: str
    version: str
    pointer: Pointer
    gate: tuple[gate.Finding, ...]
    promoted: bool


def promote(
    home: Home,
    spec: ModelSpec,
    version: str,
    *,
    pointer: Pointer,
    by: str,
    reason: str,
    stage: Callable[[str, float], None] = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Promotion:
    """Publish a version and point to it, if it passes its gate; if not, nothing changes.

    It is judged by the figures that were registered with it. Raises UsageError where nobody signs,
    NotFoundError for an unknown version, IntegrityError where its files are not those registered.
    """
    if not (by.strip() and reason.strip()):
        raise UsageError("--by and --reason say who promotes and why: neither may be empty")
    stage("fetching the version", 0.0)
    folder = registry.fetch(home, spec.name, version)
    stored = manifest.verify(folder)
    figures = msgspec.json.decode((folder / "evaluation.json").read_bytes())
    findings = tuple(gate.judge(figures, spec.limits))
    passed = all(finding.passed for finding in findings)
    if passed:
        stage("publishing", 0.5)
        release.publish(home.releases, folder, model=spec.name, version=version)
        # Written down before it takes effect: a pointer that nobody signed is the worse half.
        ledger.append(
            home.ledger,
            load_key(home.path),
            act=f"promote to {pointer}",
            model=spec.name,
            version=version,
            by=by,
            reason=reason,
            evidence={"gate": [asdict(f) for f in findings], "files": dict(stored.files)},
        )
        release.point(home.releases, model=spec.name, pointer=pointer, version=version)
        registry.set_alias(home, spec.name, pointer, version)
    return Promotion(model=spec.name, version=version, pointer=pointer, gate=findings, promoted=passed)
