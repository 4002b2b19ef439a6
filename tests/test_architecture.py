"""The shape of the house, held by tests where import-linter cannot."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "models", "training", "serving", "monitoring")
HEAVY = {"mlflow", "shap", "evidently"}
"""Each takes seconds to import: none belongs in a process that answers for patients."""


@cache
def sources() -> list[Path]:
    """Every file of Python that is ours, tests and benchmarks included."""
    folders = [*ROOMS, "tests", "benchmarks"]
    return [
        ROOT / "caremodels.py",
        *(f for name in folders for f in sorted((ROOT / name).rglob("*.py"))),
    ]


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


@cache
def imports(file: Path) -> set[str]:
    """The modules that ``file`` imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def importers(package: str) -> list[str]:
    """Our modules, tests apart, that import ``package``."""
    return sorted(
        file.relative_to(ROOT).as_posix()
        for file in sources()
        if room(file) in (*ROOMS, "caremodels.py")
        and any(name.partition(".")[0] == package for name in imports(file))
    )


@pytest.mark.parametrize("name", [*ROOMS, "caremodels"])
def test_our_flat_names_belong_to_no_other_distribution(name):
    """A dependency with a package called ``data`` would shadow ours, or be shadowed."""
    assert set(packages_distributions().get(name, [])) <= {"caremodels"}


def test_nothing_imports_the_command_line():
    assert importers("caremodels") == []


def test_each_heavy_dependency_has_one_door():
    assert importers("mlflow") == ["models/registry.py"]
    assert importers("evidently") == ["monitoring/report.py"]
    assert importers("bentoml") == ["serving/service.py"]


def test_a_pickle_is_nobodys_format():
    for package in ("pickle", "joblib", "cloudpickle", "dill"):
        assert importers(package) == []


IMPORT = """
import importlib, json, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        importlib.import_module(found.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_importing_does_nothing_and_brings_nothing_heavy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, "data", "models", "serving.scorer", "serving.app"],
        cwd=tmp_path,
        env={
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not HEAVY & set(json.loads(done.stdout))
    assert list(tmp_path.rglob("*")) == []


def test_no_package_among_the_tests():
    """Under importlib mode an ``__init__.py`` would give two tests of one name one module."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_file_can_be_read_in_one_sitting():
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in sources()
    }
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_a_room_of_tests_for_every_room():
    assert {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir()} >= {
        *ROOMS,
        "golden",
    }
