"""The only importer of MLflow: log a run, register a version, move an alias, fetch.

MLflow is where data scientists look. Production reads releases (``models.release``), so that a
tracking server that is down, or an alias moved by hand, changes no answer.
"""

from __future__ import annotations

import fcntl
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import telemetry
from data.contract import Kind
from data.errors import CaremodelsError, NotFoundError
from data.home import Home
from models.artifact import Artifact
from models.ledger import Anchor, Entry

_COLUMN_TYPES: dict[Kind, str] = {
    # Doubles throughout: an integer column with a gap, or an int where a double stands, is refused.
    "number": "double",
    "integer": "double",
    "flag": "double",
    "category": "string",
    "text": "string",
    "time": "string",
}
ROOT = Path(__file__).resolve().parents[1]
NUMBER, MAC = "ledger.number", "ledger.mac"
"""Tags of a version: the last entry of the promotion ledger that is about it."""
PROMPT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A tracking server that is down is told within seconds where the answer can do without it."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version."""

    model: str
    version: str
    run_id: str


@contextmanager
def _mlflow(home: Home) -> Iterator[Any]:
    """MLflow, pointed at this home; its failures become ours."""
    telemetry.off()
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    # MLflow reports each schema migration and each registration as a log line of its own.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    home.path.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(home.tracking_uri)
    try:
        if home.tracking_uri.startswith("sqlite"):
            # MLflow makes its tables on first use, and two processes that do so at once both fail.
            folder = os.open(home.path, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                mlflow.MlflowClient().search_experiments(max_results=1)
            finally:
                os.close(folder)
        yield mlflow
    except mlflow.exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFoundError(error.message.splitlines()[0]) from None
        raise CaremodelsError(f"MLflow: {error.message.splitlines()[0]}") from None
    except SQLAlchemyError as error:
        raise CaremodelsError(f"MLflow: its store cannot be used ({type(error).__name__})") from None
    finally:
        # MLflow writes the address into the environment, where the next home would take it for a
        # setting of the user's.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def register(
    home: Home,
    artifact: Artifact,
    folder: Path,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    evidence: Path,
) -> Version:
    """Log a run with its parameters, figures and plots, and register ``folder`` as a new version.

    ``evidence``: a folder whose files are kept beside the model (plots, card, evaluation).
    """
    with _mlflow(home) as mlflow:
        experiment = _experiment(mlflow, home, artifact.spec.name)
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_params(dict(params))
            mlflow.log_metrics(dict(metrics))
            mlflow.set_tags({"use": artifact.manifest.provenance.use, "mart": artifact.spec.mart})
            mlflow.log_artifacts(str(evidence), "evaluation")
            with warnings.catch_warnings():
                # No input example: it would be some patient's row.
                warnings.filterwarnings("ignore", message=".*input example was not provided")
                model = mlflow.pyfunc.log_model(
                    name="model",
                    loader_module="models.pyfunc",
                    data_path=str(folder),
                    code_paths=[str(ROOT / "models"), str(ROOT / "data")],
                    signature=_signature(artifact),
                    pip_requirements=["-r " + str(ROOT / "requirements.lock")],
                )
            # Registered through the client: the fluent call prints to standard error.
            client = mlflow.MlflowClient()
            with suppress(mlflow.exceptions.MlflowException):  # it may exist, or be made meanwhile
                client.create_registered_model(artifact.spec.name)
            registered = client.create_model_version(
                artifact.spec.name,
                source=model.model_uri,
                run_id=run.info.run_id,
                model_id=model.model_id,
            )
            return Version(
                model=artifact.spec.name,
                version=str(registered.version),
                run_id=run.info.run_id,
            )


def latest(home: Home, model: str) -> str:
    """The newest version. Raises NotFoundError where none is registered."""
    with _mlflow(home) as mlflow:
        found = mlflow.MlflowClient().search_model_versions(f"name = '{model}'")
        if not found:
            raise NotFoundError(f"{model}: no version is registered; train one (caremodels train)")
        return str(max(int(version.version) for version in found))


def fetch(home: Home, model: str, version: str) -> Path:
    """The folder of a version's artifact. Raises NotFoundError where it is not registered."""
    with _mlflow(home) as mlflow:
        client = mlflow.MlflowClient()
        if version not in {str(v.version) for v in client.search_model_versions(f"name = '{model}'")}:
            raise NotFoundError(f"{model}: version {version} is not registered")
        place = mlflow.artifacts.download_artifacts(
            client.get_model_version_download_uri(model, version),
        )
        inner = [path.parent for path in Path(place, "data").glob("*/manifest.json")]
        if len(inner) != 1:
            raise NotFoundError(f"{model}: version {version} holds no model of caremodels")
        return inner[0]


def set_alias(home: Home, model: str, alias: str, version: str) -> None:
    """Show in MLflow what was released."""
    with _promptly(), _mlflow(home) as mlflow:
        mlflow.MlflowClient().set_registered_model_alias(model, alias, version)


def drop_alias(home: Home, model: str, alias: str) -> None:
    """Show in MLflow that ``alias`` names no version; where it names none, nothing is done."""
    with _promptly(), _mlflow(home) as mlflow:
        mlflow.MlflowClient().delete_registered_model_alias(model, alias)


def aliases(home: Home, model: str) -> dict[str, str]:
    """Alias -> version, as MLflow shows them; none where it does not know the model."""
    if _unmade(home):
        return {}
    try:
        with _promptly(), _mlflow(home) as mlflow:
            found = mlflow.MlflowClient().get_registered_model(model).aliases
            return {name: str(version) for name, version in found.items()}
    except NotFoundError:
        return {}


def anchor(home: Home, entry: Entry) -> None:
    """Keep a ledger entry's number and mac as tags of the version that it is about."""
    with _promptly(), _mlflow(home) as mlflow:
        client = mlflow.MlflowClient()
        # The mac first: ``ledger.hold`` takes an older number beside it for a process that was ended.
        for tag, value in ((MAC, entry.mac), (NUMBER, str(entry.number))):
            client.set_model_version_tag(entry.model, entry.version, tag, value)


def anchors(home: Home) -> list[Anchor]:
    """The ledger's entries that MLflow knows of, by the tags of each version."""
    if _unmade(home):
        return []
    found = []
    with _promptly(), _mlflow(home) as mlflow:
        client, token = mlflow.MlflowClient(), None
        while token != "":
            page = client.search_model_versions(page_token=token)
            found += [kept for version in page if (kept := _anchor(version))]
            token = page.token or ""
    return found


def _anchor(version: Any) -> Anchor | None:
    number, mac = version.tags.get(NUMBER), version.tags.get(MAC)
    if number is None and mac is None:
        return None
    place = f"MLflow's version {version.name} {version.version}"
    return Anchor(place=place, number=int(number) if str(number).isdecimal() else 0, mac=mac or "")


def _unmade(home: Home) -> bool:
    """Whether the home has no store yet: asking would make one, which takes seconds."""
    return home.tracking_uri.startswith("sqlite:///") and not Path(home.tracking_uri[10:]).exists()


@contextmanager
def _promptly() -> Iterator[None]:
    """Settings of MLflow's client under which a server that is down is told soon."""
    ours = {name: value for name, value in PROMPT.items() if name not in os.environ}
    os.environ |= ours
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _experiment(mlflow: Any, home: Home, name: str) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    place = None
    if home.tracking_uri.startswith("sqlite"):
        home.artifacts.mkdir(parents=True, exist_ok=True)
        place = home.artifacts.as_uri()
    return str(mlflow.create_experiment(name, artifact_location=place))


def _signature(artifact: Artifact) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [
        ColSpec(_COLUMN_TYPES[column.kind], column.name, required=column.required)
        for column in artifact.mart.columns
    ]
    return ModelSignature(Schema(inputs), Schema([ColSpec("double", "risk")]))
