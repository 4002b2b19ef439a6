"""A model as plain files: what is loaded answers as what was written, or is refused by name."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import xgboost as xgb

from data.contract import check, sample
from data.errors import IntegrityError, NotFoundError
from data.marts.ed_visit import MART
from models import artifact, tables
from models import manifest as manifest_file
from models.artifact import GOLDEN_ROWS
from models.calibration import sigmoid

FILES = (
    "booster.ubj",
    "calibration.json",
    "card.html",
    "comparators.json",
    "conformal.json",
    "golden.json",
    "logistic.json",
    "mart.json",
    "novelty.json",
    "ordinal.json",
    "reference.json",
    "spec.json",
)


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


@pytest.fixture(scope="module")
def loaded(written):
    return artifact.load(written)


def vouch(folder, name):
    """Make the manifest's hash fit the file again, as somebody who tampers would."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def test_the_folder_holds_plain_files_and_the_hash_of_each(written):
    manifest = manifest_file.verify(written)
    assert sorted(p.name for p in written.iterdir()) == sorted([*FILES, "manifest.json"])
    assert tuple(manifest.files) == FILES
    for name, expected in manifest.files.items():
        content = (written / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
        assert not content.startswith(b"\x80"), "a pickle"


def test_what_is_loaded_answers_bit_for_bit_as_what_was_written(tiny, loaded, cohort):
    before, after = tiny.score(cohort.rows), loaded.score(cohort.rows)
    assert before.risk.tobytes() == after.risk.tobytes()
    assert before.contributions.tobytes() == after.contributions.tobytes()
    assert before.base_value.tobytes() == after.base_value.tobytes()
    matrix = tiny.features.matrix(cohort.rows)
    assert tiny.logistic.risk(matrix).tobytes() == loaded.logistic.risk(matrix).tobytes()


def test_every_declaration_comes_back(tiny, loaded):
    assert loaded.spec == tiny.spec
    assert loaded.mart == tiny.mart
    assert loaded.calibration == tiny.calibration
    assert loaded.logistic == tiny.logistic
    assert loaded.reference == tiny.reference
    assert replace(loaded.manifest, files={}) == tiny.manifest


def test_writing_twice_gives_the_same_files(tiny, written, tmp_path):
    artifact.write(tmp_path / "again", tiny, evidence={"card.html": b"<p>A card.</p>\n"})
    for file in written.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_folder_that_exists_is_not_written_over(tiny, written):
    with pytest.raises(FileExistsError):
        artifact.write(written, tiny, evidence={})


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file_is_refused_by_name(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name} is not the file that was written"):
        artifact.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        artifact.load(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "one"}', b"\xff\xfe"])
def test_a_manifest_that_is_none(copy, content):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"manifest\.json is no manifest"):
        artifact.load(copy)


def test_no_model(tmp_path):
    with pytest.raises(NotFoundError, match="no model at"):
        artifact.load(tmp_path)


def test_a_format_that_is_not_known_is_refused(copy):
    manifest = msgspec.json.decode((copy / "manifest.json").read_bytes())
    manifest["format"] = manifest_file.FORMAT + 1
    (copy / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(IntegrityError, match="has format 5; this version reads 4"):
        artifact.load(copy)


@pytest.mark.parametrize(
    "change",
    [{"intercept": 1e-6}, {"slope": 1e-6}],
    ids=["intercept", "slope"],
)
def test_golden_rows_catch_a_change_that_the_manifest_vouches_for(copy, change):
    line = msgspec.json.decode((copy / "calibration.json").read_bytes())
    line |= {name: line[name] + shift for name, shift in change.items()}
    (copy / "calibration.json").write_bytes(msgspec.json.encode(line))
    vouch(copy, "calibration.json")
    manifest_file.verify(copy)
    with pytest.raises(IntegrityError, match="golden rows are answered differently here"):
        artifact.load(copy)


def test_golden_rows_catch_other_trees(copy, tiny):
    fewer = tiny.booster[: tiny.booster.num_boosted_rounds() - 1]
    (copy / "booster.ubj").write_bytes(bytes(fewer.save_raw("ubj")))
    vouch(copy, "booster.ubj")
    with pytest.raises(IntegrityError, match="answered differently"):
        artifact.load(copy)


def test_golden_rows_catch_a_contract_that_grew_narrower(copy):
    mart = msgspec.json.decode((copy / "mart.json").read_bytes())
    (age,) = (column for column in mart["columns"] if column["name"] == "age")
    age["high"] = 30
    (copy / "mart.json").write_bytes(msgspec.json.encode(mart))
    vouch(copy, "mart.json")
    with pytest.raises(IntegrityError, match="answered differently"):
        artifact.load(copy)


def test_explanations_that_are_not_xgboosts_are_refused_though_they_add_up(written, monkeypatch):
    def shared_out(value, share):
        said = shapley(value, share)
        return np.broadcast_to(said.mean(axis=2, keepdims=True), said.shape)

    shapley = tables.shapley
    monkeypatch.setattr(tables, "shapley", shared_out)
    with pytest.raises(IntegrityError, match="explanations are not XGBoost's on the golden rows"):
        artifact.load(written)


def test_trees_without_tables_are_loaded_and_explained_alike(written, loaded, cohort, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST", 0)
    other = artifact.load(written)
    assert not isinstance(other.explainer, type(loaded.explainer))
    rows = {name: values[:50] for name, values in cohort.rows.items()}
    before, after = loaded.score(rows), other.score(rows)
    assert before.risk.tobytes() == after.risk.tobytes()
    np.testing.assert_allclose(before.contributions, after.contributions, rtol=0, atol=1e-5)
    np.testing.assert_allclose(before.base_value, after.base_value, rtol=0, atol=1e-5)


def test_golden_rows_belong_to_nobody(written, tiny):
    golden = msgspec.json.decode((written / "golden.json").read_bytes())
    drawn = check(tiny.mart.columns, sample(tiny.mart, GOLDEN_ROWS, seed=1)).rows
    assert [row["instance"]["age"] for row in golden] == drawn["age"].tolist()
    np.testing.assert_array_equal([row["risk"] for row in golden], tiny.risk(drawn))


def test_the_artifact_knows_no_column_beyond_its_inputs(loaded):
    """No outcome, id or audit column is stored: none can be asked for or leak."""
    assert {column.role for column in loaded.mart.columns} == {"input"}


def test_base_and_contributions_give_the_risk(loaded, cohort):
    scored = loaded.score(cohort.rows)
    assert scored.additive.all()
    explained = sigmoid(scored.base_value + scored.contributions.sum(axis=1))
    np.testing.assert_allclose(explained, scored.risk, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(scored.risk, loaded.risk(cohort.rows))
    np.testing.assert_array_equal(scored.risk, sigmoid(scored.margin))


def test_an_explanation_that_does_not_add_up_is_seen(loaded, cohort):
    scored = loaded.score({name: values[:3] for name, values in cohort.rows.items()})
    off = scored.contributions.copy()
    off[1, 0] += 0.01
    assert replace(scored, contributions=off).additive.tolist() == [True, False, True]


def test_the_risk_is_that_of_the_trees_as_xgboost_gives_it(loaded, cohort):
    """Through another door of XGBoost, with the calibration written out."""
    matrix = loaded.features.matrix(cohort.rows)
    raw = loaded.booster.predict(xgb.DMatrix(matrix), output_margin=True).astype(np.float64)
    line = loaded.calibration
    risk = 1 / (1 + np.exp(-(line.intercept + line.slope * raw)))
    np.testing.assert_allclose(loaded.risk(cohort.rows), risk, rtol=1e-12)


def test_a_batch_is_scored_as_its_rows_one_by_one_in_any_order(loaded, cohort):
    rows = {name: values[:40] for name, values in cohort.rows.items()}
    batch = loaded.score(rows)
    for i in range(40):
        alone = loaded.score({name: values[i : i + 1] for name, values in rows.items()})
        assert alone.risk.tobytes() == batch.risk[i : i + 1].tobytes()
        assert alone.contributions.tobytes() == batch.contributions[i : i + 1].tobytes()
        assert alone.base_value[0] == batch.base_value[i]
    turned = loaded.score({name: values[::-1] for name, values in rows.items()})
    assert turned.risk[::-1].tobytes() == batch.risk.tobytes()


def test_no_rows_get_no_answers(loaded):
    empty = check(MART.columns, []).rows
    assert loaded.risk(empty).shape == (0,)
    scored = loaded.score(empty)
    assert scored.risk.shape == (0,)
    assert scored.contributions.shape == (0, len(loaded.features.features))
    assert scored.additive.all()


def test_a_row_with_nothing_but_an_age_is_scored(loaded):
    scored = loaded.score(check(loaded.mart.columns, [{"age": 50}]).rows)
    assert 0 < scored.risk[0] < 1
    assert scored.additive.all()


@pytest.mark.slow
def test_the_contributions_are_those_of_shap(loaded, cohort):
    """shap's own TreeExplainer, on the margin, scaled by the slope. Lundberg 2020."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its colour maps use what Matplotlib means to remove
        import shap

    rows = {name: values[:200] for name, values in cohort.rows.items()}
    matrix = loaded.features.matrix(rows)
    explainer = shap.TreeExplainer(loaded.booster, feature_perturbation="tree_path_dependent")
    values = explainer.shap_values(matrix) * loaded.calibration.slope
    scored = loaded.score(rows)

    np.testing.assert_allclose(scored.contributions, loaded.features.by_feature(values), atol=1e-5)
    base = loaded.calibration.log_odds(np.array([explainer.expected_value], dtype=float).ravel())[0]
    np.testing.assert_allclose(scored.base_value, base, atol=1e-5)
    np.testing.assert_allclose(sigmoid(base + values.sum(axis=1)), scored.risk, atol=1e-5, rtol=0)
