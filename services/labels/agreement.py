"""How far people agree: Krippendorff's alpha for nominal values, on images that several labelled.

    alpha = 1 - D_observed / D_expected
1 is full agreement, 0 is what chance gives, below 0 is worse than chance. On matters of taste
0.2 to 0.5 is usual; near 0 the labels say nothing that people share.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.store.tables import Label

WINDOW = 2000
"""Newest labels that the service's own number is of."""
VERDICTS = ("like", "dislike")


def alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Alpha of the values that each unit was given; None where no unit has two, or all values are
    the same, since then nothing can be told."""
    pairable = [Counter(values) for values in units if len(values) > 1]
    totals = sum(pairable, Counter())
    n = totals.total()
    same_expected = sum(count * (count - 1) for count in totals.values())
    expected = n * (n - 1) - same_expected
    if expected == 0:
        return None
    observed = sum(
        (unit.total() ** 2 - sum(count**2 for count in unit.values())) / (unit.total() - 1)
        for unit in pairable
    )
    return 1 - (n - 1) * observed / expected


def agreement(session: Session) -> float | None:
    """Alpha of the newest labels, gold left out."""
    newest = (
        select(Label.image_id, Label.value)
        .where(~Label.is_gold, Label.retracted_at.is_(None), Label.value.in_(VERDICTS))
        .order_by(Label.seq.desc())
        .limit(WINDOW)
    )
    units: dict[str, list[str]] = {}
    for image_id, value in session.execute(newest):
        units.setdefault(image_id, []).append(value)
    return alpha(units.values())
