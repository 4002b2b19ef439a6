"""What every mart says in the same words."""

from data.contract import Category, Text


def categories(*rows: tuple[str, str, str]) -> tuple[Category, ...]:
    """Categories from id, English and Chinese."""
    return tuple(Category(id=name, label=Text(en, zh)) for name, en, zh in rows)


TIERS = categories(
    ("tertiary", "Tertiary hospital", "三级医院"),
    ("county", "County hospital", "县级医院"),
    ("grassroots", "Grassroots clinic", "基层医疗机构"),
)
SEXES = categories(("female", "Female", "女"), ("male", "Male", "男"))
