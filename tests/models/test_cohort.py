import numpy as np
import pyarrow as pa

from data.contract import sample
from data.marts.ed_visit import MART
from models.catalog import load
from models.cohort import select

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
