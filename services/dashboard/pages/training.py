"""Training: losses, gradients and what keeps the generator near its teacher."""

from dataclasses import dataclass

from services.dashboard.charts import Curve, lines
from services.dashboard.elements import table
from services.dashboard.frame import Visit
from services.dashboard.numbers import curves, newest, short
from services.dashboard.pages.rewards import beside
from services.dashboard.panels import Board, Stamp
from services.runs_api.library import OpenRun

CHARTS = {
    "Surrogate: preference loss": ("surrogate/preference",),
    "Surrogate: error against its reference": ("surrogate/error", "surrogate/reference_error"),
    "Surrogate: distance and group sum": ("surrogate/distance", "surrogate/group_sum"),
    "Fake score": ("fake_score/matching", "fake_score/teacher_distance"),
    "Generator: surrogate's reward and KL": ("generator/reward", "generator/kl"),
    "Learning rates": ("surrogate/lr", "fake_score/lr", "generator/lr"),
    "Gradient norms": ("surrogate/grad_norm", "fake_score/grad_norm", "generator/grad_norm"),
    "Steps lost to numbers that are not finite": (
        "surrogate/step_lost",
        "fake_score/step_lost",
        "generator/step_lost",
    ),
}
NEWEST = ("surrogate/", "fake_score/", "generator/", "advantage/")


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    charts: dict[str, list[Curve]]
    newest: list[tuple[str, float | None, int]]


def load(runs: list[OpenRun]) -> Model:
    """The first run's newest numbers, and every run's curves."""
    charts: dict[str, list[Curve]] = {title: [] for title in CHARTS}
    for run in runs:
        with run.numbers() as table:
            for title, names in CHARTS.items():
                label = "" if len(runs) == 1 else f"{run.id} "
                charts[title] += [
                    Curve(label + each.name, each.series, is_dashed=run is not runs[0])
                    for each in curves(table, names)
                ]
    with runs[0].numbers() as table:
        points = {name: table.latest(name) for name in table.names if name.startswith(NEWEST)}
        told = [(name, point.value, point.step) for name, point in points.items() if point]
        return Model(newest(table, runs[0]), charts, told)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    runs = beside(visit.shell.library, run, visit.query)
    board = Board(run.id, lambda: load(runs))

    def panels() -> None:
        for title in CHARTS:
            board.chart(title, lambda model, title=title: lines(model.charts[title]))
        board.panel("Newest numbers", _newest, wide=True)

    await board.start(panels)


def _newest(model: Model) -> None:
    rows = [
        [name, "not finite" if value is None else short(value, 5), str(step)]
        for name, value, step in model.newest
    ]
    table(("number", "value", "of iteration"), rows, "Newest numbers")
