import numpy as np
import pyarrow as pa

from data.contract import sample
from data.marts.ed_visit import MART
from data.simulate import simulate
from models.catalog import load
from models.cohort import columns, gathered, select

SPEC = load("ed_admission")


def visits(**columns):
    """Rows of the mart that differ only in ``columns``."""
    size = len(next(iter(columns.values())))
    table = sample(MART, size, seed=3)
    for name, values in columns.items():
        position = table.column_names.index(name)
        kind = MART.arrow_schema.field(name).type
        table = table.set_column(position, name, pa.array(values, kind))
    return table.append_column("load_id", pa.array(["first"] * size))


def test_exclusions_are_counted_in_order_and_the_outcome_follows_the_disposition():
    table = visits(
        age=[17, 18, 40, 40, 40, 40, 40, 40, 40],
        disposition=[
            "admitted", "discharged", "admitted", "observation", "transferred",
            "dead_on_arrival", "left_after_triage", "left_against_advice", None,
        ],
    )  # fmt: skip

    cohort = select(SPEC, MART, table)

    assert cohort.flow == (
        ("rows in the mart", 9),
        ("under 18 years", 1),
        ("dead on arrival", 1),
        ("left before being seen", 1),
        ("left against advice", 1),
        ("outcome not known", 1),
        ("in the cohort", 4),
    )
    assert cohort.outcome.tolist() == [0, 1, 1, 1]


def test_a_missing_outcome_is_never_a_negative():
    cohort = select(SPEC, MART, visits(age=[40.0, 40.0], disposition=[None, "discharged"]))

    assert len(cohort) == 1


def test_patients_are_resampled_and_without_any_sites_are():
    known = visits(age=[40.0] * 4, disposition=["admitted"] * 4, patient_id=["a", "a", None, None])
    unknown = visits(
        age=[40.0] * 3, disposition=["admitted"] * 3, patient_id=[None] * 3, site=["s", "s", "t"]
    )

    assert len(np.unique(select(SPEC, MART, known).cluster)) == 3
    assert len(np.unique(select(SPEC, MART, unknown).cluster)) == 2
    assert len(np.unique(select(SPEC, MART, unknown).person)) == 3


def test_weights_count_only_where_every_row_has_one():
    some = visits(age=[40.0] * 2, disposition=["admitted"] * 2, weight=[2.0, None])
    every = visits(age=[40.0] * 2, disposition=["admitted"] * 2, weight=[2.0, 3.0])

    assert select(SPEC, MART, some).weight is None
    assert select(SPEC, MART, every).weight.tolist() == [2.0, 3.0]


def simulated(size=600):
    table = simulate(visits=size, seed=9)
    loads = pa.array(["first"] * (size // 2) + ["second"] * (size - size // 2))
    return table.append_column("load_id", loads)


def test_batches_of_any_size_make_the_same_cohort(tmp_path):
    table = simulated()
    whole = select(SPEC, MART, table)
    names = [*columns(SPEC, MART), "load_id"]
    pieces = [table.select(names).slice(start, 71) for start in range(0, len(table), 71)]

    with gathered(SPEC, MART, pieces, scratch=tmp_path / "scratch") as cohort:
        assert cohort.fingerprint == whole.fingerprint
        assert cohort.flow == whole.flow
        assert cohort.load_ids == whole.load_ids == ("first", "second")
        for name in ("outcome", "patient", "site", "time"):
            assert getattr(cohort, name).tolist() == getattr(whole, name).tolist()
        assert isinstance(cohort.rows["age"].base, np.memmap)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_no_row_in_the_cohort_is_an_empty_cohort():
    table = visits(age=[3.0, 4.0], disposition=["admitted", "discharged"])
    cohort = select(SPEC, MART, table)

    assert len(cohort) == 0
    assert cohort.flow[-1] == ("in the cohort", 0)


def test_no_identifier_of_a_patient_or_a_visit_is_held():
    cohort = select(SPEC, MART, simulated())

    assert MART.patient not in cohort.rows
    assert MART.encounter not in cohort.rows


def test_the_fingerprint_follows_every_cell():
    table = simulated()
    changed = table.set_column(
        table.column_names.index("pain"), "pain", pa.array([1] * len(table), pa.int64())
    )
    assert select(SPEC, MART, changed).fingerprint != select(SPEC, MART, table).fingerprint
    assert select(SPEC, MART, table.slice(0, 599)).fingerprint != select(SPEC, MART, table).fingerprint
