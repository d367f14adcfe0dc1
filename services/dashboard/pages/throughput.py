"""Throughput: where the time goes, what waits in the buffer, what was thrown away."""

from dataclasses import dataclass

from services.dashboard.charts import Curve, lines, stacks
from services.dashboard.frame import Visit
from services.dashboard.numbers import curves, newest, phases
from services.dashboard.panels import Board, Stamp
from services.runs_api.library import OpenRun
from services.runs_api.metric_table import Stack

CHARTS = {
    "Seconds an iteration": ("seconds/iteration",),
    "Images a second": ("rollout/images_per_s",),
    "Rollout workers": ("rollout/workers",),
    "Groups in the buffer": ("replay/held", "replay/fresh", "replay/rewarded"),
    "Staleness at the draw": (
        *(f"replay/staleness_generator_{which}" for which in ("mean", "p95", "max")),
        *(f"replay/staleness_surrogate_{which}" for which in ("mean", "p95", "max")),
    ),
    "Thrown away since the start": (
        "replay/dropped_unrewarded",
        "replay/dropped_unused",
        "replay/late_records",
    ),
}


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    phases: Stack
    charts: dict[str, list[Curve]]


def load(run: OpenRun) -> Model:
    """Everything as it is now."""
    with run.numbers() as table:
        charts = {title: curves(table, names) for title, names in CHARTS.items()}
        return Model(newest(table, run), phases(table), charts)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(run))

    def panels() -> None:
        board.chart(
            "Seconds by phase",
            lambda model: stacks(model.phases),
            wide=True,
            note="A column of several iterations is their mean. In an async run phases run side by "
            "side, so it may be longer than its iteration; the longest part is who the others wait "
            "on.",
        )
        for title in CHARTS:
            board.chart(title, lambda model, title=title: lines(model.charts[title]))

    await board.start(panels)
