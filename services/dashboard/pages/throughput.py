"""Throughput: where the time goes, what waits in the buffer, what was thrown away."""

from dataclasses import dataclass

from services.dashboard.charts import Curve, lines, stacks
from services.dashboard.frame import Visit
from services.dashboard.numbers import curve, curves, newest, phases, waiting_for_rewards
from services.dashboard.panels import Board, Stamp
from services.runs_api.library import OpenRun
from services.runs_api.metric_table import Stack

READERS = ("generator", "surrogate")
QUEUES = "Images that wait for a reward"
STALENESS = {f"Staleness at the {who}'s draw": f"replay/staleness_{who}_" for who in READERS}
"""Title to what its numbers begin with."""
CHARTS: dict[str, tuple[str, ...]] = {
    "Seconds an iteration": ("seconds/iteration",),
    "Images a second": ("rollout/images_per_s",),
    "Rollout workers": ("rollout/workers",),
    "Groups in the buffer": ("replay/held", "replay/fresh", "replay/rewarded"),
    QUEUES: (),  # by reward
    **{
        title: tuple(start + which for which in ("mean", "p95", "max"))
        for title, start in STALENESS.items()
    },
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
        charts = {
            title: curves(table, names, drop=STALENESS.get(title, ""))
            for title, names in CHARTS.items()
        }
        charts[QUEUES] = [
            curve(table, name, name.split("/")[1]) for name in waiting_for_rewards(table)
        ]
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
