"""Panels of the surrogate by denoising step: does it order images as their rewards do."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from services.dashboard.charts import Curve, lines
from services.dashboard.data_tables import Table
from services.dashboard.elements import empty, table, tag
from services.dashboard.numbers import curve, percent, signed
from services.dashboard.panels import Board, Model
from services.runs_api.metric_table import MetricTable

AGREEMENT, MARGIN = "surrogate/agreement/step_", "surrogate/margin/step_"
WINDOW = 50
"""Newest updates that a mean is of."""


@dataclass(frozen=True)
class Step:
    """The surrogate after one denoising step."""

    curve: Curve
    agreement: float | None
    """Mean of the newest that were told."""
    margin: float | None
    num_updates: int
    """That they are of."""


def surrogate_steps(numbers: MetricTable) -> list[Step]:
    """One a denoising step that it was asked at."""
    names = [name for name in numbers.names if name.startswith(AGREEMENT)]
    return [_step(numbers, int(name.removeprefix(AGREEMENT))) for name in names]


def _step(numbers: MetricTable, index: int) -> Step:
    agreement, margin = (_newest(numbers, f"{name}{index}") for name in (AGREEMENT, MARGIN))
    return Step(
        curve(numbers, f"{AGREEMENT}{index}", f"after step {index + 1}"),
        fmean(agreement) if agreement else None,
        fmean(margin) if margin else None,
        len(agreement),
    )


def _newest(numbers: MetricTable, name: str) -> list[float]:
    told = numbers.series(name, max_points=2**31).values[-WINDOW:] if name in numbers.names else []
    return [value for value in told if value is not None]


def surrogate_panels(board: Board[Model], of: Callable[[Model], list[Step]]) -> None:
    """Their panels; `of` finds what they show in the page's model."""
    board.chart(
        "The surrogate by denoising step",
        lambda model: lines([step.curve for step in of(model)]),
        note="How often it puts the image of the higher advantage first, of two of a group: 1 is "
        "the rewards' own order, 0.5 chance. Told of the step that an iteration's update drew, and "
        "from before it learned.",
    )
    board.panel(
        "The surrogate and the reward",
        lambda model: _summary(of(model)),
        of=of,
        numbers=lambda model: _numbers(of(model)),
    )


def _summary(steps: list[Step]) -> None:
    if not steps:
        empty("The surrogate has not learned yet, or it was not recorded.")
        return
    rows = [
        [
            step.curve.name,
            percent(step.agreement),
            percent(None if step.agreement is None else 1 - step.agreement),
            signed(step.margin),
            str(step.num_updates),
        ]
        for step in steps
    ]
    table(("image", "agreement", "gap", "margin", "updates"), rows, "The surrogate and the reward")
    tag(
        "p",
        f"Means over the newest {WINDOW} updates at each step. Gap: pairs of images that it orders "
        "otherwise than their rewards. Margin: its own reward of the better images over that of "
        "the worse, weighted by advantage, which learning makes grow.",
        "quiet",
    )


def _numbers(steps: list[Step]) -> Table | None:
    head = ("image", "agreement", "margin", "updates")
    rows = [[step.curve.name, step.agreement, step.margin, step.num_updates] for step in steps]
    return Table(head, [list(row) for row in rows]) if rows else None
